// Phase `apply`: the new parameter, through the update links where there are any, and the new moments become the state.
// It cannot fail. An accumulating call ends here too: its gradient is added to the accumulator.
#pragma once

#include <cstdint>
#include <cstring>

#include "adafactor/exact_begin.hpp"
#include "adafactor/links.hpp"
#include "adafactor/narrow.hpp"
#include "adafactor/rounding.hpp"
#include "adafactor/update.hpp"

namespace adafactor::inline ADAFACTOR_ABI {

namespace detail {

// A slice's part of a tile on its way through the update links.
template <class T>
class SliceApply {
 public:
  SliceApply(const Leaf& leaf, const Tile& tile, const TileSums* leaf_sums, std::int64_t slice)
      : leaf_(leaf),
        tile_(tile),
        gradient_(leaf, slice),
        parameter_(leaf.parameter, slice),
        output_(leaf, slice),
        update_(leaf, leaf_sums, slice, leaf.update_scale()),
        state_offset_(slice * leaf.rows * leaf.cols) {}

  void operator()() const {
    const bool in_place = !leaf_.links_update() && leaf_.is_plain() && gradient_.in_place() &&
                          parameter_.contiguous() && output_.in_place();
    for (std::int64_t row = tile_.row; row < tile_.row + tile_.rows; ++row) {
      if (in_place) {
        apply_row(row);
      } else {
        for_blocks(tile_.cols, [&](std::int64_t offset, std::int64_t n) { apply_run(row, tile_.col + offset, n); });
      }
    }
  }

 private:
  template <class S>
  S* state(void* array, std::int64_t row, std::int64_t first) const {
    return static_cast<S*>(array) + state_offset_ + row * leaf_.cols + first;
  }

  void apply_row(std::int64_t row) const {
    with_storages<T>(leaf_, [&](auto of_gradient, auto of_parameter) {
      using P = typename decltype(of_parameter)::type;
      const auto* g = gradient_.template at<typename decltype(of_gradient)::type>(row, tile_.col);
      const P* p = parameter_.row(row).at<const P>(tile_.col);
      P* out = output_.row(row).template at<P>(tile_.col);
      subtract_update<T>(g, p, out, update_.plain(row, tile_.col), tile_.cols);
    });
  }

  void apply_run(std::int64_t row, std::int64_t first, std::int64_t n) const {
    T g_buffer[kBlock];
    T x[kBlock];
    update_.store(gradient_.run(row, first, n, g_buffer), row, first, n, x, Update<T>::Moments::keep);
    if (leaf_.has_momentum) apply_stored_momentum(x, row, first, n);
    if (!leaf_.scales_early()) multiply(x, static_cast<T>(leaf_.step_size), n);

    T p_buffer[kBlock];
    const T* p = read_run(parameter_.row(row), first, n, p_buffer);
    const Row out_row = output_.row(row);
    const bool direct = out_row.in_place<T>();
    T* out = direct ? out_row.at<T>(first) : p_buffer;
    if (leaf_.weight_decay != 0) {
      subtract_with_decay(x, p, out, static_cast<T>(leaf_.weight_decay), n);
    } else {
      subtract(x, p, out, n);
    }
    if (!direct) output_.write(row, first, n, p_buffer);
    if (leaf_.averages) {
      // Of the parameters as they are stored.
      if (!direct) read_into(p_buffer, out_row, first, n);
      apply_average(out, state<const T>(leaf_.before.average, row, first), state<T>(leaf_.after.average, row, first),
                    leaf_, n);
      if (!direct && leaf_.overwrites) output_.write(row, first, n, p_buffer);
    }
    if (leaf_.accumulates) {
      std::memset(state<T>(leaf_.after.accumulator, row, first), 0, static_cast<std::size_t>(n) * sizeof(T));
    }
  }

  void apply_stored_momentum(T* x, std::int64_t row, std::int64_t first, std::int64_t n) const {
    void* before = leaf_.before.momentum;
    void* after = leaf_.after.momentum;
    if (leaf_.momentum_is_bfloat16) {
      apply_momentum(x, state<const Bfloat16>(before, row, first), state<Bfloat16>(after, row, first), leaf_.beta_1,
                     leaf_.uses_exact_momentum, n);
    } else {
      apply_momentum(x, state<const T>(before, row, first), state<T>(after, row, first), leaf_.beta_1, n);
    }
  }

