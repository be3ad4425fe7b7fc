// Phase `factors`: from the means of G^2 and the old moments the new moments, in the workspace, and the inverse roots
// of the column moments; nothing of the caller's or of the state is written. The row factors (R / M)^-1/2 are one
// number a row: whoever walks a row makes its own, from R, in double, so that what it is multiplied by is rounded with
// it and not after it. Only where slices are small, and each number of a row counts, are they made here and kept.
#pragma once

#include <cstdint>
#include <cstring>

#include "adafactor/exact_begin.hpp"
#include "adafactor/kernels.hpp"
#include "adafactor/leaf.hpp"
#include "adafactor/small_slice.hpp"

namespace adafactor::inline ADAFACTOR_LOOPS {

namespace loop_detail {

// Makes the row factors of a tile of small slices, sixteen slices at a time. They are rounded to T twice: here, and
// with what they are multiplied by.
template <class T, class Shape>
class SmallSliceFactors {
 public:
  SmallSliceFactors(const Leaf& leaf, Shape shape) : leaf_(leaf), shape_(shape) {}

  // Writes those of at most sixteen slices.
  void operator()(std::int64_t first, int count) {
    const T* moments = static_cast<const T*>(leaf_.row_moment) + first * shape_.rows;
    if (count < kLanes) {
      std::memcpy(few_, moments, static_cast<std::size_t>(count * shape_.rows) * sizeof(T));
      moments = few_;
    }
    const Lanes<double> means = means_of(moments);
    for (int row = 0; row < shape_.rows; ++row) {
      const Lanes<double> moment = widen(load_apart(moments + row, shape_.rows));
      const Lanes<double> factor = select_less(0.0, moment, square_root(means / moment), fill(0.0));
      store(factors_ + row * kLanes, factor, Full{});
    }
    gather_from_lanes(factors_, shape_.rows, count, static_cast<T*>(leaf_.row_factor) + first * shape_.rows);
  }

 private:
  // M of each of sixteen slices.
  Lanes<double> means_of(const T* moments) {
    for (int row = 0; row < shape_.rows; ++row) {
      store(vectors_ + row * kLanes, widen(load_apart(moments + row, shape_.rows)), Full{});
    }
    const Lanes<double> means = fold_vectors(vectors_, shape_.rows) / static_cast<double>(shape_.rows);
    return larger(means, leaf_.clamps ? leaf_.epsilon_1 : 0.0);
  }

  const Leaf& leaf_;
  Shape shape_;
  T few_[Shape::most * kLanes] = {};
  double vectors_[Shape::most * kLanes];
  T factors_[Shape::most * kLanes];
};

template <class T>
void store_small_slice_factors(const Leaf& leaf, const Tile& tile) {
  with_small_slice<T>(leaf, [&](auto shape) {
    SmallSliceFactors<T, decltype(shape)> store_factors(leaf, shape);
    for (std::int64_t done = 0; done < tile.slices; done += kLanes) {
      const std::int64_t left = tile.slices - done;
      store_factors(tile.slice + done, static_cast<int>(left < kLanes ? left : kLanes));
    }
  });
}

}  // namespace loop_detail

// R and C of the tile (rows by the tiles of the first column block, columns by those of the first row block), the
// column factors C^-1/2, the tile's share of the sum of R, and the range of both moments.
template <class T>
void new_moments_of_tile(const Leaf& leaf, const Tile& tile, TileSums& sums) {
  const MomentRule rule{leaf.beta_2, leaf.one_minus_beta_2, leaf.norm_factor * leaf.norm_factor,
                        leaf.clamps ? 0 : leaf.epsilon_1};
  sums.row_moments = 0;
  sums.rows = sums.cols = {__builtin_inf(), 0};
  // Several slices are whole ones, so their moments follow each other.
  if (tile.col_block == 0) {
    const std::int64_t first = tile.slice * leaf.rows + tile.row;
    const std::int64_t count = tile.slices * tile.rows;
    T* row = static_cast<T*>(leaf.row_moment) + first;
    update_moments(static_cast<const T*>(leaf.before.row) + first, row, rule, count);
    sums.row_moments = sum_of(row, count);
    sums.rows = range_of(row, count);
    if (leaf.row_factor) loop_detail::store_small_slice_factors<T>(leaf, tile);
  }
  if (tile.row_block == 0) {
    const std::int64_t first = tile.slice * leaf.cols + tile.col;
    const std::int64_t count = tile.slices * tile.cols;
    T* col = static_cast<T*>(leaf.col_moment) + first;
    update_moments(static_cast<const T*>(leaf.before.col) + first, col, rule, count);
    store_inverse_roots(col, static_cast<T*>(leaf.col_factor) + first, count);
    sums.cols = range_of(col, count);
  }
}

// factors <- scale (R / M)^-1/2 for n rows of R and their M, 0 where R is 0.
template <class T>
void store_row_factors(const T* moments, double mean, double scale, T* factors, std::int64_t n) {
  for_each(n, [&](std::int64_t i, auto extent) ADAFACTOR_INLINE_LAMBDA {
    auto moment = load<double>(moments + i, extent);
    const auto bare = select_less(0.0, moment, square_root(mean / moment), decltype(moment){});
    store(factors + i, bare * scale, extent);
  });
}

// M of a slice: the mean of its new R. `sums` are those of the leaf's tiles.
template <class T>
double mean_of_row_moments(const Leaf& leaf, const TileSums* sums, std::int64_t slice) {
  double total = 0;
  // Where tiles are several slices, they keep no sum of each.
  if (leaf.tile_count < leaf.slices * leaf.row_blocks * leaf.col_blocks) {
    total = sum_of(static_cast<const T*>(leaf.row_moment) + slice * leaf.rows, leaf.rows);
  } else {
    for (std::int64_t block = 0; block < leaf.row_blocks; ++block) {
      total += sums[(slice * leaf.row_blocks + block) * leaf.col_blocks].row_moments;
    }
  }
  const double mean = total / static_cast<double>(leaf.rows);
  return leaf.clamps && mean < leaf.epsilon_1 ? leaf.epsilon_1 : mean;
}

}  // namespace adafactor::inline ADAFACTOR_LOOPS

#include "adafactor/exact_end.hpp"
