// Phase `moments`: the sums of G^2 of cells, rows and columns, and of an unfactored leaf those of `rms` along with
// them; then what the tiles have of these. The twin of cpu/moments.hpp and cpu/short/moments.hpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "adafactor/cpu/runs/cells.hpp"
#include "adafactor/cpu/runs/loops.hpp"
#include "adafactor/step/leaf.hpp"
#include "cells.hpp"
#include "places.hpp"
#include "rms.hpp"
#include "small_slices.hpp"
#include "team.hpp"
#include "threads.hpp"
#include "update.hpp"
#include "view.hpp"

namespace adafactor::cuda {

// A block of columns of a slice: each team adds up a group of rows, then each thread the groups of its columns. Of
// gradients that are stored as G and read in place; void: of all others.
template <class T, class G = void>
struct ColumnMoments {
  static ADAFACTOR_KERNEL bool takes(const Leaf& leaf) {
    if (!makes_moments(leaf) || has_small_slices(leaf)) return false;
    if constexpr (std::is_void_v<G>) {
      return !reads_in_place(leaf);
    } else {
      return reads_in_place(leaf) && leaf.at.gradient.dtype == dtype_of<G>;
    }
  }

  // Of double fewer groups fit.
  static constexpr int kGroups = sizeof(T) == sizeof(float) ? kTeams : kTeams / 2;
  struct Shared {
    T columns[std::size_t{kGroups}][kBlock];
    double totals[kBlock];
  };

  ADAFACTOR_KERNEL void operator()(const View& view, int index, Shared& shared) const {
    const ColumnPiece piece = view.lists<T>().columns[index];
    const Tile& tile = view.tiles[piece.tile];
    const Leaf& leaf = view.leaves[tile.leaf];
    if (!view.has(tile.leaf) || !takes(leaf)) return;
    const RowCells cells(tile);
    const auto width = static_cast<int>(cells.cell(0, 0, piece.block).cols);
    for (std::int64_t first = 0; first < cells.groups(); first += kGroups) {
      const std::int64_t group = first + team_of_block();
      if (team_of_block() < kGroups && group < cells.groups()) {
        T* columns = shared.columns[team_of_block()];
        if constexpr (std::is_void_v<G>) {
          add_searched_group(view, index, group, columns);
        } else {
          add_group(view, piece, group, columns);
        }
      }
      meet();
      add_groups(shared, width, cells.groups() - first, first == 0);
      meet();
    }
    finish(view, piece, leaf, width, shared);
  }

 private:
  // Of elements that have to be looked for.
  static ADAFACTOR_KERNEL_CALL void add_searched_group(const View& view, int index, std::int64_t group, T* columns) {
    add_group(view, view.lists<T>().columns[index], group, columns);
  }

  // Adds up the rows of a group, each into its lane's sum, and the columns' in T.
  static ADAFACTOR_KERNEL void add_group(const View& view, const ColumnPiece& piece, std::int64_t group, T* columns) {
    const Tile& tile = view.tiles[piece.tile];
    const Leaf& leaf = view.leaves[tile.leaf];
    const Cell cell = RowCells(tile).cell(piece.slice, group, piece.block);
    for_each(cell.cols, [&](std::int64_t i, auto amount) { store(columns + i, fill(T{}), amount); });
    double of_lane = 0;
    double before = 0;  // of all rows, before they are clipped by value
    double unused = 0;  // the cell's sum, which store_sums() makes of its rows'
    const auto add_rows = [&](const auto& add_row) {
      ADAFACTOR_KEEP_ROLLED
      for (int r = 0; r < cell.rows; ++r) {
        const double sum = add_row(r);
        if (lane() == r) of_lane = sum;
      }
    };
    if constexpr (std::is_void_v<G>) {
      add_rows([&](int r) {
        const RowPlaces places(leaf.shape, cell.slice, cell.row + r, cell.col);
        const Numbers<T, RowPlaces> g(leaf.at.gradient, places);
        const ReadLinks<T> links(leaf, places.first());
        return add_squares_by_column(g, links, cell.cols, columns, 0.0, &unused, &before);
      });
    } else {
      const CellRows<const G> g(leaf.at.gradient, leaf.shape, cell);
      const T scale = static_cast<T>(leaf.gradient_scale());
      add_rows([&](int r) { return add_squares_by_column(Run<G>(g[r]), scale, cell.cols, columns, 0.0, &unused); });
    }
    store_sums(view, piece, group, of_lane, before);
  }

