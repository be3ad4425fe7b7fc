// Phase `apply`: the new parameter, through the update links where there are any, and the new moments become the state.
// It cannot fail. An accumulating call ends here too: its gradient is added to the accumulator.
#pragma once

#include <cstdint>
#include <cstring>

#include "adafactor/cpu/runs/gradient.hpp"
#include "adafactor/cpu/runs/links.hpp"
#include "adafactor/cpu/runs/output.hpp"
#include "adafactor/cpu/runs/u.hpp"
#include "adafactor/cpu/short/factors.hpp"

#include "adafactor/compiler/exact_begin.hpp"

namespace adafactor { inline namespace ADAFACTOR_LOOPS { namespace loop_detail {

// The update links of a run of n elements; `first` is its first in the order of the state.
template <class T>
class LinkedRun {
 public:
  LinkedRun(const Leaf& leaf, std::int64_t first, std::int64_t n) : leaf_(leaf), first_(first), n_(n) {}

  // Takes the update x of at most a block to the new parameter: from `in` to `output`, rows in which the run begins at
  // `begin`.
  void finish(T* x, const Row& in, const OutputRow<T>& output, std::int64_t begin) const {
    if (leaf_.rule.has_momentum) apply_stored_momentum(x);
    if (!leaf_.scales_early()) multiply(x, static_cast<T>(leaf_.found.step_size), n_);
    T buffer[kBlock];
    const bool direct = output.row().template is_run_of<T>();
    T* out = direct ? output.row().template at<T>(begin) : buffer;
    const T decay = static_cast<T>(leaf_.found.weight_decay);
    const Run<T> p = leaf_.rule.writes_difference && decay == 0 ? Run<T>(x) : read_run(in, begin, n_, buffer);
    if (leaf_.rule.writes_difference) {
      store_difference(x, p, out, decay, n_);
    } else if (leaf_.found.weight_decay != 0) {
      subtract_with_decay(Run<T>(x), p, out, StoredU{}, decay, n_);
    } else {
      subtract_u<T>(Run<T>(x), p, out, StoredU{}, n_);
    }
    if (!direct) output.write(begin, n_, buffer);
    if (leaf_.averages()) {
      // It is the average of the parameters as they are stored.
      if (!direct) read_into(buffer, output.row(), begin, n_);
      apply_average(out, Run<T>(state<const T>(leaf_.at.before.average), bytes_ahead()),
                    state<T>(leaf_.at.after.average), leaf_, n_);
      if (!direct && leaf_.rule.overwrites) output.write(begin, n_, buffer);
    }
    if (leaf_.rule.accumulates) clear_accumulator();
  }

  void clear_accumulator() const {
    std::memset(state<T>(leaf_.at.after.accumulator), 0, static_cast<std::size_t>(n_) * sizeof(T));
  }

 private:
  template <class S>
  S* state(void* array) const {
    return static_cast<S*>(array) + first_;
  }

  void apply_stored_momentum(T* x) const {
    void* before = leaf_.at.before.momentum;
    void* after = leaf_.at.after.momentum;
    if (leaf_.rule.momentum_is_bfloat16) {
      apply_momentum(x, Run<Bfloat16>(state<const Bfloat16>(before), bytes_ahead()), state<Bfloat16>(after),
                     leaf_.rule.beta_1, leaf_.rule.uses_exact_momentum, n_);
    } else {
      apply_momentum(x, Run<T>(state<const T>(before), bytes_ahead()), state<T>(after), leaf_.rule.beta_1, n_);
    }
  }

  const Leaf& leaf_;
  std::int64_t first_;
  std::int64_t n_;
};

// A slice's part of a tile on its way through the update links.
template <class T>
class SliceApply {
 public:
  SliceApply(const Leaf& leaf, const Tile& tile, std::int64_t slice)
      : leaf_(leaf),
        tile_(tile),
        gradient_(leaf, slice, ahead_of(leaf.at.gradient, leaf, tile)),
        parameter_(leaf.at.parameter, slice, ahead_of(leaf.at.parameter, leaf, tile)),
        output_(leaf, slice),
        u_(leaf, slice, leaf.update_scale()),
        first_element_(slice * leaf.shape.rows * leaf.shape.cols) {}

