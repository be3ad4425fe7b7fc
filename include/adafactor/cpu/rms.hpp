// Phase `rms`: the sums of U^2 and P^2 of a tile. U is not stored: `apply` makes it again. Of an unfactored leaf that
// no norm clips it goes along with `moments`, since it needs no factors, and adds the squares of G on its way.
#pragma once

#include <cstdint>

#include "adafactor/cpu/runs/cells.hpp"
#include "adafactor/cpu/runs/gradient.hpp"
#include "adafactor/cpu/runs/links.hpp"
#include "adafactor/cpu/runs/u.hpp"
#include "adafactor/cpu/short/factors.hpp"

#include "adafactor/compiler/exact_begin.hpp"

namespace adafactor { inline namespace ADAFACTOR_LOOPS { namespace loop_detail {

// A slice's part of a tile.
template <class T>
class SliceSquares {
 public:
  SliceSquares(const Leaf& leaf, const Tile& tile, std::int64_t slice)
      : leaf_(leaf),
        tile_(tile),
        gradient_(leaf, slice, ahead_of(leaf.at.gradient, leaf, tile)),
        parameter_(leaf.at.parameter, slice, ahead_of(leaf.at.parameter, leaf, tile)),
        u_(leaf, slice, 1) {}

  // Adds the squares of the slice's part, and of G where the leaf is measured early.
  void operator()(Total& of_update, Total& of_parameter, Total& of_gradient) {
    const bool in_place = gradient_.is_direct() && parameter_.template is_direct<T>();
    const bool direct = leaf_.is_plain() && in_place;
    const bool full = has_full_loops(leaf_) && in_place && gradient_.is_bare();
    for_groups(
        tile_,
        [&](std::int64_t row, std::int64_t count, std::int64_t first, std::int64_t n) {
          if constexpr (kFusesUpdate<T>) {
            if (direct) return add_rows(row, count, first, n);
            if (full) return add_full_rows(row, count, first, n);
          }
          for (std::int64_t r = row; r < row + count; ++r) add_blocks(r, first, n);
        },
        [&](std::int64_t n) {
          updates_.finish_group(n, of_update);
          parameters_.finish_group(n, of_parameter);
          if (leaf_.measures_early()) gradients_.finish_group(n, of_gradient);
        });
  }

 private:
  // Adds a group of rows.
  void add_rows(std::int64_t row, std::int64_t count, std::int64_t first, std::int64_t n) {
    T factors[kRowGroup];
    u_.make_row_factors(row, count, factors);
    with_loops<T>(leaf_, [&](auto of_gradient, auto of_parameter) {
      using P = typename decltype(of_parameter)::type;
      using G = typename decltype(of_gradient)::type;
      for (std::int64_t r = 0; r < count; ++r) {
        const Run<G> g = gradient_.template at<G>(row + r, first);
        const Run<P> p = parameter_.row(row + r).run<P>(first);
        const FactoredU<T> u_of = u_.plain(factors[r], first);
        if constexpr (loops_read_links<T>(Storage<G>::dtype)) {
          if (!gradient_.is_bare()) {
            add(g, p, LinkedU<T, FactoredU<T>>{gradient_.links(row + r, first), u_of}, n);
            continue;
          }
        }
        add(g, p, u_of, n);
      }
    });
  }

  // Adds rows of an unfactored leaf.
  void add_full_rows(std::int64_t row, std::int64_t count, std::int64_t first, std::int64_t n) {
    with_common_loops<T>(leaf_.at.parameter.dtype, [&](auto storage) {
      using S = typename decltype(storage)::type;
      for (std::int64_t r = row; r < row + count; ++r) {
        for_blocks(n, [&](std::int64_t from, std::int64_t width) {
          const std::int64_t block = from / kBlock;
          add_full_squares<T>(gradient_.template at<S>(r, first + from), parameter_.row(r).run<S>(first + from),
                              u_.template full<false>(first + from), width, gradients_.blocks()[block],
                              updates_.blocks()[block], parameters_.blocks()[block]);
        });
      }
    });
  }