  // The folds of a group's rows, and its cell's sums.
  static ADAFACTOR_KERNEL void store_sums(const View& view, const ColumnPiece& piece, std::int64_t group,
                                          double of_lane, double before) {
    const Tile& tile = view.tiles[piece.tile];
    const Leaf& leaf = view.leaves[tile.leaf];
    const TilePlace& place = view.places[piece.tile];
    const RowCells cells(tile);
    const Cell cell = cells.cell(piece.slice, group, piece.block);
    const std::int64_t row = piece.slice * tile.rows + cell.row - tile.row + lane();
    if (lane() < cell.rows) view.folds[place.folds + row * cells.blocks() + piece.block] = of_lane;
    const bool narrow = is_narrow(leaf);
    double clipped = 0;
    ADAFACTOR_KEEP_ROLLED
    for (int r = 0; r < cell.rows; ++r) clipped += adafactor::cuda::of_lane(of_lane, r);
    // Short rows are added up as a tree.
    if (narrow) clipped = fold(Lanes<double>{{of_lane}});
    if (lane() != 0) return;
    const std::int64_t at = place.cells + cells.index(piece.slice, group, piece.block);
    view.cells.first[at] = clipped;
    if (leaf.rule.clip_value > 0 && !narrow) view.cells.second[at] = before;
  }

  // Adds the groups' sums of this thread's columns to their totals, in their order.
  ADAFACTOR_KERNEL void add_groups(Shared& shared, int width, std::int64_t groups, bool begins) const {
    for (int col = thread_of_block(); col < width; col += kThreads) {
      double total = begins ? 0 : shared.totals[col];
      for (int group = 0; group < kGroups && group < groups; ++group) {
        total += static_cast<double>(shared.columns[group][col]);
      }
      shared.totals[col] = total;
    }
  }

  ADAFACTOR_KERNEL void finish(const View& view, const ColumnPiece& piece, const Leaf& leaf, int width,
                               const Shared& shared) const {
    const Tile& tile = view.tiles[piece.tile];
    const std::int64_t slice = tile.slice + piece.slice;
    const std::int64_t first = tile.col + piece.block * kBlock;
    for (int col = thread_of_block(); col < width; col += kThreads) {
      const double total = shared.totals[col];
      if (!leaf.at.col_partial) {
        static_cast<T*>(leaf.at.col_moment)[slice * leaf.shape.cols + first + col] =
            static_cast<T>(total / static_cast<double>(leaf.shape.rows));
      } else {
        leaf.at.col_partial[(slice * leaf.shape.row_blocks + tile.row_block) * leaf.shape.cols + first + col] = total;
      }
    }
    if (team_of_block() != 0) return;
    const double sum = sum_of(static_cast<const double*>(shared.totals), width);
    const std::int64_t at = view.places[piece.tile].columns + piece.slice * RowCells(tile).blocks() + piece.block;
    if (lane() == 0) view.columns[at] = sum;
  }
};

// The sum of G^2 over a run, before it is clipped by value.
template <class T, class Places>
ADAFACTOR_KERNEL void add_unclipped_squares(const Leaf& leaf, const Places& places, std::int64_t n, double* sum) {
  const ReadLinks<T> links(leaf, places.first());
  const auto unclipped = [&](const Lanes<T>& g, std::int64_t i, auto amount) { return links.unclipped(g, i, amount); };
  add_squares_of<T>(Numbers<T, Places>(leaf.at.gradient, places), unclipped, n, sum);
}

// That of a group of rows in a block of columns.
template <class T>
ADAFACTOR_KERNEL_CALL void square_rows(const View& view, int index, double* sums) {
  const TeamCell team = TeamCell::of<T>(view, index);
  const RowCells cells(team.tile);
  if (team.cell >= cells.count()) return;
  const Cell cell = cells.at(team.cell);
  double sum = 0;
  ADAFACTOR_KEEP_ROLLED
  for (int r = 0; r < cell.rows; ++r) {
    const RowPlaces places(team.leaf.shape, cell.slice, cell.row + r, cell.col);
    add_unclipped_squares<T>(team.leaf, places, cell.cols, &sum);
  }
  if (lane() == 0) sums[team.at] = sum;
}

// That of a run of whole short rows.
template <class T>
ADAFACTOR_KERNEL_CALL void square_run(const View& view, int index, double* sums) {
  const TeamCell team = TeamCell::of<T>(view, index);
  const RunCells cells(team.leaf, team.tile);
  if (team.cell >= cells.count()) return;
  const RowRange rows = cells.at(team.cell);
  double sum = 0;
  add_unclipped_squares<T>(team.leaf, RowsPlaces(team.leaf.shape, rows.first), rows.count * team.leaf.shape.cols, &sum);
  if (lane() == 0) sums[team.at] = sum;
}

// The cells of what needs no sums by row and column: of a leaf that only adds its gradient up, of an unfactored one,
// with `rms` where it goes along, and what short rows have before they are clipped by value.
template <class T>
struct CellSquares {
  struct Shared {};

