// What the kernels see: tables in the device's memory, the lists of work that the plan made once, and the scratch of a
// step.
#pragma once

#include <cstdint>

#include "adafactor/dtype.hpp"
#include "adafactor/order.hpp"
#include "adafactor/plan/tile.hpp"
#include "adafactor/step/decide.hpp"
#include "adafactor/step/leaf.hpp"

namespace adafactor::cuda {

// A block of threads is sixteen teams, each of which goes through runs as one thread of a CPU does.
inline constexpr int kTeams = 16;
inline constexpr int kThreads = kTeams * kLanes;

// A block of columns of one slice of a tile, whose sums by column one block of threads makes.
struct ColumnPiece {
  std::int32_t tile;
  std::int32_t slice;  // of the tile
  std::int32_t block;  // of columns
};

// As many cells of a tile as a block of threads has teams.
struct CellPiece {
  std::int32_t tile;
  std::int32_t first;
};

// Where a tile has its part of the scratch, in numbers from the beginning of each kind.
struct TilePlace {
  std::int64_t cells = 0;    // [cell]
  std::int64_t folds = 0;    // [slice][row][block], of moments by rows
  std::int64_t columns = 0;  // [slice][block]
};

// The work on all leaves of one arithmetic.
struct WorkLists {
  const ColumnPiece* columns = nullptr;
  const CellPiece* cells = nullptr;
  const std::int32_t* tiles = nullptr;
};

// The sums of cells: of G^2 after and before clipping by value, or of U^2, P^2 and G^2.
struct CellSums {
  double* first = nullptr;
  double* second = nullptr;
  double* third = nullptr;
};

// What a scaler of the loss keeps on the device; null: nothing. The gradients are divided by the first number, and
// where the second is not zero the call is void.
struct LossScale {
  const float* scale = nullptr;
  const float* found_inf = nullptr;
};

struct View {
  Leaf* leaves = nullptr;
  const Tile* tiles = nullptr;
  TileSums* sums = nullptr;
  const TilePlace* places = nullptr;
  WorkLists float32;
  WorkLists float64;

  CellSums cells;
  double* folds = nullptr;    // of each row and block of columns its sum of G^2
  double* columns = nullptr;  // of each block of columns the sum of their totals

  Verdict* verdict = nullptr;
  double* leaf_squares = nullptr;                   // of the leaves in the verdict, one after another
  const std::int32_t* places_in_verdict = nullptr;  // of each leaf its place among them; -1: it is none
  std::int32_t leaf_count = 0;
  std::int32_t verdict_count = 0;
  bool propagates = false;
  bool clips_all = false;  // by the norm of all gradients together
  double global_clipnorm = 0;
  LossScale loss_scale;

  Indices range;  // the leaves of this run

  template <class T>
  ADAFACTOR_ALWAYS_INLINE const WorkLists& lists() const {
    if constexpr (sizeof(T) == sizeof(double)) {
      return float64;
    } else {
      return float32;
    }
  }
  // Whether a leaf is in the run.
  ADAFACTOR_ALWAYS_INLINE bool has(std::int64_t leaf) const { return leaf >= range.first && leaf < range.last; }
};

}  // namespace adafactor::cuda