  const Leaf& leaf_;
  const Tile& tile_;
  Gradient<T> gradient_;
  Slice parameter_;
  Output<T> output_;
  Update<T> update_;
  std::int64_t state_offset_;
};

// A tile of short rows, where nothing but the update happens to its parameters.
template <class T>
void apply_narrow(const Leaf& leaf, const Tile& tile, const TileSums* leaf_sums) {
  NarrowUpdate<T> factors(leaf, tile, leaf_sums, leaf.update_scale());
  T buffer[kBlock];
  for_row_ranges(leaf, tile, [&](RowRange rows) {
    const T* g = read_gradient_rows(leaf, rows, buffer);
    const std::int64_t first = rows.first * leaf.cols;
    factors.prepare(rows);
    with_storage<T>(leaf.parameter.dtype, [&](auto storage) {
      using P = typename decltype(storage)::type;
      const P* p = reinterpret_cast<const P*>(leaf.parameter.data) + first;
      P* out = reinterpret_cast<P*>(leaf.parameter_out.data) + first;
      factors.with_lanes([&](const auto& update) ADAFACTOR_INLINE_LAMBDA {
        subtract_update<T>(g, p, out, update, rows.count * leaf.cols);
      });
    });
  });
}

// The moments that `factors` left in the workspace become the state.
template <class T>
void commit_moments(const Leaf& leaf, const Tile& tile) {
  const auto copy = [](const void* from, void* to, std::int64_t first, std::int64_t n) {
    std::memcpy(static_cast<T*>(to) + first, static_cast<const T*>(from) + first,
                static_cast<std::size_t>(n) * sizeof(T));
  };
  // Several slices are whole ones.
  if (tile.col_block == 0) {
    copy(leaf.row_moment, leaf.after.row, tile.slice * leaf.rows + tile.row, tile.slices * tile.rows);
  }
  if (tile.row_block == 0) {
    copy(leaf.col_moment, leaf.after.col, tile.slice * leaf.cols + tile.col, tile.slices * tile.cols);
  }
}

// The parameter stays; it is copied where the output is another array, and the average moves on.
template <class T>
void keep_slice(const Leaf& leaf, const Tile& tile, std::int64_t slice) {
  const Slice parameter(leaf.parameter, slice);
  const Output<T> output(leaf, slice);
  for (std::int64_t row = tile.row; row < tile.row + tile.rows; ++row) {
    const std::int64_t offset = (slice * leaf.rows + row) * leaf.cols;
    for_blocks(tile.cols, [&](std::int64_t from, std::int64_t n) {
      const std::int64_t first = tile.col + from;
      if (leaf.averages) {
        T buffer[kBlock];
        read_into(buffer, parameter.row(row), first, n);
        apply_average(buffer, static_cast<const T*>(leaf.before.average) + offset + first,
                      static_cast<T*>(leaf.after.average) + offset + first, leaf, n);
        if (leaf.overwrites) return output.write(row, first, n, buffer);
      }
      if (leaf.parameter.data != leaf.parameter_out.data) copy_run<T>(parameter.row(row), output.row(row), first, n);
    });
  }
}

}  // namespace detail

// The last phase on one tile: writes the outputs, the state's full-size arrays and, with the first tile of a block, its
// moments.
template <class T>
void apply_to_tile(const Leaf& leaf, const Tile& tile, const TileSums* leaf_sums) {
  const bool updates = leaf.action == Action::update;
  if (!updates && !leaf.averages && leaf.parameter.data == leaf.parameter_out.data) return;
  if (updates && is_narrow(leaf) && leaf.is_plain() && !leaf.links_update() && leaf.parameter.whole &&
      leaf.parameter_out.whole && !leaf.rounds_by_noise) {
    detail::apply_narrow<T>(leaf, tile, leaf_sums);
  } else {
    for (std::int64_t slice = tile.slice; slice < tile.slice + tile.slices; ++slice) {
      if (updates) {
        detail::SliceApply<T>(leaf, tile, leaf_sums, slice)();
      } else {
        detail::keep_slice<T>(leaf, tile, slice);
      }
    }
  }
  if (updates && leaf.factored) detail::commit_moments<T>(leaf, tile);
}

// accumulator <- accumulator + multiplier g.
template <class T>
void accumulate_tile(const Leaf& leaf, const Tile& tile) {
  if (leaf.action != Action::accumulate) return;
  T buffer[kBlock];
  for (std::int64_t slice = tile.slice; slice < tile.slice + tile.slices; ++slice) {
    const Gradient<T> gradient(leaf, slice);
    for (std::int64_t row = tile.row; row < tile.row + tile.rows; ++row) {
      T* accumulator = static_cast<T*>(leaf.after.accumulator) + (slice * leaf.rows + row) * leaf.cols;
      for_blocks(tile.cols, [&](std::int64_t offset, std::int64_t n) {
        const T* sum = gradient.run(row, tile.col + offset, n, buffer);
        std::memcpy(accumulator + tile.col + offset, sum, static_cast<std::size_t>(n) * sizeof(T));
      });
    }
  }
}

}  // namespace adafactor::inline ADAFACTOR_ABI

#include "adafactor/exact_end.hpp"
