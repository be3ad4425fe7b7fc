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

// Adds the squares of U and P over a run, as they are made in double: that is seldom.
template <class T, class G, class P, class U>
ADAFACTOR_KERNEL void add_wide_u_squares(const G& g, const P& p, const U& u_of, std::int64_t n, double* of_update,
                                         double* of_parameter) {
  Lanes<double> updates = fill(0.0);
  Lanes<double> parameters = fill(0.0);
  for_lanes(n, [&](std::int64_t i, auto amount) {
    const Lanes<double> x = u_of.wide(load<T>(g, i, amount), i, amount);
    const Lanes<double> y = widen(load<T>(p, i, amount));
    updates = updates + x * x;
    parameters = parameters + y * y;
  });
  *of_update += fold(updates);
  *of_parameter += fold(parameters);
}

// The sums of a team's cell go where they belong, which is looked up only now.
template <class T>
ADAFACTOR_KERNEL void store_squares(const View& view, int index, double of_update, double of_parameter) {
  if (lane() != 0) return;
  const std::int64_t at = TeamCell::of<T>(as_unknown(view), index).at;
  view.cells.first[at] = of_update;
  view.cells.second[at] = of_parameter;
}

// Adds the squares of U and P over a group of rows in a block of columns, in double where it is done once more.
template <class T, Kind kind, bool again>
ADAFACTOR_KERNEL_CALL void measure_rows(const View& view, int index) {
  const TeamCell team = TeamCell::of<T>(view, index);
  const Leaf& leaf = team.leaf;
  const RowCells cells(team.tile);
  if (team.cell >= cells.count()) return;
  const Cell cell = cells.at(team.cell);
  const SliceU<T> u(leaf, cell.slice, 1);
  const RowFactors<T, kind> factors(u, cell);
  double of_update = 0;
  double of_parameter = 0;
  ADAFACTOR_KEEP_ROLLED
  for (int r = 0; r < rows_in<kind>(cell); ++r) {
    const RowPlaces places(leaf.shape, cell.slice, cell.row + r, cell.col);
    const RowU<T, kind> u_of(leaf, u, places, factors[r], cell.col, nullptr);
    const Numbers<T, RowPlaces> g(leaf.at.gradient, places);
    const Numbers<T, RowPlaces> p(leaf.at.parameter, places);
    if constexpr (again) {
      add_wide_u_squares<T>(g, p, u_of, cell.cols, &of_update, &of_parameter);
    } else {
      add_u_squares<T>(g, p, u_of, cell.cols, &of_update, &of_parameter);
    }
  }
  store_squares<T>(view, index, of_update, of_parameter);
}

// The same of a run of whole short rows.
template <class T>
ADAFACTOR_KERNEL_CALL void measure_run(const View& view, int index) {
  const TeamCell team = TeamCell::of<T>(view, index);
  const Leaf& leaf = team.leaf;
  const RunCells cells(leaf, team.tile);
  if (team.cell >= cells.count()) return;
  const RowRange rows = cells.at(team.cell);
  const RowsPlaces places(leaf.shape, rows.first);
  double of_update = 0;
  double of_parameter = 0;
  add_u_squares<T>(Numbers<T, RowsPlaces>(leaf.at.gradient, places), Numbers<T, RowsPlaces>(leaf.at.parameter, places),
                   RowsU<T>(leaf, places, 1), rows.count * leaf.shape.cols, &of_update, &of_parameter);
  store_squares<T>(view, index, of_update, of_parameter);
}

// The cells of leaves that are measured after `factors`, where gradient and parameter are stored as G and P and read in
// place.
template <class T, class G, class P>
struct PlainRms {
  struct Shared {};

  ADAFACTOR_KERNEL void operator()(const View& view, int index, Shared&) const {
    const TeamCell team = TeamCell::of<T>(view, index);
    const Leaf& leaf = team.leaf;
    if (!view.has(team.tile.leaf) || !leaf.measures() || !measures_in_place(leaf)) return;
    if (leaf.at.gradient.dtype != dtype_of<G> || leaf.at.parameter.dtype != dtype_of<P>) return;
    const RowCells cells(team.tile);
    if (team.cell >= cells.count()) return;
    const Cell cell = cells.at(team.cell);
    double of_update = 0;
    double of_parameter = 0;
    const CellRows<const G> g(leaf.at.gradient, leaf.shape, cell);
    const CellRows<const P> p(leaf.at.parameter, leaf.shape, cell);
    for_plain_rows_of<T>(leaf, cell, 1, [&](int row, const FactoredU<T>& u_of) {
      add_u_squares<T>(Run<G>(g[row]), Run<P>(p[row]), u_of, cell.cols, &of_update, &of_parameter);
    });
    store_squares<T>(view, index, of_update, of_parameter);
  }
};

// The cells of all other leaves; or once more of those that turned out to be wide.
template <class T, bool again>
struct CellRms {
  struct Shared {};

  ADAFACTOR_KERNEL void operator()(const View& view, int index, Shared&) const {
    const TeamCell team = TeamCell::of<T>(view, index);
    const Leaf& leaf = team.leaf;
    if (!view.has(team.tile.leaf) || !leaf.measures() || (again ? !leaf.found.wide : leaf.measures_early())) return;
    if (measures_in_place(leaf)) return;
    if (!leaf.shape.factored) return measure_rows<T, Kind::unfactored, again>(view, index);
    if constexpr (again) {
      measure_rows<T, Kind::wide, true>(view, index);
    } else if (leaf.found.clamp_binds) {
      measure_rows<T, Kind::clamped, false>(view, index);
    } else if (is_narrow(leaf)) {
      measure_run<T>(view, index);
    } else {
      measure_rows<T, Kind::plain, false>(view, index);
    }
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