  void operator()() const {
    const std::int64_t end = tile_.row + tile_.rows;
    if constexpr (kFusesUpdate<T>) {
      if (has_loop()) {
        for (std::int64_t row = tile_.row; row < end; row += kRowGroup) {
          apply_rows(row, end - row < kRowGroup ? end - row : kRowGroup);
        }
        return;
      }
      if (has_full_loop()) return apply_full_rows();
    }
    for (std::int64_t row = tile_.row; row < end; ++row) {
      for_blocks(tile_.cols, [&](std::int64_t offset, std::int64_t n) { apply_run(row, tile_.col + offset, n); });
    }
  }

 private:
  // Whether one goes all the way, from the gradient to the new parameter.
  bool has_loop() const {
    return !leaf_.rule.has_momentum && !leaf_.averages() && !leaf_.rule.writes_difference && leaf_.is_plain() &&
           gradient_.is_direct() && parameter_.template is_direct<T>() && output_.row(0).takes_stores() &&
           (has_all_loops(leaf_.at.gradient.dtype, leaf_.at.parameter.dtype) ||
            (gradient_.is_bare() && leaf_.found.weight_decay == 0));
  }

  bool has_full_loop() const {
    return has_full_loops(leaf_) && !leaf_.links_update() && gradient_.is_bare() &&
           parameter_.template is_direct<T>() && output_.row(0).takes_stores();
  }

  // Applies the rows of an unfactored leaf.
  void apply_full_rows() const {
    with_common_loops<T>(leaf_.at.parameter.dtype, [&](auto storage) {
      using S = typename decltype(storage)::type;
      for (std::int64_t row = tile_.row; row < tile_.row + tile_.rows; ++row) {
        for_asked(tile_.cols, [&](std::int64_t offset, std::int64_t n) {
          const std::int64_t first = tile_.col + offset;
          subtract_u<T>(gradient_.template at<S>(row, first), parameter_.row(row).run<S>(first),
                        output_.row(row).row().template at<S>(first), u_.template full<true>(first), n);
        });
      }
    });
  }

  void apply_rows(std::int64_t first, std::int64_t count) const {
    T factors[kRowGroup];
    u_.make_row_factors(first, count, factors);
    with_loops<T>(leaf_, [&](auto of_gradient, auto of_parameter) {
      using G = typename decltype(of_gradient)::type;
      using P = typename decltype(of_parameter)::type;
      for (std::int64_t row = first; row < first + count; ++row) {
        for_blocks(tile_.cols, [&](std::int64_t offset, std::int64_t n) ADAFACTOR_INLINE_LAMBDA {
          apply_block<G, P>(row, tile_.col + offset, n, factors[row - first]);
        });
      }
    });
  }

  template <class G, class P>
  void apply_block(std::int64_t row, std::int64_t first, std::int64_t n, T row_factor) const {
    const Run<G> g = gradient_.template at<G>(row, first);
    const Run<P> p = parameter_.row(row).run<P>(first);
    P* out = output_.row(row).row().template at<P>(first);
    const FactoredU<T> u_of = u_.plain(row_factor, first);
    if constexpr (!has_all_loops(Storage<G>::dtype, Storage<P>::dtype)) {
      subtract_u<T>(g, p, out, u_of, n);
    } else {
      if constexpr (loops_read_links<T>(Storage<G>::dtype)) {
        if (!gradient_.is_bare()) {
          subtract(g, p, out, LinkedU<T, FactoredU<T>>{gradient_.links(row, first), u_of}, n);
          if (leaf_.rule.accumulates) LinkedRun<T>{leaf_, element(row, first), n}.clear_accumulator();
          return;
        }
      }
      subtract(g, p, out, u_of, n);
    }
  }

  template <class G, class P, class U>
  void subtract(Run<G> g, Run<P> p, P* out, const U& u_of, std::int64_t n) const {
    if (leaf_.found.weight_decay != 0) {
      subtract_with_decay(g, p, out, u_of, static_cast<T>(leaf_.found.weight_decay), n);
    } else {
      subtract_u<T>(g, p, out, u_of, n);
    }
  }

