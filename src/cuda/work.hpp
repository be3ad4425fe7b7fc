// From a plan to the lists of work of the kernels, once; and the memory that a step needs on the device. Host code.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "adafactor/dtype.hpp"
#include "adafactor/host/memory.hpp"
#include "adafactor/plan.hpp"
#include "adafactor/step/leaf.hpp"
#include "adafactor/step/workspace.hpp"
#include "cells.hpp"
#include "view.hpp"

namespace adafactor::cuda { inline namespace ADAFACTOR_ABI {

// How many pieces of work there are, and how many numbers of scratch.
struct WorkCounts {
  struct OfArithmetic {
    std::int64_t columns = 0;
    std::int64_t cells = 0;
    std::int64_t tiles = 0;
  };
  OfArithmetic float32;
  OfArithmetic float64;
  TilePlace ends;  // of all tiles
  std::int64_t partials = 0;

  OfArithmetic& of(DType arithmetic) { return arithmetic == DType::float64 ? float64 : float32; }
  const OfArithmetic& of(DType arithmetic) const { return arithmetic == DType::float64 ? float64 : float32; }
};

// Calls tell(tile, place, columns, cells) for each tile of a plan: where its scratch begins, and how many blocks of
// columns and cells it has. Returns all of them.
template <class Tell>
WorkCounts count_work(const Plan& plan, const Tell& tell) {
  WorkCounts counts;
  for (const LeafPlan& planned : plan.leaves()) {
    Leaf leaf;
    leaf.shape = adafactor::detail::shape_of(planned);
    const bool small = planned.has_small_slices();
    if (small) leaf.at.row_factor = &leaf;  // it has some
    WorkCounts::OfArithmetic& work = counts.of(planned.arithmetic);
    for (std::int64_t t = planned.first_tile; t < planned.first_tile + planned.tile_count; ++t) {
      const Tile& tile = plan.tiles()[static_cast<std::size_t>(t)];
      const RowCells by_rows(tile);
      const bool has_elements = tile.size() > 0;
      const bool has_columns = has_elements && leaf.shape.factored && !small;
      const std::int64_t columns = has_columns ? tile.slices * by_rows.blocks() : 0;
      std::int64_t cells = has_elements ? by_rows.count() : 0;
      if (has_elements && is_narrow(leaf)) cells = (std::max)(cells, RunCells(leaf, tile).count());
      const std::int64_t of_slices = small ? slice_cells(tile) : 0;
      cells = (std::max)(cells, of_slices);
      tell(t, counts.ends, columns, cells);
      work.columns += columns;
      work.cells += divided_up(cells, std::int64_t{kTeams});
      work.tiles += 1;
      counts.ends.cells += cells;
      counts.ends.folds += has_columns ? tile.slices * tile.rows * by_rows.blocks() : 0;
      counts.ends.columns += (std::max)(columns, of_slices);
    }
    counts.partials += planned.partials();
  }
  return counts;
}

inline WorkCounts count_work(const Plan& plan) {
  return count_work(plan, [](std::int64_t, const TilePlace&, std::int64_t, std::int64_t) {});
}

// The lists in the host's memory, as they are copied to the device.
struct HostWork {
  struct OfArithmetic {
    OfArithmetic(const WorkCounts::OfArithmetic& counts, adafactor::detail::Pieces& pieces)
        : columns(pieces.take<ColumnPiece>(counts.columns)),
          cells(pieces.take<CellPiece>(counts.cells)),
          tiles(pieces.take<std::int32_t>(counts.tiles)) {}
    std::span<ColumnPiece> columns;
    std::span<CellPiece> cells;
    std::span<std::int32_t> tiles;
  };

  HostWork(const Plan& plan, adafactor::detail::Pieces& pieces)
      : counts(count_work(plan)),
        places(pieces.take<TilePlace>(static_cast<std::int64_t>(plan.tiles().size()))),
        float32(counts.float32, pieces),
        float64(counts.float64, pieces) {
    if (!pieces.only_counts()) fill(plan);
  }

