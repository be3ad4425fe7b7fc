// Phase `factors`: from the means of G^2 and the old moments the new moments, in the workspace, and the inverse roots
// of the column moments; nothing of the caller's or of the state is written. The row factors (R / M)^-1/2 are one
// number a row: whoever walks a row makes its own, from R, in double, so that what it is multiplied by is rounded with
// it and not after it. Only where slices are small, and each number of a row counts, are they made here and kept.
#pragma once

#include <cstdint>
#include <cstring>

#include "adafactor/cpu/runs/loops.hpp"
#include "adafactor/cpu/short/slices.hpp"
#include "adafactor/cpu/slice_sums.hpp"
#include "adafactor/step/leaf.hpp"

#include "adafactor/compiler/exact_begin.hpp"

namespace adafactor { inline namespace ADAFACTOR_LOOPS {

// M of a slice, the mean of its new R, from the means of the old ones and of G^2: whoever has a part of a slice knows
// its M as soon as these two are added up, before there is a new R. Of one slice or of sixteen.
template <class Numbers>
ADAFACTOR_INLINE Numbers mean_moment(const Leaf& leaf, const MomentRule& rule, const Numbers& old,
                                     const Numbers& mean) {
  const Numbers moment = rule.beta_2 * old + rule.one_minus_beta_2 * (rule.square_scale * mean + rule.epsilon);
  return larger(moment, leaf.rule.clamps ? leaf.rule.epsilon_1 : 0.0);
}

namespace loop_detail {

// Makes R and the row factors of a tile of small slices, sixteen slices at a time; their M, of the means of their rows,
// is not kept. The factors are rounded to T twice: here, and with what they are multiplied by.
template <class T, class Shape>
class SmallSliceFactors {
 public:
  SmallSliceFactors(const Leaf& leaf, const MomentRule& rule, Shape shape) : leaf_(leaf), rule_(rule), shape_(shape) {}

  // Writes those of at most sixteen slices. Returns the range of their R.
  MomentRange operator()(std::int64_t slice, int count) {
    const std::int64_t first = slice * shape_.rows;
    const T* old = static_cast<const T*>(leaf_.at.before.row) + first;
    T* moments = static_cast<T*>(leaf_.at.row_moment) + first;
    const Lanes<double> means = mean_moment(leaf_, rule_, mean_of_rows(old, count), mean_of_rows(moments, count));
    const MomentRange range = update_moments(old, moments, rule_, count * shape_.rows);
    const T* new_moments = whole(moments, count);
    for (int row = 0; row < shape_.rows; ++row) {
      const Lanes<double> moment = widen(load_apart(new_moments + row, shape_.rows));
      const Lanes<double> factor = select_less(0.0, moment, square_root(means / moment), fill(0.0));
      store(factors_ + row * kLanes, factor, Full{});
    }
    gather_from_lanes(factors_, shape_.rows, count, static_cast<T*>(leaf_.at.row_factor) + first);
    return range;
  }

 private:
  // The numbers of the rows of sixteen slices; of those that are not there any.
  const T* whole(const T* numbers, int count) {
    if (count == kLanes) return numbers;
    std::memcpy(few_, numbers, static_cast<std::size_t>(count * shape_.rows) * sizeof(T));
    return few_;
  }

  Lanes<double> mean_of_rows(const T* numbers, int count) {
    numbers = whole(numbers, count);
    for (int row = 0; row < shape_.rows; ++row) {
      store(vectors_ + row * kLanes, widen(load_apart(numbers + row, shape_.rows)), Full{});
    }
    return fold_vectors(vectors_, shape_.rows) / static_cast<double>(shape_.rows);
  }

  const Leaf& leaf_;
  const MomentRule& rule_;
  Shape shape_;
  T few_[Shape::most * kLanes] = {};
  double vectors_[Shape::most * kLanes];
  T factors_[Shape::most * kLanes];
};

template <class T>
MomentRange store_small_slice_factors(const Leaf& leaf, const Tile& tile, const MomentRule& rule) {
  MomentRange range{__builtin_inf(), 0};
  with_small_slice<T>(leaf, [&](auto shape) {
    SmallSliceFactors<T, decltype(shape)> store_factors(leaf, rule, shape);
    for (std::int64_t done = 0; done < tile.slices; done += kLanes) {
      const std::int64_t left = tile.slices - done;
      range = range_of(range, store_factors(tile.slice + done, static_cast<int>(left < kLanes ? left : kLanes)));
    }
  });
  return range;
}

}  // namespace loop_detail

// M of the slices that begin in a tile.
template <class T>
void store_mean_moments(const Leaf& leaf, const Tile& tile, const TileSums* leaf_sums, const MomentRule& rule) {
  const auto rows = static_cast<double>(leaf.shape.whole_rows);
  const double size = rows * static_cast<double>(leaf.shape.whole_cols);
  const Indices slices = slices_begun_in(leaf, tile);
  for (std::int64_t slice = slices.first; slice < slices.last; ++slice) {
    const SliceSums sums = leaf.shares_slices() ? SliceSums{leaf.at.shared[leaf.shared().old_moments() + slice],
                                                            leaf.at.shared[leaf.shared().slice_squares() + slice]}
                                                : sums_of_slice<T>(leaf, leaf_sums, slice);
    leaf.at.mean_moment[slice] = mean_moment(leaf, rule, sums.old_moments / rows, sums.squares / size);
  }
}

// R and C of the tile (rows by the tiles of the first column block, columns by those of the first row block), the
// column factors C^-1/2, M (by the first tile of a slice), and the range of both moments. `leaf_sums` are what
// `moments` left.
template <class T>
void factors_of_tile(const Leaf& leaf, const Tile& tile, const TileSums* leaf_sums, TileSums& sums) {
  const MomentRule rule{leaf.rule.beta_2, leaf.rule.one_minus_beta_2, leaf.found.norm_factor * leaf.found.norm_factor,
                        leaf.rule.clamps ? 0 : leaf.rule.epsilon_1};
  sums.rows = sums.cols = {__builtin_inf(), 0};
  if (leaf.at.mean_moment) store_mean_moments<T>(leaf, tile, leaf_sums, rule);
  // Several slices are whole ones, so their moments follow each other.
  if (tile.col_block == 0) {
    const std::int64_t first = tile.slice * leaf.shape.rows + tile.row;
    const std::int64_t count = tile.slices * tile.rows;
    T* row = static_cast<T*>(leaf.at.row_moment) + first;
    if (leaf.row_sums()) {
      store_means(leaf.row_sums() + first, static_cast<double>(leaf.shape.whole_cols), row, count);
    }
    sums.rows = leaf.at.row_factor
                    ? loop_detail::store_small_slice_factors<T>(leaf, tile, rule)
                    : update_moments(static_cast<const T*>(leaf.at.before.row) + first, row, rule, count);
  }
  if (tile.row_block == 0) {
    const std::int64_t first = tile.slice * leaf.shape.cols + tile.col;
    const std::int64_t count = tile.slices * tile.cols;
    T* col = static_cast<T*>(leaf.at.col_moment) + first;
    if (leaf.col_sums()) {
      store_means(leaf.col_sums() + first, static_cast<double>(leaf.shape.whole_rows), col, count);
    }
    sums.cols = update_moments(static_cast<const T*>(leaf.at.before.col) + first, col, rule, count);
    store_inverse_roots(col, static_cast<T*>(leaf.at.col_factor) + first, count);
  }
}

}}  // namespace adafactor::ADAFACTOR_LOOPS

#include "adafactor/compiler/exact_end.hpp"