  void apply_run(std::int64_t row, std::int64_t first, std::int64_t n) const {
    T g_buffer[kBlock];
    T x[kBlock];
    u_.store(gradient_.run(row, first, n, g_buffer), row, first, n, x, SliceU<T>::Moments::keep);
    LinkedRun<T>{leaf_, element(row, first), n}.finish(x, parameter_.row(row), output_.row(row), first);
  }

  // The number of an element in the order of the state.
  std::int64_t element(std::int64_t row, std::int64_t first) const {
    return first_element_ + row * leaf_.shape.cols + first;
  }

  const Leaf& leaf_;
  const Tile& tile_;
  Gradient<T> gradient_;
  Slice parameter_;
  SliceOutput<T> output_;
  SliceU<T> u_;
  std::int64_t first_element_;
};

// A tile of short rows of arrays that lie side by side.
template <class T, class Factors>
class NarrowApply {
 public:
  NarrowApply(const Leaf& leaf, const Tile& tile)
      : leaf_(leaf), tile_(tile), output_(whole_output<T>(leaf)), factors_(leaf, tile, leaf.update_scale()) {}

  ADAFACTOR_OWN_FRAME void operator()() {
    T buffer[kBlock];
    for_row_ranges(leaf_, tile_, Factors::most_rows(leaf_), [&](RowRange rows) ADAFACTOR_INLINE_LAMBDA {
      const Run<T> g = read_gradient_rows(leaf_, rows, buffer);
      factors_.prepare(rows);
      if constexpr (kFusesUpdate<T>) {
        if (output_.takes_stores() && !leaf_.links_update()) return apply(g, rows);
      }
      apply_linked(g, rows);
    });
  }

 private:
  void apply(Run<T> g, RowRange rows) {
    const std::int64_t first = rows.first * leaf_.shape.cols;
    with_loops<T>(leaf_.at.parameter.dtype, [&](auto storage) {
      using P = typename decltype(storage)::type;
      const Run<P> p = whole_row(leaf_.at.parameter).template run<P>(first);
      P* out = output_.row().template at<P>(first);
      factors_.with_lanes([&](const auto& u_of) ADAFACTOR_INLINE_LAMBDA {
        subtract_u<T>(g, p, out, u_of, rows.count * leaf_.shape.cols);
      });
    });
  }

  void apply_linked(Run<T> g, RowRange rows) {
    const std::int64_t first = rows.first * leaf_.shape.cols;
    const std::int64_t n = rows.count * leaf_.shape.cols;
    T x[kBlock];
    factors_.with_lanes([&](const auto& u_of) ADAFACTOR_INLINE_LAMBDA { store_u(g, x, u_of, n); });
    LinkedRun<T>{leaf_, first, n}.finish(x, whole_row(leaf_.at.parameter), output_, first);
  }

