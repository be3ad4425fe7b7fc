// Small slices, as those of a 3x3 kernel: each thread goes through whole ones. The twin of the small slices of
// cpu/short/moments.hpp.
#pragma once

#include <cstdint>

#include "adafactor/cpu/runs/links.hpp"
#include "adafactor/cpu/runs/loops.hpp"
#include "adafactor/cpu/short/rows.hpp"
#include "adafactor/step/leaf.hpp"
#include "cells.hpp"
#include "places.hpp"
#include "team.hpp"
#include "threads.hpp"
#include "view.hpp"

namespace adafactor::cuda {

// Small slices: each thread of a team adds up two of the thirty-two of a cell.
template <class T>
struct SliceMoments {
  struct Shared {};

  ADAFACTOR_KERNEL void operator()(const View& view, int index, Shared&) const {
    const CellPiece piece = view.lists<T>().cells[index];
    const Tile& tile = view.tiles[piece.tile];
    const Leaf& leaf = view.leaves[tile.leaf];
    const std::int64_t cell = piece.first + team_of_block();
    if (!view.has(tile.leaf) || !makes_moments(leaf) || !has_small_slices(leaf) || cell >= slice_cells(tile)) return;
    Sums sums;
    for (int half = 0; half < 2; ++half) {
      const std::int64_t slice = cell * kSlicesOfCell + half * kLanes + lane();
      if (slice < tile.slices) add_slice(leaf, tile.slice + slice, sums);
    }
    const double squares = fold(Lanes<double>{{sums.squares}});
    const double columns = fold(Lanes<double>{{sums.columns}});
    if (lane() != 0) return;
    view.cells.first[view.places[piece.tile].cells + cell] = squares;
    view.columns[view.places[piece.tile].columns + cell] = columns;
  }

 private:
  struct Sums {
    double squares = 0;
    double columns = 0;
  };

  // One thread adds up one slice, and writes its means.
  ADAFACTOR_KERNEL void add_slice(const Leaf& leaf, std::int64_t slice, Sums& sums) const {
    const std::int64_t rows = leaf.shape.rows;
    const std::int64_t cols = leaf.shape.cols;
    const auto square = [&](std::int64_t row, std::int64_t col) { return square_of(leaf, slice, row, col); };
    double of_slice = 0;
    for (std::int64_t row = 0; row < rows; ++row) {
      const double sum = fold_few(cols, [&](int col) { return static_cast<double>(square(row, col)); });
      of_slice = of_slice + sum;
      static_cast<T*>(leaf.at.row_moment)[slice * rows + row] = static_cast<T>(sum / static_cast<double>(cols));
    }
    sums.squares = sums.squares + of_slice;
    for (std::int64_t col = 0; col < cols; ++col) {
      T in_arithmetic{};
      for (std::int64_t row = 0; row < rows; ++row) in_arithmetic = in_arithmetic + square(row, col);
      const auto sum = static_cast<double>(in_arithmetic);
      sums.columns = sums.columns + sum;
      static_cast<T*>(leaf.at.col_moment)[slice * cols + col] = static_cast<T>(sum / static_cast<double>(rows));
    }
  }

  ADAFACTOR_KERNEL T square_of(const Leaf& leaf, std::int64_t slice, std::int64_t row, std::int64_t col) const {
    const RowPlaces places(leaf.shape, slice, row, col);
    const auto links = gradient_links<T>(leaf, places.first());
    const T x = links.clip(links.unclipped(Numbers<T, RowPlaces>(leaf.at.gradient, places).at(0), 0, One{}));
    return x * x;
  }
};

}  // namespace adafactor::cuda