  WorkCounts counts;
  std::span<TilePlace> places;
  OfArithmetic float32;
  OfArithmetic float64;

 private:
  void fill(const Plan& plan) {
    WorkCounts done;
    count_work(plan, [&](std::int64_t t, const TilePlace& place, std::int64_t columns, std::int64_t cells) {
      const auto index = static_cast<std::size_t>(t);
      const auto tile = static_cast<std::int32_t>(t);
      const Tile& of = plan.tiles()[index];
      const DType arithmetic = plan.leaves()[static_cast<std::size_t>(of.leaf)].arithmetic;
      OfArithmetic& lists = arithmetic == DType::float64 ? float64 : float32;
      WorkCounts::OfArithmetic& next = done.of(arithmetic);
      const std::int64_t blocks = RowCells(of).blocks();
      places[index] = place;
      for (std::int64_t i = 0; i < columns; ++i) {
        lists.columns[static_cast<std::size_t>(next.columns++)] = {tile, static_cast<std::int32_t>(i / blocks),
                                                                   static_cast<std::int32_t>(i % blocks)};
      }
      for (std::int64_t first = 0; first < cells; first += kTeams) {
        lists.cells[static_cast<std::size_t>(next.cells++)] = {tile, static_cast<std::int32_t>(first)};
      }
      lists.tiles[static_cast<std::size_t>(next.tiles++)] = tile;
    });
  }
};

// What lies on the device, in one block.
class DeviceScratch {
 public:
  DeviceScratch(const Plan& plan, const WorkCounts& counts, adafactor::detail::Pieces& pieces)
      : leaves(take<Leaf>(pieces, plan.leaves().size())),
        tiles(take<Tile>(pieces, plan.tiles().size())),
        sums(take<TileSums>(pieces, plan.tiles().size())),
        places(take<TilePlace>(pieces, plan.tiles().size())),
        float32(pieces, counts.float32),
        float64(pieces, counts.float64),
        cells{take<double>(pieces, counts.ends.cells), take<double>(pieces, counts.ends.cells),
              take<double>(pieces, counts.ends.cells)},
        folds(take<double>(pieces, counts.ends.folds)),
        columns(take<double>(pieces, counts.ends.columns)),
        partials(take<double>(pieces, counts.partials)),
        axes(take<Axis>(pieces, plan.axis_count())),
        shared(take<double>(pieces, plan.shared_count())),
        moments(take<std::byte>(pieces, plan.moment_scratch_nbytes())),
        verdict(take<Verdict>(pieces, 1)),
        leaf_squares(take<double>(pieces, plan.leaves().size())),
        places_in_verdict(take<std::int32_t>(pieces, plan.leaves().size())) {}

  // The lists, to be written by the host.
  struct Lists {
    Lists(adafactor::detail::Pieces& pieces, const WorkCounts::OfArithmetic& counts)
        : columns(take<ColumnPiece>(pieces, counts.columns)),
          cells(take<CellPiece>(pieces, counts.cells)),
          tiles(take<std::int32_t>(pieces, counts.tiles)) {}
    ColumnPiece* columns;
    CellPiece* cells;
    std::int32_t* tiles;
  };

  Leaf* leaves;
  Tile* tiles;
  TileSums* sums;
  TilePlace* places;
  Lists float32;
  Lists float64;
  CellSums cells;
  double* folds;
  double* columns;
  double* partials;
  Axis* axes;
  double* shared;
  std::byte* moments;
  Verdict* verdict;
  double* leaf_squares;
  std::int32_t* places_in_verdict;

 private:
  // Nothing is made there, since the host cannot write it.
  template <class T, class Count>
  static T* take(adafactor::detail::Pieces& pieces, Count count) {
    return reinterpret_cast<T*>(pieces.take_lines(static_cast<std::int64_t>(count) * std::int64_t{sizeof(T)}).data());
  }
};

}}  // namespace adafactor::cuda::ADAFACTOR_ABI