  const Leaf& leaf_;
  const Tile& tile_;
  OutputRow<T> output_;
  Factors factors_;
};

// Some elements of one array in the place of another's, unless they lie there.
inline void copy_items(const void* from, void* to, std::int64_t first, std::int64_t n, std::int64_t item) {
  if (from == to || n == 0) return;
  std::memcpy(static_cast<std::byte*>(to) + first * item, static_cast<const std::byte*>(from) + first * item,
              static_cast<std::size_t>(n * item));
}

// The moments that `factors` left in the workspace become the state; or the old ones, where they stay. Those of a part
// without elements may be none.
inline void commit_moments(const Leaf& leaf, const Tile& tile, const void* row, const void* col) {
  const auto copy = [&](const void* from, void* to, std::int64_t first, std::int64_t n) {
    copy_items(from, to, first, n, item_size(leaf.shape.arithmetic));
  };
  // Several slices are whole ones.
  if (tile.col_block == 0) {
    copy(row, leaf.at.after.row, tile.slice * leaf.shape.rows + tile.row, tile.slices * tile.rows);
  }
  if (tile.row_block == 0) {
    copy(col, leaf.at.after.col, tile.slice * leaf.shape.cols + tile.col, tile.slices * tile.cols);
  }
}

// The parameter stays; it is copied where the output is another array, and the average moves on. A difference is zero,
// which nobody may want: where the output is the gradient, and that is absent, there is none.
template <class T>
void keep_slice(const Leaf& leaf, const Tile& tile, std::int64_t slice) {
  if (leaf.rule.writes_difference && !leaf.at.parameter_out.data) return;
  const Slice parameter(leaf.at.parameter, slice);
  const SliceOutput<T> output(leaf, slice);
  static constexpr T zeros[kBlock] = {};
  for (std::int64_t row = tile.row; row < tile.row + tile.rows; ++row) {
    const std::int64_t offset = (slice * leaf.shape.rows + row) * leaf.shape.cols;
    for_blocks(tile.cols, [&](std::int64_t from, std::int64_t n) {
      const std::int64_t first = tile.col + from;
      if (leaf.rule.writes_difference) return output.row(row).write(first, n, zeros);
      if (leaf.averages()) {
        T buffer[kBlock];
        read_into(buffer, parameter.row(row), first, n);
        apply_average(buffer, Run<T>(static_cast<const T*>(leaf.at.before.average) + offset + first, bytes_ahead()),
                      static_cast<T*>(leaf.at.after.average) + offset + first, leaf, n);
        if (leaf.rule.overwrites) return output.row(row).write(first, n, buffer);
      }
      if (leaf.at.parameter.data != leaf.at.parameter_out.data)
        copy_run<T>(parameter.row(row), output.row(row).row(), first, n);
    });
  }
}

// What a call leaves as it is of a leaf's state stands where the state is to be after it; what is forgotten is zero.
inline void carry_state(const Leaf& leaf, const Tile& tile) {
  const StateArrays& before = leaf.at.before;
  const StateArrays& after = leaf.at.after;
  const auto carry = [&](const void* from, void* to, DType dtype, bool forgets = false) {
    const std::int64_t item = item_size(dtype);
    for (std::int64_t slice = tile.slice; slice < tile.slice + tile.slices; ++slice) {
      for (std::int64_t row = tile.row; row < tile.row + tile.rows; ++row) {
        const std::int64_t first = (slice * leaf.shape.rows + row) * leaf.shape.cols + tile.col;
        if (!forgets) {
          copy_items(from, to, first, tile.cols, item);
        } else if (to) {
          std::memset(static_cast<std::byte*>(to) + first * item, 0, static_cast<std::size_t>(tile.cols * item));
        }
      }
    }
  };
  const DType arithmetic = leaf.shape.arithmetic;
  carry(before.full, after.full, arithmetic);
  carry(before.momentum, after.momentum, leaf.rule.momentum_is_bfloat16 ? DType::bfloat16 : arithmetic);
  if (!leaf.averages()) carry(before.average, after.average, arithmetic, leaf.forgets_average());
  if (!leaf.adds()) carry(before.accumulator, after.accumulator, arithmetic, leaf.forgets());
  if (leaf.shape.factored) commit_moments(leaf, tile, before.row, before.col);
}

// accumulator <- accumulator + multiplier g.
template <class T>
void accumulate_tile(const Leaf& leaf, const Tile& tile) {
  T buffer[kBlock];
  for (std::int64_t slice = tile.slice; slice < tile.slice + tile.slices; ++slice) {
    const Gradient<T> gradient(leaf, slice, ahead_of(leaf.at.gradient, leaf, tile));
    for (std::int64_t row = tile.row; row < tile.row + tile.rows; ++row) {
      T* accumulator = static_cast<T*>(leaf.at.after.accumulator) + (slice * leaf.shape.rows + row) * leaf.shape.cols;
      for_blocks(tile.cols, [&](std::int64_t offset, std::int64_t n) {
        T* to = accumulator + tile.col + offset;  // straight there, where the gradient needs no buffer of its own
        const T* sum = gradient.run(row, tile.col + offset, n, gradient.is_direct() ? to : buffer).at;
        if (sum != to) std::memcpy(to, sum, static_cast<std::size_t>(n) * sizeof(T));
      });
    }
  }
}

}}}  // namespace adafactor::ADAFACTOR_LOOPS::loop_detail

#include "adafactor/compiler/exact_end.hpp"
