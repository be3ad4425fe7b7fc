// The loops over one run: a contiguous piece of one row, either the array itself or a buffer in L1 filled from it.
// They know numbers and nothing else. T is the arithmetic, float or double; G and P are what gradients and parameters
// are stored as; lane = column mod 16, and the sixteen sums are folded in double at the end of each block of 512
// columns.
#pragma once

#include <cstddef>
#include <cstdint>

#include "adafactor/cpu/runs/formulas.hpp"
#include "adafactor/lanes/lanes.hpp"
#include "adafactor/lanes/run.hpp"
#include "adafactor/step/leaf.hpp"

#include "adafactor/compiler/exact_begin.hpp"

namespace adafactor { inline namespace ADAFACTOR_LOOPS {

// Calls body(first, count) for each block of a run of n.
template <class Body>
ADAFACTOR_INLINE void for_blocks(std::int64_t n, const Body& body) {
  for (std::int64_t first = 0; first < n; first += kBlock) body(first, n - first < kBlock ? n - first : kBlock);
}

// The same, where a GPU's runs are one block each, so that no thread has to count blocks.
template <class Body>
ADAFACTOR_INLINE void for_blocks_of_run(std::int64_t n, const Body& body) {
  if constexpr (kRunsAreBlocks) {
    body(0, n);
  } else {
    for_blocks(n, body);
  }
}

// Adds, to a sum for each block of a run of G, the squares of what `function` makes of each element.
template <class T, class G, class Function>
ADAFACTOR_DEVICE void add_squares_of(G g, const Function& function, std::int64_t n, double* sums) {
  for_blocks_of_run(n, [&](std::int64_t first, std::int64_t count) ADAFACTOR_INLINE_LAMBDA {
    g.ask(first, count);
    Lanes<T> squares = fill(T{});
    const auto read = [&](std::int64_t i, auto amount)
                          ADAFACTOR_INLINE_LAMBDA { return load<T>(g, first + i, amount); };
    for_lanes<G>(count, read, [&](std::int64_t i, auto amount, const Lanes<T>& number) ADAFACTOR_INLINE_LAMBDA {
      const Lanes<T> x = function(number, first + i, amount);
      squares = squares + x * x;
    });
    sums[first / kBlock] += fold(squares);
  });
}

// Adds the squares of scale * g in this way.
template <class T, class G>
ADAFACTOR_DEVICE void add_squares(G g, T scale, std::int64_t n, double* sums) {
  const auto scaled = [scale](const auto& x, std::int64_t, auto) ADAFACTOR_INLINE_LAMBDA { return x * scale; };
  add_squares_of<T>(g, scaled, n, sums);
}

// row_sum + the squares of a run of scale * g, block by block. Adds each block's to its cell's sum, and each element's
// to its column's.
template <class T, class G>
ADAFACTOR_DEVICE double add_squares_by_column(G g, T scale, std::int64_t n, T* column_sums, double row_sum,
                                              double* sums) {
  for_blocks_of_run(n, [&](std::int64_t first, std::int64_t count) ADAFACTOR_INLINE_LAMBDA {
    const auto add = [&](double squares) ADAFACTOR_INLINE_LAMBDA {
      row_sum += squares;
      sums[first / kBlock] += squares;
    };
    // These are the block's own, since what lies outside would be read again after each store.
    g.ask(first, count);
    const G run = g.from(first);
    T* const columns = column_sums + first;
    const T factor = scale;
    Lanes<T> squares = fill(T{});
    const auto read = [&](std::int64_t i, auto amount) ADAFACTOR_INLINE_LAMBDA { return load<T>(run, i, amount); };
    for_lanes<G>(count, read, [&](std::int64_t i, auto amount, const Lanes<T>& number) ADAFACTOR_INLINE_LAMBDA {
      const Lanes<T> x = number * factor;
      const Lanes<T> square = x * x;
      squares = squares + square;
      store(columns + i, load<T>(columns + i, amount) + square, amount);
    });
    add(fold(squares));
  });
  return row_sum;
}

// What this does of a run of G through its links; the squares of G before clipping go to the cell's other sum.
template <class T, class G, class Links>
ADAFACTOR_DEVICE double add_squares_by_column(G g, Links links, std::int64_t n, T* column_sums, double row_sum,
                                              double* sums, double* sums_before_clipping) {
  for_blocks_of_run(n, [&](std::int64_t first, std::int64_t count) ADAFACTOR_INLINE_LAMBDA {
    const auto add = [&](double squares, double before) ADAFACTOR_INLINE_LAMBDA {
      row_sum += squares;
      sums[first / kBlock] += squares;
      sums_before_clipping[first / kBlock] += before;
    };
    g.ask(first, count);
    links.ask(first, count);
    Lanes<T> squares = fill(T{});
    Lanes<T> before = squares;
    const auto read = [&](std::int64_t i, auto amount)
                          ADAFACTOR_INLINE_LAMBDA { return load<T>(g, first + i, amount); };
    for_lanes<G>(count, read, [&](std::int64_t i, auto amount, const Lanes<T>& number) ADAFACTOR_INLINE_LAMBDA {
      const Lanes<T> whole = links.unclipped(number, first + i, amount);
      const Lanes<T> x = links.clip(whole);
      const Lanes<T> square = x * x;
      squares = squares + square;
      before = before + whole * whole;
      T* column = column_sums + first + i;
      store(column, load<T>(column, amount) + square, amount);
    });
    add(fold(squares), fold(before));
  });
  return row_sum;
}

// totals += values, or totals = values, widening to double.
template <class T>
ADAFACTOR_DEVICE void add_wide(const T* values, double* totals, bool begins, std::int64_t n) {
  for_each(n, [&](std::int64_t i, auto amount) ADAFACTOR_INLINE_LAMBDA {
    const auto wide = load<double>(values + i, amount);
    store(totals + i, begins ? wide : load<double>(totals + i, amount) + wide, amount);
  });
}

// The sum of n numbers, in double.
template <class T>
ADAFACTOR_DEVICE ADAFACTOR_OWN_FRAME double sum_of(const T* values, std::int64_t n) {
  double sum = 0;
  if (n == 8) return fold(load<double>(values, Exactly<8>{}));  // the others being zero
  for_blocks(n, [&](std::int64_t first, std::int64_t count) ADAFACTOR_INLINE_LAMBDA {
    Lanes<double> lanes = fill(0.0);
    for_lanes(count, [&](std::int64_t i, auto amount)
                         ADAFACTOR_INLINE_LAMBDA { lanes = lanes + load<double>(values + first + i, amount); });
    sum += fold(lanes);
  });
  return sum;
}

// sums[i] / count, rounded to T.
template <class T>
void store_means(const double* sums, double count, T* means, std::int64_t n) {
  for_each(n, [&](std::int64_t i, auto amount)
                  ADAFACTOR_INLINE_LAMBDA { store(means + i, load<double>(sums + i, amount) / count, amount); });
}

// U of a factored leaf, as a function for one run: u = (g * row) * col.
template <class T>
struct FactoredU {
  T row;
  const T* cols;

