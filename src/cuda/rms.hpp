// Phase `rms`: the sums of U^2 and P^2 of cells, then of tiles. The twin of cpu/rms.hpp.
#pragma once

#include <cstdint>

#include "adafactor/cpu/runs/loops.hpp"
#include "adafactor/cpu/runs/u.hpp"
#include "adafactor/step/leaf.hpp"
#include "cells.hpp"
#include "places.hpp"
#include "threads.hpp"
#include "update.hpp"
#include "view.hpp"

namespace adafactor::cuda {

// Adds the squares of U and P over a group of rows in a block of columns.
template <class T>
ADAFACTOR_KERNEL void add_row_cell(const Leaf& leaf, const Cell& cell, double* to_update, double* to_parameter) {
  const SliceU<T> u(leaf, cell.slice, 1);
  double of_update = 0;
  double of_parameter = 0;
  const double of_lane_row = leaf.shape.factored && lane() < cell.rows ? u.kept_row_factor(cell.row + lane()) : 0;
  for (std::int64_t r = 0; r < cell.rows; ++r) {
    const RowPlaces places(leaf.shape, cell.slice, cell.row + r, cell.col);
    const double bare =
        leaf.found.wide && leaf.shape.factored ? u.row_factor(cell.row + r) : of_lane(of_lane_row, static_cast<int>(r));
    const RowU<T> u_of(leaf, u, places, bare, cell.col, nullptr);
    const Numbers<T, RowPlaces> g(leaf.at.gradient, places);
    const Numbers<T, RowPlaces> p(leaf.at.parameter, places);
    if (!leaf.found.wide) {
      add_u_squares<T>(g, p, u_of, cell.cols, &of_update, &of_parameter);
      continue;
    }
    // That is seldom.
    Lanes<double> updates = fill(0.0);
    Lanes<double> parameters = fill(0.0);
    for_lanes(cell.cols, [&](std::int64_t i, auto amount) {
      const Lanes<double> x = u_of.wide(load<T>(g, i, amount), i, amount);
      const Lanes<double> y = widen(load<T>(p, i, amount));
      updates = updates + x * x;
      parameters = parameters + y * y;
    });
    of_update += fold(updates);
    of_parameter += fold(parameters);
  }
  if (lane() != 0) return;
  *to_update = of_update;
  *to_parameter = of_parameter;
}

// The cells of leaves that are measured after `factors`, where gradient and parameter are stored as G and P and read in
// place.
template <class T, class G, class P>
struct PlainRms {
  struct Shared {};

  ADAFACTOR_KERNEL void operator()(const View& view, int index, Shared&) const {
    const CellPiece piece = view.lists<T>().cells[index];
    const Tile& tile = view.tiles[piece.tile];
    const Leaf& leaf = view.leaves[tile.leaf];
    if (!view.has(tile.leaf) || !leaf.measures() || !measures_in_place(leaf)) return;
    if (leaf.at.gradient.dtype != dtype_of<G> || leaf.at.parameter.dtype != dtype_of<P>) return;
    const RowCells cells(tile);
    const std::int64_t index_of_cell = piece.first + team_of_block();
    if (index_of_cell >= cells.count()) return;
    const Cell cell = cells.at(index_of_cell);
    double of_update = 0;
    double of_parameter = 0;
    const CellRows<const G> g(leaf.at.gradient, leaf.shape, cell);
    const CellRows<const P> p(leaf.at.parameter, leaf.shape, cell);
    for_plain_rows_of<T>(leaf, cell, 1, [&](std::int64_t row, const FactoredU<T>& u_of) {
      add_u_squares<T>(Run<G>(g[row]), Run<P>(p[row]), u_of, cell.cols, &of_update, &of_parameter);
    });
    if (lane() != 0) return;
    view.cells.first[view.places[piece.tile].cells + index_of_cell] = of_update;
    view.cells.second[view.places[piece.tile].cells + index_of_cell] = of_parameter;
  }
};

// The cells of all other leaves; or once more of those that turned out to be wide.
template <class T, bool again>
struct CellRms {
  struct Shared {};

  ADAFACTOR_KERNEL void operator()(const View& view, int index, Shared&) const {
    const CellPiece piece = view.lists<T>().cells[index];
    const Tile& tile = view.tiles[piece.tile];
    const Leaf& leaf = view.leaves[tile.leaf];
    if (!view.has(tile.leaf) || !leaf.measures() || (again ? !leaf.found.wide : leaf.measures_early())) return;
    if (measures_in_place(leaf)) return;
    const std::int64_t cell = piece.first + team_of_block();
    const std::int64_t at = view.places[piece.tile].cells + cell;
    if (goes_by_runs(leaf)) return add_run(leaf, tile, cell, view.cells.first + at, view.cells.second + at);
    const RowCells cells(tile);
    if (cell < cells.count()) add_row_cell<T>(leaf, cells.at(cell), view.cells.first + at, view.cells.second + at);
  }

 private:
  ADAFACTOR_KERNEL void add_run(const Leaf& leaf, const Tile& tile, std::int64_t cell, double* to_update,
                                double* to_parameter) const {
    const RunCells cells(leaf, tile);
    if (cell >= cells.count()) return;
    const RowRange rows = cells.at(cell);
    const RowsPlaces places(leaf.shape, rows.first);
    double of_update = 0;
    double of_parameter = 0;
    add_u_squares<T>(Numbers<T, RowsPlaces>(leaf.at.gradient, places),
                     Numbers<T, RowsPlaces>(leaf.at.parameter, places), RowsU<T>(leaf, places, 1),
                     rows.count * leaf.shape.cols, &of_update, &of_parameter);
    if (lane() != 0) return;
    *to_update = of_update;
    *to_parameter = of_parameter;
  }
};

// By a team: the totals of a tile's cells.
ADAFACTOR_KERNEL void add_up_rms_cells(const View& view, std::int32_t t, std::int64_t count) {
  const std::int64_t first = view.places[t].cells;
  const double of_update = sum_of(static_cast<const double*>(view.cells.first + first), count);
  const double of_parameter = sum_of(static_cast<const double*>(view.cells.second + first), count);
  if (lane() != 0) return;
  view.sums[t].update_squares = of_update;
  view.sums[t].parameter_squares = of_parameter;
}

template <class T, bool again>
struct TileRms {
  struct Shared {};

  ADAFACTOR_KERNEL void operator()(const View& view, int index, Shared&) const {
    const std::int32_t t = view.lists<T>().tiles[index];
    const Tile& tile = view.tiles[t];
    const Leaf& leaf = view.leaves[tile.leaf];
    if (!view.has(tile.leaf) || !leaf.measures() || (again ? !leaf.found.wide : leaf.measures_early())) return;
    if (team_of_block() != 0 || tile.size() == 0) return;
    add_up_rms_cells(view, t, goes_by_runs(leaf) ? RunCells(leaf, tile).count() : RowCells(tile).count());
  }
};

}  // namespace adafactor::cuda