  ADAFACTOR_KERNEL void operator()(const View& view, int index, Shared&) const {
    const TeamCell team = TeamCell::of<T>(view, index);
    const Leaf& leaf = team.leaf;
    if (!view.has(team.tile.leaf) || !leaf.in_verdict()) return;
    if (makes_moments(leaf)) {
      if (is_narrow(leaf) && leaf.rule.clip_value > 0) square_run<T>(view, index, view.cells.second);
      return;
    }
    const bool early = leaf.measures_early();
    square_rows<T>(view, index, early ? view.cells.third : view.cells.first);
    if (early) measure_rows<T, Kind::unfactored, false>(view, index);
  }
};

// What a tile has of all that: the sums of its rows, and the totals of its cells.
template <class T>
struct TileMoments {
  struct Shared {};

  ADAFACTOR_KERNEL void operator()(const View& view, int index, Shared&) const {
    const std::int32_t t = view.lists<T>().tiles[index];
    const Tile& tile = view.tiles[t];
    const Leaf& leaf = view.leaves[tile.leaf];
    if (!view.has(tile.leaf) || !leaf.in_verdict() || tile.size() == 0) return;
    if (!makes_moments(leaf)) return add_up_cells(view, leaf, t);
    if (!has_small_slices(leaf)) {
      add_up_rows(view, leaf, t);
      if (leaf.shape.tiles_hold_slices()) add_up_slices(view, leaf, t);
    }
    if (team_of_block() == 0) add_up(view, leaf, t);
  }

 private:
  ADAFACTOR_KERNEL void add_up_cells(const View& view, const Leaf& leaf, std::int32_t t) const {
    if (team_of_block() != 0) return;
    const std::int64_t first = view.places[t].cells;
    const std::int64_t count = RowCells(view.tiles[t]).count();
    const bool early = leaf.measures_early();
    if (early) add_up_rms_cells(view, t, count);
    const double squares = sum_of((early ? view.cells.third : view.cells.first) + first, count);
    if (lane() == 0) view.sums[t].gradient_squares = squares;
  }

  // Each thread a row: the folds of its blocks, in their order.
  ADAFACTOR_KERNEL void add_up_rows(const View& view, const Leaf& leaf, std::int32_t t) const {
    const Tile& tile = view.tiles[t];
    const std::int64_t blocks = RowCells(tile).blocks();
    const double* folds = view.folds + view.places[t].folds;
    for (std::int64_t r = thread_of_block(); r < tile.slices * tile.rows; r += kThreads) {
      double sum = 0;
      for (std::int64_t block = 0; block < blocks; ++block) sum += folds[r * blocks + block];
      const int slices_on = static_cast<int>(r) / static_cast<int>(tile.rows);
      const std::int64_t slice = tile.slice + slices_on;
      const std::int64_t row = tile.row + r - slices_on * tile.rows;
      if (!leaf.at.row_partial) {
        static_cast<T*>(leaf.at.row_moment)[slice * leaf.shape.rows + row] =
            static_cast<T>(sum / static_cast<double>(leaf.shape.cols));
      } else {
        leaf.at.row_partial[(slice * leaf.shape.col_blocks + tile.col_block) * leaf.shape.rows + row] = sum;
      }
    }
  }

  // The sum of G^2 of each slice, until M takes its place.
  ADAFACTOR_KERNEL void add_up_slices(const View& view, const Leaf& leaf, std::int32_t t) const {
    const Tile& tile = view.tiles[t];
    const std::int64_t cells = RowCells(tile).of_slice();
    for (std::int64_t slice = team_of_block(); slice < tile.slices; slice += kTeams) {
      const double sum = sum_of(view.cells.first + view.places[t].cells + slice * cells, cells);
      if (lane() == 0) leaf.at.mean_moment[tile.slice + slice] = sum;
    }
  }

  ADAFACTOR_KERNEL void add_up(const View& view, const Leaf& leaf, std::int32_t t) const {
    const Tile& tile = view.tiles[t];
    const double* first = view.cells.first + view.places[t].cells;
    const std::int64_t count = has_small_slices(leaf) ? slice_cells(tile) : RowCells(tile).count();
    const double clipped = sum_of(first, count);
    const double squares = leaf.rule.clip_value > 0 ? before_clipping(view, leaf, t) : clipped;
    const double spoilt = clipped < kSafeTotal<T> ? 0 : spoilt_by_columns(view, leaf, t);
    const bool has_rows = tile.col_block == 0 && !leaf.shape.tiles_hold_slices();
    const T* old = static_cast<const T*>(leaf.at.before.row) + tile.slice * leaf.shape.rows + tile.row;
    const double row_moments = has_rows ? sum_of(old, tile.rows) : 0;
    if (lane() != 0) return;
    TileSums& sums = view.sums[t];
    sums.clipped_squares = clipped;
    sums.gradient_squares = squares + spoilt;
    if (has_rows) sums.row_moments = row_moments;
  }