  template <class Numbers, class Amount>
  ADAFACTOR_INLINE Numbers operator()(const Numbers& g, std::int64_t i, Amount amount) const {
    return (g * row) * load<T>(cols + i, amount);
  }
};

// U where the product of the two factors is kept at or below `limit` (torch, which clamps the estimate from below).
// `row` may carry a scale, `bare_row` does not, and `scaled_limit` is the limit times that scale. Where the clamp does
// not bind, the bits are those of FactoredU.
template <class T>
struct ClampedU {
  T row;
  const T* cols;
  T bare_row;
  T limit;
  T scaled_limit;

  template <class Numbers, class Amount>
  ADAFACTOR_INLINE Numbers operator()(const Numbers& g, std::int64_t i, Amount amount) const {
    const Numbers col = load<T>(cols + i, amount);
    return select_less(limit, bare_row * col, g * scaled_limit, (g * row) * col);
  }
};

// U of an unfactored leaf, as a function for one run, from v as it was; the new v goes where it is to stay, if anywhere
// (`after` may be v itself).
template <class T, bool keeps>
struct FullU {
  FullRule<T> rule;
  T scale;
  Run<T> before;
  T* after;

  template <class Numbers, class Amount>
  ADAFACTOR_INLINE Numbers operator()(const Numbers& g, std::int64_t i, Amount amount) const {
    const Numbers x = scaled(g);
    const Numbers moment = next_moment(rule, load<T>(before, i, amount), x);
    if constexpr (keeps) store(after + i, moment, amount);
    return full_u(rule, x, moment) * scale;
  }
  template <class Numbers>
  ADAFACTOR_INLINE Numbers scaled(const Numbers& g) const {
    return g * rule.gradient_scale;
  }
  ADAFACTOR_INLINE void ask(std::int64_t first, std::int64_t count) const { before.ask(first, count); }
};

// What a loop reads of two runs before it uses either.
template <class Numbers>
struct Pair {
  Numbers gradient;
  Numbers parameter;
};

// Adds, to two sums for each block of a run, the squares of u and of p.
template <class T, class G, class P, class U>
ADAFACTOR_DEVICE void add_u_squares(G g, P p, const U& u_of, std::int64_t n, double* update_sums,
                                    double* parameter_sums) {
  for_blocks_of_run(n, [&](std::int64_t first, std::int64_t count) ADAFACTOR_INLINE_LAMBDA {
    g.ask(first, count);
    p.ask(first, count);
    ask_for(u_of, first, count);
    Lanes<T> of_update = fill(T{});
    Lanes<T> of_parameter = fill(T{});
    const auto read = [&](std::int64_t i, auto amount) ADAFACTOR_INLINE_LAMBDA {
      return Pair<Lanes<T>>{load<T>(g, first + i, amount), load<T>(p, first + i, amount)};
    };
    for_lanes<G>(count, read, [&](std::int64_t i, auto amount, const Pair<Lanes<T>>& x) ADAFACTOR_INLINE_LAMBDA {
      const Lanes<T> u = u_of(x.gradient, first + i, amount);
      of_update = of_update + u * u;
      of_parameter = of_parameter + x.parameter * x.parameter;
    });
    update_sums[first / kBlock] += fold(of_update);
    parameter_sums[first / kBlock] += fold(of_parameter);
  });
}

// The loops of unfactored leaves, which read three streams and wait for roots, ask for so many elements at once. A CPU
// has room for a dozen lines that are on their way: what is asked for beyond these waits, and with it what is read.
inline constexpr std::int64_t kAskedAtOnce = 128;

// Calls body(first, count) for parts of a run of n that are asked for at once.
template <class Body>
ADAFACTOR_INLINE void for_asked(std::int64_t n, const Body& body) {
  for (std::int64_t first = 0; first < n; first += kAskedAtOnce) {
    body(first, n - first < kAskedAtOnce ? n - first : kAskedAtOnce);
  }
}

// Adds, to three sums for a block of an unfactored leaf, the squares of G, of u and of p.
template <class T, class S>
void add_full_squares(Run<S> g, Run<S> p, const FullU<T, false>& u_of, std::int64_t n, double& gradient_sum,
                      double& update_sum, double& parameter_sum) {
  Lanes<T> of_gradient = fill(T{});
  Lanes<T> of_update = fill(T{});
  Lanes<T> of_parameter = fill(T{});
  for_asked(n, [&](std::int64_t first, std::int64_t count) ADAFACTOR_INLINE_LAMBDA {
    g.ask(first, count);
    p.ask(first, count);
    u_of.ask(first, count);
    for_lanes(count, [&](std::int64_t i, auto amount) ADAFACTOR_INLINE_LAMBDA {
      const Lanes<T> gradient = load<T>(g, first + i, amount);
      const Lanes<T> parameter = load<T>(p, first + i, amount);
      const Lanes<T> x = u_of.scaled(gradient);
      const Lanes<T> u = u_of(gradient, first + i, amount);
      of_gradient = of_gradient + x * x;
      of_update = of_update + u * u;
      of_parameter = of_parameter + parameter * parameter;
    });
  });
  gradient_sum += fold(of_gradient);
  update_sum += fold(of_update);
  parameter_sum += fold(of_parameter);
}

// out <- p - u, the whole of `apply` where no update link is.
template <class T, class G, class P, class U>
ADAFACTOR_DEVICE void subtract_u(Run<G> g, Run<P> p, P* out, const U& u_of, std::int64_t n) {
  g.ask(0, n);
  p.ask(0, n);
  ask_for(u_of, 0, n);
  const auto read = [&](std::int64_t i, auto amount) ADAFACTOR_INLINE_LAMBDA {
    return Pair<decltype(load<T>(g, i, amount))>{load<T>(g, i, amount), load<T>(p, i, amount)};
  };
  for_each<Run<G>>(n, read, [&](std::int64_t i, auto amount, const auto& x) ADAFACTOR_INLINE_LAMBDA {
    store(out + i, x.parameter - u_of(x.gradient, i, amount), amount);
  });
}

// out <- u, for the links to go on with.
template <class T, class U>
void store_u(Run<T> g, T* out, const U& u_of, std::int64_t n) {
  g.ask(0, n);
  ask_for(u_of, 0, n);
  for_each(n, [&](std::int64_t i, auto amount)
                  ADAFACTOR_INLINE_LAMBDA { store(out + i, u_of(load<T>(g, i, amount), i, amount), amount); });
}

}}  // namespace adafactor::ADAFACTOR_LOOPS

#include "adafactor/compiler/exact_end.hpp"
