// Phase `factors`: from the means of G^2 and the old moments the new moments, in the workspace, and the inverse roots
// of the column moments; nothing of the caller's or of the state is written. The row factors (R / M)^-1/2 are one
// number a row: whoever walks a row makes its own, from R, in double, so that what it is multiplied by is rounded with
// it and not after it. Only where slices are small, and each number of a row counts, are they made here and kept.
#pragma once

#include <cstdint>

#include "adafactor/cpu/mean_moment.hpp"
#include "adafactor/cpu/runs/loops.hpp"
#include "adafactor/cpu/short/slice_factors.hpp"
#include "adafactor/step/leaf.hpp"

#include "adafactor/compiler/exact_begin.hpp"

namespace adafactor { inline namespace ADAFACTOR_LOOPS {

// Eight numbers as one, by an operation of which the order does not matter.
template <class Operation>
ADAFACTOR_INLINE double fold_by(const double* numbers) {
  constexpr Exactly<4> half;
  double four[4];
  const Lanes<double, 4> low = load<double>(numbers, half);
  store(four, Lanes<double, 4>{loop_detail::combine<Operation>(low.group, load<double>(numbers + 4, half).group)},
        half);
  return Operation::of(Operation::of(four[0], four[1]), Operation::of(four[2], four[3]));
}

// moments <- beta2 old + (1 - beta2) (square_scale mean + epsilon), where `moments` holds the means. Returns their
// range.
template <class T>
MomentRange update_moments(const T* old, T* moments, MomentRule rule, std::int64_t n) {
  constexpr double none = __builtin_inf();
  constexpr Exactly<8> eight;
  const auto update = [&](std::int64_t i, auto amount) ADAFACTOR_INLINE_LAMBDA {
    const auto mean = load<double>(moments + i, amount);
    store(moments + i, next_moment(rule, load<double>(old + i, amount), mean), amount);
    return load<double>(moments + i, amount);  // as it is stored
  };
  MomentRange range{none, 0};
  std::int64_t i = 0;
  if (n >= 8) {
    double lows[8];
    double highs[8];
    auto low = fill<double, 8>(none);
    auto high = fill<double, 8>(0);
    for (; i + 8 <= n; i += 8) {
      const auto moment = update(i, eight);
      low = smaller(low, select_less(0.0, moment, moment, low));
      high = larger(high, moment);
    }
    store(lows, low, eight);
    store(highs, high, eight);
    range = {fold_by<loop_detail::Smaller>(lows), fold_by<loop_detail::Larger>(highs)};
  }
  for (; i < n; ++i) {
    const double moment = update(i, One{});
    if (moment > 0) range.smallest = smaller(range.smallest, moment);
    range.largest = larger(range.largest, moment);
  }
  return range;
}

// factors <- moment^-1/2, 0 where the moment is 0.
template <class T>
void store_inverse_roots(const T* moments, T* factors, std::int64_t n) {
  for_each(n, [&](std::int64_t i, auto amount) ADAFACTOR_INLINE_LAMBDA {
    const auto moment = load<double>(moments + i, amount);
    store(factors + i, inverse_root(moment), amount);
  });
}

// M of the slices that begin in a tile.
template <class T>
void store_mean_moments(const Leaf& leaf, const Tile& tile, const TileSums* leaf_sums, const MomentRule& rule) {
  const auto total = [](std::int64_t count, const auto& number) { return total_of(count, number); };
  const Indices slices = slices_begun_in(leaf, tile);
  for (std::int64_t slice = slices.first; slice < slices.last; ++slice) {
    leaf.at.mean_moment[slice] = mean_moment_of<T>(leaf, leaf_sums, slice, rule, total);
  }
}

// R and C of the tile (rows by the tiles of the first column block, columns by those of the first row block), the
// column factors C^-1/2, M (by the first tile of a slice), and the range of both moments. `leaf_sums` are what
// `moments` left.
template <class T>
void factors_of_tile(const Leaf& leaf, const Tile& tile, const TileSums* leaf_sums, TileSums& sums) {
  const MomentRule rule = moment_rule(leaf);
  sums.rows = sums.cols = {__builtin_inf(), 0};
  if (leaf.at.row_factor) return loop_detail::factors_of_slices<T>(leaf, tile, sums);
  if (leaf.at.mean_moment) store_mean_moments<T>(leaf, tile, leaf_sums, rule);
  // Several slices are whole ones, so their moments follow each other.
  if (tile.col_block == 0) {
    const std::int64_t first = tile.slice * leaf.shape.rows + tile.row;
    const std::int64_t count = tile.slices * tile.rows;
    T* row = static_cast<T*>(leaf.at.row_moment) + first;
    if (leaf.row_sums()) {
      store_means(leaf.row_sums() + first, static_cast<double>(leaf.shape.whole_cols), row, count);
    }
    sums.rows = update_moments(static_cast<const T*>(leaf.at.before.row) + first, row, rule, count);
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
