// Ranges of the short rows of a leaf, which follow each other through all slices.
#pragma once

#include <cstdint>

#include "adafactor/compiler/abi.hpp"
#include "adafactor/order.hpp"
#include "adafactor/step/leaf.hpp"

namespace adafactor { inline namespace ADAFACTOR_LOOPS {

// Whether rows are too short for runs of their own; parts of longer ones are summed like these.
ADAFACTOR_DEVICE inline bool is_narrow(const Leaf& leaf) {
  return leaf.shape.factored && leaf.shape.whole_cols < kLanes && leaf.shape.cols > 0;
}

// Whether slices are small too; then a range of rows holds whole ones.
ADAFACTOR_DEVICE inline bool has_small_slices(const Leaf& leaf) { return leaf.at.row_factor != nullptr; }

// A range of rows, counted through all slices.
struct RowRange {
  std::int64_t first = 0;
  std::int64_t count = 0;
};

// The rows of a tile.
ADAFACTOR_DEVICE inline RowRange rows_of(const Leaf& leaf, const Tile& tile) {
  return {tile.slice * leaf.shape.rows + tile.row, tile.slices * tile.rows};
}

// How many rows a run has: those that fit in a block, and where slices are small too, whole slices.
ADAFACTOR_DEVICE inline std::int64_t rows_of_run(const Leaf& leaf) {
  const int most = static_cast<int>(kBlock) / static_cast<int>(leaf.shape.cols);
  return has_small_slices(leaf) ? most - most % static_cast<int>(leaf.shape.rows) : most;
}

// Calls body(rows) for ranges of at most so many rows.
template <class Body>
ADAFACTOR_INLINE void for_row_ranges(const Leaf& leaf, const Tile& tile, std::int64_t most, const Body& body) {
  const RowRange all = rows_of(leaf, tile);
  for (std::int64_t r = 0; r < all.count; r += most) {
    body(RowRange{all.first + r, all.count - r < most ? all.count - r : most});
  }
}

// Calls body(part) for parts of a tile of small slices that are whole cells of both kinds: 32 slices, and runs.
template <class Body>
ADAFACTOR_INLINE void for_parts_of_cells(const Leaf& leaf, const Tile& tile, const Body& body) {
  const std::int64_t most = 32 * (rows_of_run(leaf) / leaf.shape.rows);
  for (std::int64_t done = 0; done < tile.slices; done += most) {
    Tile part = tile;
    part.slice += done;
    part.slices = tile.slices - done < most ? tile.slices - done : most;
    body(part);
  }
}

// Calls body(slice, row, count, offset) for the parts of a range that lie in one slice each; `offset` is how many rows
// of the range come before.
template <class Body>
ADAFACTOR_INLINE void for_slices(const Leaf& leaf, RowRange range, const Body& body) {
  std::int64_t slice = range.first / leaf.shape.rows;
  std::int64_t row = range.first % leaf.shape.rows;
  for (std::int64_t offset = 0; offset < range.count; ++slice, row = 0) {
    const std::int64_t left = range.count - offset;
    const std::int64_t count = leaf.shape.rows - row < left ? leaf.shape.rows - row : left;
    body(slice, row, count, offset);
    offset += count;
  }
}

}}  // namespace adafactor::ADAFACTOR_LOOPS
