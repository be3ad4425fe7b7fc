// Phase `rms`: the sums of U^2 and P^2 of a tile. U is not stored: `apply` makes it again. Of an unfactored leaf that
// no norm clips it goes along with `moments`, since it needs no factors.
#pragma once

#include <cstdint>

#include "adafactor/exact_begin.hpp"
#include "adafactor/links.hpp"
#include "adafactor/narrow.hpp"
#include "adafactor/update.hpp"

namespace adafactor::inline ADAFACTOR_LOOPS {

namespace loop_detail {

// A slice's part of a tile.
template <class T>
class SliceSquares {
 public:
  SliceSquares(const Leaf& leaf, const Tile& tile, const TileSums* leaf_sums, std::int64_t slice)
      : leaf_(leaf),
        tile_(tile),
        gradient_(leaf, slice),
        parameter_(leaf.parameter, slice),
        update_(leaf, leaf_sums, slice, 1) {}

  // sums + the squares of the slice's part.
  Squares operator()(Squares sums) const {
    const bool in_place = leaf_.is_plain() && gradient_.in_place_with_links() && parameter_.template in_place<T>();
    for (std::int64_t row = tile_.row; row < tile_.row + tile_.rows; ++row) {
      if constexpr (kFusesUpdate<T>) {
        if (in_place) {
          sums = add_row(row, sums);
          continue;
        }
      }
      sums = add_row_by_blocks(row, sums);
    }
    return sums;
  }

 private:
  Squares add_row(std::int64_t row, Squares sums) const {
    with_loops<T>(leaf_, [&](auto of_gradient, auto of_parameter) {
      using P = typename decltype(of_parameter)::type;
      using G = typename decltype(of_gradient)::type;
      const G* g = gradient_.template at<G>(row, tile_.col);
      const P* p = parameter_.row(row).at<const P>(tile_.col);
      const FactoredUpdate<T> update = update_.plain(row, tile_.col);
      if constexpr (loops_read_links<T>(Storage<G>::dtype)) {
        if (!gradient_.in_place()) {
          sums = add(g, p, LinkedUpdate<T, FactoredUpdate<T>>{gradient_.links(row, tile_.col), update}, sums);
          return;
        }
      }
      sums = add(g, p, update, sums);
    });
    return sums;
  }

  // In one loop, or in one for the update and one for the parameter.
  template <class G, class P, class U>
  Squares add(const G* g, const P* p, const U& update, Squares sums) const {
    if constexpr (has_all_loops(Storage<G>::dtype, Storage<P>::dtype)) {
      return add_update_squares<T>(g, p, update, tile_.cols, sums);
    } else {
      return {add_squares_of<T>(g, update, tile_.cols, sums.update), add_squares(p, T{1}, tile_.cols, sums.parameter)};
    }
  }

  Squares add_row_by_blocks(std::int64_t row, Squares sums) const {
    T g_buffer[kBlock];
    T p_buffer[kBlock];
    T u[kBlock];
    for_blocks(tile_.cols, [&](std::int64_t offset, std::int64_t n) {
      const std::int64_t first = tile_.col + offset;
      const T* g = gradient_.run(row, first, n, g_buffer);
      const T* p = read_run(parameter_.row(row), first, n, p_buffer);
      if (leaf_.wide) {
        sums = add_wide_squares(g, p, row, first, n, sums);
        return;
      }
      update_.store(g, row, first, n, u, Update<T>::Moments::drop);
      sums = add_update_squares<T>(u, p, StoredUpdate{}, n, sums);
    });
    return sums;
  }

  // In double, one element after the other: seldom, and then the data alone decide it.
  Squares add_wide_squares(const T* g, const T* p, std::int64_t row, std::int64_t first, std::int64_t n,
                           Squares sums) const {
    T u[kBlock];
    if (!leaf_.factored) update_.store(g, row, first, n, u, Update<T>::Moments::drop);
    const double factor = leaf_.factored ? update_.row_factor(row) : 0;
    for (std::int64_t i = 0; i < n; ++i) {
      const double x =
          leaf_.factored ? update_.wide(load<T>(g + i, One{}), factor, first + i) : static_cast<double>(u[i]);
      const double y = load<double>(p + i, One{});
      sums.update += x * x;
      sums.parameter += y * y;
    }
    return sums;
  }

  const Leaf& leaf_;
  const Tile& tile_;
  Gradient<T> gradient_;
  Slice parameter_;
  Update<T> update_;
};

// A tile of short rows.
template <class T, class Factors>
ADAFACTOR_OWN_FRAME Squares narrow_squares(const Leaf& leaf, const Tile& tile, const TileSums* leaf_sums) {
  Factors factors(leaf, tile, leaf_sums, 1);
  Squares total;
  T g_buffer[kBlock];
  T p_buffer[kBlock];
  for_row_ranges(leaf, tile, Factors::most_rows(leaf), [&](RowRange rows) ADAFACTOR_INLINE_LAMBDA {
    const T* g = read_gradient_rows(leaf, rows, g_buffer);
    const T* p = read_rows(leaf, leaf.parameter, rows, p_buffer);
    factors.prepare(rows);
    const std::int64_t n = rows.count * leaf.cols;
    factors.with_lanes([&](const auto& update) ADAFACTOR_INLINE_LAMBDA {
      if constexpr (kFusesUpdate<T>) {
        total = add_update_squares<T>(g, p, update, n, total);
      } else {
        T u[kBlock];
        store_update(g, u, update, n);
        total = add_update_squares<T>(u, p, StoredUpdate{}, n, total);
      }
    });
  });
  return total;
}

}  // namespace loop_detail

// The third phase on one tile; `leaf_sums` are those that `factors` left, where the leaf is factored.
template <class T>
void rms_of_tile(const Leaf& leaf, const Tile& tile, const TileSums* leaf_sums, TileSums& sums) {
  Squares total;
  if (is_narrow(leaf) && leaf.is_plain()) {
    with_narrow_factors<T>(
        leaf, [&]<class Factors>() { total = loop_detail::narrow_squares<T, Factors>(leaf, tile, leaf_sums); });
  } else {
    for (std::int64_t slice = tile.slice; slice < tile.slice + tile.slices; ++slice) {
      total = loop_detail::SliceSquares<T>(leaf, tile, leaf_sums, slice)(total);
    }
  }
  sums.update_squares = total.update;
  sums.parameter_squares = total.parameter;
}

}  // namespace adafactor::inline ADAFACTOR_LOOPS

#include "adafactor/exact_end.hpp"