  ADAFACTOR_KERNEL double before_clipping(const View& view, const Leaf& leaf, std::int32_t t) const {
    const Tile& tile = view.tiles[t];
    const std::int64_t count = is_narrow(leaf) ? RunCells(leaf, tile).count() : RowCells(tile).count();
    return sum_of(view.cells.second + view.places[t].cells, count);
  }

  // NaN where the sum of a column is not finite, which the total so far tells.
  ADAFACTOR_KERNEL double spoilt_by_columns(const View& view, const Leaf& leaf, std::int32_t t) const {
    const Tile& tile = view.tiles[t];
    const double* columns = view.columns + view.places[t].columns;
    if (has_small_slices(leaf)) {
      double sum = 0;
      for (std::int64_t cell = 0; cell < slice_cells(tile); ++cell) sum += columns[cell];
      return 0 * sum;
    }
    const RowCells cells(tile);
    const double* first = view.cells.first + view.places[t].cells;
    double spoilt = 0;
    for (std::int64_t slice = 0; slice < tile.slices; ++slice) {
      for (std::int64_t block = 0; block < cells.blocks(); block += RowCells::kPanelBlocks) {
        const std::int64_t done = slice * cells.of_slice() + cells.before_end_of(block / RowCells::kPanelBlocks);
        if (sum_of(first, done) < kSafeTotal<T>) continue;
        double sum = 0;
        for (std::int64_t b = block; b < cells.blocks() && b < block + RowCells::kPanelBlocks; ++b) {
          sum += columns[slice * cells.blocks() + b];
        }
        spoilt += 0 * sum;
      }
    }
    return spoilt;
  }
};

// What the tiles of a slice left in parts, of rows and of columns, becomes their means.
template <class T>
struct Means {
  struct Shared {};

  ADAFACTOR_KERNEL void operator()(const View& view, int index, Shared&) const {
    const std::int32_t t = view.lists<T>().tiles[index];
    const Tile& tile = view.tiles[t];
    const Leaf& leaf = view.leaves[tile.leaf];
    if (!view.has(tile.leaf) || !makes_moments(leaf)) return;
    const LeafShape& shape = leaf.shape;
    if (leaf.at.row_partial && tile.col_block == 0) {
      const std::int64_t first = tile.slice * shape.rows + tile.row;
      add_parts(leaf.at.row_partial + tile.slice * shape.col_blocks * shape.rows + tile.row, shape.col_blocks,
                shape.rows, leaf.row_sums() ? leaf.row_sums() + first : nullptr, shape.cols,
                static_cast<T*>(leaf.at.row_moment) + first, tile.rows);
    }
    if (leaf.at.col_partial && tile.row_block == 0) {
      const std::int64_t first = tile.slice * shape.cols + tile.col;
      add_parts(leaf.at.col_partial + tile.slice * shape.row_blocks * shape.cols + tile.col, shape.row_blocks,
                shape.cols, leaf.col_sums() ? leaf.col_sums() + first : nullptr, shape.rows,
                static_cast<T*>(leaf.at.col_moment) + first, tile.cols);
    }
    if (leaf.shares_slices()) share_slices(view, leaf, tile);
  }

 private:
  ADAFACTOR_KERNEL void add_parts(const double* partial, std::int64_t parts, std::int64_t stride, double* sums,
                                  std::int64_t count, T* means, std::int64_t n) const {
    if (partial == sums) return;
    for (std::int64_t i = thread_of_block(); i < n; i += kThreads) {
      double sum = partial[i];
      for (std::int64_t part = 1; part < parts; ++part) sum = sum + partial[part * stride + i];
      if (sums) {
        sums[i] = sum;
      } else {
        means[i] = static_cast<T>(sum / static_cast<double>(count));
      }
    }
  }

  ADAFACTOR_KERNEL void share_slices(const View& view, const Leaf& leaf, const Tile& tile) const {
    const Indices slices = slices_begun_in(leaf, tile);
    for (std::int64_t slice = slices.first + team_of_block(); slice < slices.last; slice += kTeams) {
      const SliceSums sums = sums_of_slice<T>(leaf, view.sums + leaf.shape.first_tile, slice, TeamTotal{});
      if (lane() != 0) continue;
      leaf.at.shared[leaf.shared().old_moments() + slice] = sums.old_moments;
      leaf.at.shared[leaf.shared().slice_squares() + slice] = sums.squares;
    }
  }
};

}  // namespace adafactor::cuda
