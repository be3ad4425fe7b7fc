// How a tile is cut into cells, whose sums are added up in their order: the twin of what cpu/runs/cells.hpp and
// cpu/short walk through.
#pragma once

#include <cstdint>

#include "adafactor/cpu/short/rows.hpp"
#include "adafactor/order.hpp"
#include "adafactor/step/leaf.hpp"
#include "threads.hpp"
#include "view.hpp"

namespace adafactor::cuda {

template <class Number>
ADAFACTOR_DEVICE constexpr Number divided_up(Number n, Number size) {
  return (n + size - 1) / size;
}

// A group of rows in a block of columns.
struct Cell {
  std::int64_t slice;
  std::int64_t row, col;
  int rows, cols;
};

// Those of a tile that is walked by rows: slice after slice, panel after panel, group after group, block after block.
class RowCells {
 public:
  ADAFACTOR_DEVICE explicit RowCells(const Tile& tile)
      : tile_(tile), groups_(divided_up(tile.rows, kRowGroup)), blocks_(divided_up(tile.cols, kBlock)) {}

  ADAFACTOR_DEVICE std::int64_t groups() const { return groups_; }
  ADAFACTOR_DEVICE std::int64_t blocks() const { return blocks_; }
  ADAFACTOR_DEVICE std::int64_t of_slice() const { return groups_ * blocks_; }
  ADAFACTOR_DEVICE std::int64_t count() const { return tile_.slices * of_slice(); }
  // Of a slice, those before the end of a panel.
  ADAFACTOR_DEVICE std::int64_t before_end_of(std::int64_t panel) const {
    const std::int64_t end = (panel + 1) * kPanelBlocks;
    return groups_ * (end < blocks_ ? end : blocks_);
  }

  ADAFACTOR_DEVICE std::int64_t index(std::int64_t slice, std::int64_t group, std::int64_t block) const {
    const std::int64_t first = block / kPanelBlocks * kPanelBlocks;  // of the panel
    return slice * of_slice() + first * groups_ + group * width(first) + block - first;
  }
  // A tile has few cells, so that small numbers are divided.
  ADAFACTOR_DEVICE Cell at(std::int64_t index) const {
    const auto slice = static_cast<int>(index) / static_cast<int>(of_slice());
    const auto in_slice = static_cast<int>(index - slice * of_slice());
    const auto of_panel = static_cast<int>(groups_ * kPanelBlocks);
    const auto first = in_slice / of_panel * static_cast<int>(kPanelBlocks);
    const auto in_panel = in_slice - first * static_cast<int>(groups_);
    const auto blocks = static_cast<int>(width(first));
    const auto group = in_panel / blocks;
    return cell(slice, group, first + in_panel - group * blocks);
  }
  ADAFACTOR_DEVICE Cell cell(std::int64_t slice, std::int64_t group, std::int64_t block) const {
    const std::int64_t row = group * kRowGroup;
    const std::int64_t col = block * kBlock;
    return {tile_.slice + slice, tile_.row + row, tile_.col + col, static_cast<int>(least(tile_.rows - row, kRowGroup)),
            static_cast<int>(least(tile_.cols - col, kBlock))};
  }

  static constexpr std::int64_t kPanelBlocks = kPanel / kBlock;

 private:
  static ADAFACTOR_DEVICE std::int64_t least(std::int64_t a, std::int64_t b) { return a < b ? a : b; }
  // The blocks of the panel that begins with a block.
  ADAFACTOR_DEVICE std::int64_t width(std::int64_t first) const { return least(blocks_ - first, kPanelBlocks); }

  const Tile& tile_;
  std::int64_t groups_, blocks_;
};

// Those of a tile of short rows, each a run of whole rows.
class RunCells {
 public:
  ADAFACTOR_DEVICE RunCells(const Leaf& leaf, const Tile& tile)
      : most_(rows_of_run(leaf)), rows_(rows_of(leaf, tile)) {}

  ADAFACTOR_DEVICE std::int64_t count() const {
    return divided_up(static_cast<int>(rows_.count), static_cast<int>(most_));
  }
  ADAFACTOR_DEVICE RowRange at(std::int64_t index) const {
    const std::int64_t done = index * most_;
    return {rows_.first + done, rows_.count - done < most_ ? rows_.count - done : most_};
  }

 private:
  std::int64_t most_;
  RowRange rows_;
};

// Those of a tile of small slices, each two groups of sixteen.
inline constexpr std::int64_t kSlicesOfCell = 2 * kLanes;
ADAFACTOR_DEVICE inline std::int64_t slice_cells(const Tile& tile) { return divided_up(tile.slices, kSlicesOfCell); }

// What a team does of a list of cells: the tile, its leaf, and which of the tile's cells it is, if there are so many.
struct TeamCell {
  ADAFACTOR_KERNEL TeamCell(const View& view, const CellPiece& piece)
      : tile(view.tiles[piece.tile]),
        leaf(view.leaves[tile.leaf]),
        cell(piece.first + team_of_block()),
        at(view.places[piece.tile].cells + cell) {}
  template <class T>
  static ADAFACTOR_KERNEL TeamCell of(const View& view, int index) {
    return {view, view.lists<T>().cells[index]};
  }

  const Tile& tile;
  const Leaf& leaf;
  int cell;
  std::int64_t at;  // its place in the scratch
};

// Whether a leaf's sums of G^2 by row and column are made.
ADAFACTOR_DEVICE inline bool makes_moments(const Leaf& leaf) {
  return leaf.shape.factored && leaf.rule.action == Action::update;
}

// Whether the elements of a leaf are read in `moments` where they lie, side by side and without links.
ADAFACTOR_DEVICE inline bool reads_in_place(const Leaf& leaf) {
  const Walk& g = leaf.at.gradient;
  return leaf.shape.factored && leaf.shape.arithmetic == DType::float32 && !is_narrow(leaf) && g.data && g.contiguous &&
         !leaf.links_gradient();
}
// The same of `rms` and `apply`.
ADAFACTOR_DEVICE inline bool measures_in_place(const Leaf& leaf) {
  return reads_in_place(leaf) && leaf.at.parameter.contiguous && leaf.is_plain();
}
ADAFACTOR_DEVICE inline bool applies_in_place(const Leaf& leaf) {
  return measures_in_place(leaf) && leaf.at.parameter_out.contiguous && leaf.updates() && !leaf.links_update() &&
         !leaf.rule.rounds_by_noise;
}

// How U is made of a gradient: each kind of leaf has functions of its own, since one for all would have no room for
// what it reads.
enum class Kind { plain, clamped, wide, unfactored };

// The rows of a cell; an unfactored leaf is one row.
template <Kind kind>
ADAFACTOR_KERNEL int rows_in(const Cell& cell) {
  return kind == Kind::unfactored ? 1 : cell.rows;
}

// Whether a phase goes through the runs of short rows.
ADAFACTOR_DEVICE inline bool goes_by_runs(const Leaf& leaf) { return is_narrow(leaf) && leaf.is_plain(); }

}  // namespace adafactor::cuda
