// Phase `factors`: from the means of G^2 and the old moments the new moments, in the workspace, and the inverse roots
// of the column moments. After it nothing can fail, and until its end nothing of the caller's or of the state has been
// written. The row factors (R / M)^-1/2 are one number a row: whoever walks a row makes its own, from R, in double, so
// that what it is multiplied by is rounded with it and not after it.
#pragma once

#include <cstdint>

#include "adafactor/exact_begin.hpp"
#include "adafactor/kernels.hpp"
#include "adafactor/leaf.hpp"

namespace adafactor::inline ADAFACTOR_ABI {

// R and C of the tile (rows by the tiles of the first column block, columns by those of the first row block), the
// column factors C^-1/2, the tile's share of the sum of R, and the range of both moments.
template <class T>
void new_moments_of_tile(const Leaf& leaf, const Tile& tile, TileSums& sums) {
  const MomentRule rule{leaf.beta_2, leaf.one_minus_beta_2, leaf.norm_factor * leaf.norm_factor,
                        leaf.clamps ? 0 : leaf.epsilon_1};
  sums.row_moments = 0;
  sums.rows = sums.cols = {__builtin_inf(), 0};
  const auto widen = [](MomentRange& range, MomentRange more) {
    range = {smaller(range.smallest, more.smallest), larger(range.largest, more.largest)};
  };
  for (std::int64_t slice = tile.slice; slice < tile.slice + tile.slices; ++slice) {
    if (tile.col_block == 0) {
      const std::int64_t first = slice * leaf.rows + tile.row;
      T* row = static_cast<T*>(leaf.row_moment) + first;
      update_moments(static_cast<const T*>(leaf.before.row) + first, row, rule, tile.rows);
      sums.row_moments += sum_of(row, tile.rows);
      widen(sums.rows, range_of(row, tile.rows));
    }
    if (tile.row_block == 0) {
      const std::int64_t first = slice * leaf.cols + tile.col;
      T* col = static_cast<T*>(leaf.col_moment) + first;
      update_moments(static_cast<const T*>(leaf.before.col) + first, col, rule, tile.cols);
      store_inverse_roots(col, static_cast<T*>(leaf.col_factor) + first, tile.cols);
      widen(sums.cols, range_of(col, tile.cols));
    }
  }
}

// M of a slice: the mean of its new R. `sums` are those of the leaf's tiles.
template <class T>
double mean_of_row_moments(const Leaf& leaf, const TileSums* sums, std::int64_t slice) {
  double total = 0;
  if (leaf.row_blocks == 1) {
    total = sum_of(static_cast<const T*>(leaf.row_moment) + slice * leaf.rows, leaf.rows);
  } else {
    for (std::int64_t block = 0; block < leaf.row_blocks; ++block) {
      total += sums[(slice * leaf.row_blocks + block) * leaf.col_blocks].row_moments;
    }
  }
  const double mean = total / static_cast<double>(leaf.rows);
  return leaf.clamps && mean < leaf.epsilon_1 ? leaf.epsilon_1 : mean;
}

}  // namespace adafactor::inline ADAFACTOR_ABI

#include "adafactor/exact_end.hpp"