  void add_blocks(std::int64_t row, std::int64_t first, std::int64_t n) {
    for_blocks(n, [&](std::int64_t from, std::int64_t count) {
      const std::int64_t block = from / kBlock;
      if (leaf_.measures_early()) {
        const T scale = static_cast<T>(leaf_.gradient_scale());
        add_gradient_squares(gradient_, scale, row, first + from, count, gradients_.blocks() + block);
      }
      add_block(row, first + from, count, updates_.blocks()[block], parameters_.blocks()[block]);
    });
  }

  // Both are added in one loop, or in one for U and one for the parameter.
  template <class G, class P, class U>
  void add(Run<G> g, Run<P> p, const U& u_of, std::int64_t n) {
    if constexpr (has_all_loops(Storage<G>::dtype, Storage<P>::dtype)) {
      add_u_squares<T>(g, p, u_of, n, updates_.blocks(), parameters_.blocks());
    } else {
      add_squares_of<T>(g, u_of, n, updates_.blocks());
      add_squares(p, T{1}, n, parameters_.blocks());
    }
  }

  // Adds at most a block.
  void add_block(std::int64_t row, std::int64_t first, std::int64_t n, double& of_update, double& of_parameter) const {
    T g_buffer[kBlock];
    T p_buffer[kBlock];
    T u[kBlock];
    const Run<T> g = gradient_.run(row, first, n, g_buffer);
    const Run<T> p = read_run(parameter_.row(row), first, n, p_buffer);
    if (leaf_.found.wide) return add_wide_block(g, p, row, first, n, of_update, of_parameter);
    u_.store(g, row, first, n, u, SliceU<T>::Moments::drop);
    add_u_squares<T>(Run<T>(u), p, StoredU{}, n, &of_update, &of_parameter);
  }

  // Adds a block in double; that is seldom, and the data alone decide it.
  void add_wide_block(Run<T> g, Run<T> p, std::int64_t row, std::int64_t first, std::int64_t n, double& of_update,
                      double& of_parameter) const {
    T u[kBlock];
    double u_squares[kBlock];
    double p_squares[kBlock];
    if (!leaf_.shape.factored) u_.store(g, row, first, n, u, SliceU<T>::Moments::drop);
    const double factor = leaf_.shape.factored ? u_.row_factor(row) : 0;
    for (std::int64_t i = 0; i < n; ++i) {
      const double x =
          leaf_.shape.factored ? u_.wide(load<T>(g, i, One{}), factor, first + i) : static_cast<double>(u[i]);
      const double y = load<double>(p, i, One{});
      u_squares[i] = x * x;
      p_squares[i] = y * y;
    }
    of_update += sum_of(u_squares, n);
    of_parameter += sum_of(p_squares, n);
  }

  const Leaf& leaf_;
  const Tile& tile_;
  Gradient<T> gradient_;
  Slice parameter_;
  SliceU<T> u_;
  CellSums updates_;
  CellSums parameters_;
  CellSums gradients_;
};

// A tile of short rows; each run is a cell.
template <class T, class Factors>
ADAFACTOR_OWN_FRAME void add_narrow_squares(const Leaf& leaf, const Tile& tile, Factors& factors, Total& of_update,
                                            Total& of_parameter) {
  T g_buffer[kBlock];
  T p_buffer[kBlock];
  for_row_ranges(leaf, tile, Factors::most_rows(leaf), [&](RowRange rows) ADAFACTOR_INLINE_LAMBDA {
    const Run<T> g = read_gradient_rows(leaf, rows, g_buffer);
    const Run<T> p = read_rows(leaf, leaf.at.parameter, rows, p_buffer);
    factors.prepare(rows);
    const std::int64_t n = rows.count * leaf.shape.cols;
    double update_cell = 0;
    double parameter_cell = 0;
    factors.with_lanes([&](const auto& u_of) ADAFACTOR_INLINE_LAMBDA {
      if constexpr (kFusesUpdate<T>) {
        add_u_squares<T>(g, p, u_of, n, &update_cell, &parameter_cell);
      } else {
        T u[kBlock];
        store_u(g, u, u_of, n);
        add_u_squares<T>(Run<T>(u), p, StoredU{}, n, &update_cell, &parameter_cell);
      }
    });
    of_update.add(update_cell);
    of_parameter.add(parameter_cell);
  });
}

}}}  // namespace adafactor::ADAFACTOR_LOOPS::loop_detail

#include "adafactor/compiler/exact_end.hpp"
