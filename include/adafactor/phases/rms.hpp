// Phase `rms`: the sums of U^2 and P^2 of a tile. U is not stored: `apply` makes it again.
#pragma once

#include <cstdint>

#include "adafactor/exact_begin.hpp"
#include "adafactor/update.hpp"

namespace adafactor::inline ADAFACTOR_ABI {

namespace detail {

// A stored update, for the loop that adds up squares.
template <class T>
struct StoredUpdate {
  template <class Extent>
  ADAFACTOR_INLINE Lanes<T> operator()(const Lanes<T>& u, std::int64_t, Extent) const {
    return u;
  }
};

template <class T>
Squares wide_squares(const RowUpdate<T>& update, const T* g, const T* p, const T* u, std::int64_t first, std::int64_t n,
                     Squares sums) {
  for (std::int64_t i = 0; i < n; ++i) {
    const double x = u ? static_cast<double>(u[i]) : update.wide(g[i], first + i);
    const double y = static_cast<double>(p[i]);
    sums.update += x * x;
    sums.parameter += y * y;
  }
  return sums;
}

template <class T>
Squares row_squares(const Leaf& leaf, const Tile& tile, const TileSums* leaf_sums, std::int64_t slice, std::int64_t row,
                    Squares sums) {
  const GradientRow<T> gradient(leaf, slice, row);
  const Row<const T> parameter = row_of<const T>(leaf.parameter, slice, row);
  const RowUpdate<T> update(leaf, leaf_sums, slice, row, 1.0);
  T g_buffer[kBlock];
  T p_buffer[kBlock];
  if (update.has_lanes() && gradient.in_place() && parameter.contiguous) {
    const T* g = gradient(tile.col, tile.cols, g_buffer);
    const T* p = read_run(parameter, tile.col, tile.cols, p_buffer);
    update.with_lanes(tile.col, [&](const auto& lanes) ADAFACTOR_INLINE_LAMBDA {
      sums = add_update_squares(g, p, lanes, tile.cols, sums);
    });
    return sums;
  }
  T u_buffer[kBlock];
  for_blocks(tile.cols, [&](std::int64_t offset, std::int64_t n) {
    const std::int64_t first = tile.col + offset;
    const T* g = gradient(first, n, g_buffer);
    const T* p = read_run(parameter, first, n, p_buffer);
    if (leaf.wide && leaf.factored) {
      sums = wide_squares(update, g, p, static_cast<const T*>(nullptr), first, n, sums);
      return;
    }
    update.store(g, first, n, u_buffer, nullptr);
    sums = leaf.wide ? wide_squares(update, g, p, u_buffer, first, n, sums)
                     : add_update_squares(u_buffer, p, StoredUpdate<T>{}, n, sums);
  });
  return sums;
}

}  // namespace detail

template <class T>
void rms_of_tile(const Leaf& leaf, const Tile& tile, const TileSums* leaf_sums, TileSums& sums) {
  Squares total;
  for (std::int64_t slice = tile.slice; slice < tile.slice + tile.slices; ++slice) {
    for (std::int64_t row = tile.row; row < tile.row + tile.rows; ++row) {
      total = detail::row_squares<T>(leaf, tile, leaf_sums, slice, row, total);
    }
  }
  sums.update_squares = total.update;
  sums.parameter_squares = total.parameter;
}

}  // namespace adafactor::inline ADAFACTOR_ABI

#include "adafactor/exact_end.hpp"
