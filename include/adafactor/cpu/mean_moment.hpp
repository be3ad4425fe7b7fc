// M of a slice, and what it is made of: the sums of its old R and of G^2, from what `moments` left of its tiles.
#pragma once

#include <cstdint>

#include "adafactor/cpu/moment_rule.hpp"
#include "adafactor/cpu/runs/loops.hpp"
#include "adafactor/step/leaf.hpp"
#include "adafactor/step/totals.hpp"

#include "adafactor/compiler/exact_begin.hpp"

namespace adafactor { inline namespace ADAFACTOR_LOOPS {

// The sums of the old R and of G^2 of a slice.
struct SliceSums {
  double old_moments;
  double squares;
};

// The slices that begin in a tile.
ADAFACTOR_DEVICE inline Indices slices_begun_in(const Leaf& leaf, const Tile& tile) {
  const bool begins = leaf.shape.tiles_hold_slices() || (tile.row_block == 0 && tile.col_block == 0);
  return {tile.slice, begins ? tile.slice + tile.slices : tile.slice};
}

// Those of a slice of a tile, of which `moments` left the squares in the place of M; or of a slice of several tiles,
// with the sums of these, of which total(count, number) is that of number(0), number(1), ...
template <class T, class Total>
ADAFACTOR_DEVICE SliceSums sums_of_slice(const Leaf& leaf, const TileSums* leaf_sums, std::int64_t slice,
                                         const Total& total) {
  if (leaf.shape.tiles_hold_slices()) {
    const T* old = static_cast<const T*>(leaf.at.before.row) + slice * leaf.shape.rows;
    return {sum_of(old, leaf.shape.rows), leaf.at.mean_moment[slice]};
  }
  const std::int64_t count = leaf.shape.row_blocks * leaf.shape.col_blocks;
  const TileSums* parts = leaf_sums + slice * count;
  const auto old_moments = [&](std::int64_t i) { return parts[i * leaf.shape.col_blocks].row_moments; };
  const auto squares = [&](std::int64_t i) { return parts[i].clipped_squares; };
  return {total(leaf.shape.row_blocks, old_moments), total(count, squares)};
}

// M of one slice, of what its tiles have left or all parts have added up.
template <class T, class Total>
ADAFACTOR_DEVICE double mean_moment_of(const Leaf& leaf, const TileSums* leaf_sums, std::int64_t slice,
                                       const MomentRule& rule, const Total& total) {
  const auto rows = static_cast<double>(leaf.shape.whole_rows);
  const double size = rows * static_cast<double>(leaf.shape.whole_cols);
  const SliceSums sums = leaf.shares_slices() ? SliceSums{leaf.at.shared[leaf.shared().old_moments() + slice],
                                                          leaf.at.shared[leaf.shared().slice_squares() + slice]}
                                              : sums_of_slice<T>(leaf, leaf_sums, slice, total);
  return mean_moment(leaf, rule, sums.old_moments / rows, sums.squares / size);
}

}}  // namespace adafactor::ADAFACTOR_LOOPS

#include "adafactor/compiler/exact_end.hpp"
