// Phase `factors`: from the means of G^2 and the old moments the new moments, in the workspace, and their inverse
// square roots. After it nothing can fail, and until its end nothing of the caller's or of the state has been written.
#pragma once

#include <cstdint>

#include "adafactor/exact_begin.hpp"
#include "adafactor/kernels.hpp"
#include "adafactor/leaf.hpp"

namespace adafactor::inline ADAFACTOR_ABI {

// R and C of the tile (rows by the tiles of the first column block, columns by those of the first row block), the
// column factors C^-1/2, and the tile's share of the sum of R.
template <class T>
void new_moments_of_tile(const Leaf& leaf, const Tile& tile, TileSums& sums) {
  const MomentRule rule{leaf.beta_2, leaf.one_minus_beta_2, leaf.norm_factor * leaf.norm_factor,
                        leaf.clamps ? 0 : leaf.epsilon_1};
  sums.row_moments = 0;
  sums.largest_col_factor = 0;
  for (std::int64_t slice = tile.slice; slice < tile.slice + tile.slices; ++slice) {
    if (tile.col_block == 0) {
      const std::int64_t first = slice * leaf.rows + tile.row;
      T* row = static_cast<T*>(leaf.row_moment) + first;
      update_moments(static_cast<const T*>(leaf.before.row) + first, row, rule, tile.rows);
      sums.row_moments += sum_of(row, tile.rows);
    }
    if (tile.row_block == 0) {
      const std::int64_t first = slice * leaf.cols + tile.col;
      T* col = static_cast<T*>(leaf.col_moment) + first;
      update_moments(static_cast<const T*>(leaf.before.col) + first, col, rule, tile.cols);
      const double largest = store_factors(col, 1.0, static_cast<T*>(leaf.col_factor) + first, tile.cols);
      if (largest > sums.largest_col_factor) sums.largest_col_factor = largest;
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

// The row factors (R / M)^-1/2 of the tile, once the moments of all tiles are there.
template <class T>
void row_factors_of_tile(const Leaf& leaf, const Tile& tile, const TileSums* leaf_sums, TileSums& sums) {
  sums.largest_row_factor = 0;
  if (tile.col_block != 0) return;
  for (std::int64_t slice = tile.slice; slice < tile.slice + tile.slices; ++slice) {
    const std::int64_t first = slice * leaf.rows + tile.row;
    const double largest =
        store_factors(static_cast<const T*>(leaf.row_moment) + first, mean_of_row_moments<T>(leaf, leaf_sums, slice),
                      static_cast<T*>(leaf.row_factor) + first, tile.rows);
    if (largest > sums.largest_row_factor) sums.largest_row_factor = largest;
  }
}

}  // namespace adafactor::inline ADAFACTOR_ABI

#include "adafactor/exact_end.hpp"
