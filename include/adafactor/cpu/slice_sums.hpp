// What M of a slice is made of: the sums of its old R and of G^2, from what `moments` left of its tiles.
#pragma once

#include <cstdint>

#include "adafactor/cpu/runs/loops.hpp"
#include "adafactor/step/leaf.hpp"
#include "adafactor/step/totals.hpp"

#include "adafactor/compiler/exact_begin.hpp"

namespace adafactor { inline namespace ADAFACTOR_LOOPS {

// Calls body(slice, sum of the old R, sum of G^2) for the slices of a tile, of which `moments` left the squares in the
// place of M; or for the slice that a tile is the first part of, with the sums of its parts.
template <class T, class Body>
void for_slice_sums(const Leaf& leaf, const Tile& tile, const TileSums* leaf_sums, const Body& body) {
  if (leaf.shape.tiles_hold_slices()) {
    for (std::int64_t slice = tile.slice; slice < tile.slice + tile.slices; ++slice) {
      const T* old = static_cast<const T*>(leaf.at.before.row) + slice * leaf.shape.rows;
      body(slice, sum_of(old, leaf.shape.rows), leaf.at.mean_moment[slice]);
    }
  } else if (tile.row_block == 0 && tile.col_block == 0) {
    const std::int64_t count = leaf.shape.row_blocks * leaf.shape.col_blocks;
    const TileSums* parts = leaf_sums + tile.slice * count;
    const auto old_moments = [&](std::int64_t i) { return parts[i * leaf.shape.col_blocks].row_moments; };
    const auto squares = [&](std::int64_t i) { return parts[i].clipped_squares; };
    body(tile.slice, total_of(leaf.shape.row_blocks, old_moments), total_of(count, squares));
  }
}

}}  // namespace adafactor::ADAFACTOR_LOOPS

#include "adafactor/compiler/exact_end.hpp"
