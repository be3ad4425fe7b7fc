// The loops over one run: a contiguous piece of one row, either the array itself or a buffer in L1 filled from it.
// They know numbers and nothing else. T is the arithmetic, float or double; G and P are what gradients and parameters
// are stored as; lane = column mod 16, and the sixteen sums are folded in double at the end of each block of 512
// columns.
#pragma once

#include <cstddef>
#include <cstdint>

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

// Adds, to a sum for each block of a run of G, the squares of what `function` makes of each element.
template <class T, class G, class Function>
void add_squares_of(Run<G> g, const Function& function, std::int64_t n, double* sums) {
  for_blocks(n, [&](std::int64_t first, std::int64_t count) ADAFACTOR_INLINE_LAMBDA {
    g.ask(first, count);
    Lanes<T> squares = fill(T{});
    for_lanes(count, [&](std::int64_t i, auto amount) ADAFACTOR_INLINE_LAMBDA {
      const Lanes<T> x = function(load<T>(g, first + i, amount), first + i, amount);
      squares = squares + x * x;
    });
    sums[first / kBlock] += fold(squares);
  });
}

// Adds the squares of scale * g in this way.
template <class T, class G>
void add_squares(Run<G> g, T scale, std::int64_t n, double* sums) {
  const auto scaled = [scale](const auto& x, std::int64_t, auto) ADAFACTOR_INLINE_LAMBDA { return x * scale; };
  add_squares_of<T>(g, scaled, n, sums);
}

// row_sum + the squares of a run of scale * g, block by block. Adds each block's to its cell's sum, and each element's
// to its column's.
template <class T, class G>
double add_squares_by_column(Run<G> g, T scale, std::int64_t n, T* column_sums, double row_sum, double* sums) {
  for_blocks(n, [&](std::int64_t first, std::int64_t count) ADAFACTOR_INLINE_LAMBDA {
    const auto add = [&](double squares) ADAFACTOR_INLINE_LAMBDA {
      row_sum += squares;
      sums[first / kBlock] += squares;
    };
    // These are the block's own, since what lies outside would be read again after each store.
    g.ask(first, count);
    const G* const run = g.at + first;
    T* const columns = column_sums + first;
    const T factor = scale;
    Lanes<T> squares = fill(T{});
    for_lanes(count, [&](std::int64_t i, auto amount) ADAFACTOR_INLINE_LAMBDA {
      const Lanes<T> x = load<T>(run + i, amount) * factor;
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
double add_squares_by_column(Run<G> g, Links links, std::int64_t n, T* column_sums, double row_sum, double* sums,
                             double* sums_before_clipping) {
  for_blocks(n, [&](std::int64_t first, std::int64_t count) ADAFACTOR_INLINE_LAMBDA {
    const auto add = [&](double squares, double before) ADAFACTOR_INLINE_LAMBDA {
      row_sum += squares;
      sums[first / kBlock] += squares;
      sums_before_clipping[first / kBlock] += before;
    };
    g.ask(first, count);
    links.ask(first, count);
    Lanes<T> squares = fill(T{});
    Lanes<T> before = squares;
    for_lanes(count, [&](std::int64_t i, auto amount) ADAFACTOR_INLINE_LAMBDA {
      const Lanes<T> whole = links.unclipped(load<T>(g, first + i, amount), first + i, amount);
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
void add_wide(const T* values, double* totals, bool begins, std::int64_t n) {
  for_each(n, [&](std::int64_t i, auto amount) ADAFACTOR_INLINE_LAMBDA {
    const auto wide = load<double>(values + i, amount);
    store(totals + i, begins ? wide : load<double>(totals + i, amount) + wide, amount);
  });
}

// The sum of n numbers, in double.
template <class T>
ADAFACTOR_OWN_FRAME double sum_of(const T* values, std::int64_t n) {
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

// What turns the means of g^2 into new moments.
struct MomentRule {
  double beta_2;
  double one_minus_beta_2;
  double square_scale;  // of the mean of g^2: the square of the factor of clipping by norm
  double epsilon;       // added to it
};

// The range of what both say.
inline MomentRange range_of(const MomentRange& a, const MomentRange& b) {
  return {smaller(a.smallest, b.smallest), larger(a.largest, b.largest)};
}

// moments <- beta2 old + (1 - beta2) (square_scale mean + epsilon), where `moments` holds the means. Returns their
// range.
template <class T>
MomentRange update_moments(const T* old, T* moments, MomentRule rule, std::int64_t n) {
  constexpr double none = __builtin_inf();
  constexpr Exactly<8> eight;
  const auto update = [&](std::int64_t i, auto amount) ADAFACTOR_INLINE_LAMBDA {
    const auto mean = rule.square_scale * load<double>(moments + i, amount) + rule.epsilon;
    store(moments + i, rule.beta_2 * load<double>(old + i, amount) + rule.one_minus_beta_2 * mean, amount);
    return load<double>(moments + i, amount);  // as it is stored
  };
  MomentRange range{none, 0};
  std::int64_t i = 0;
  if (n >= 8) {
    double lows[8];
    double highs[8];
    auto low = fill<double, 8>(none);
    auto high = fill<double, 8>(0);
    for (; i + 8 <= n; i += 8) {
      const auto moment = update(i, eight);
      low = smaller(low, select_less(0.0, moment, moment, low));
      high = larger(high, moment);
    }
    store(lows, low, eight);
    store(highs, high, eight);
    range = {fold_by<loop_detail::Smaller>(lows), fold_by<loop_detail::Larger>(highs)};
  }
  for (; i < n; ++i) {
    const double moment = update(i, One{});
    if (moment > 0) range.smallest = smaller(range.smallest, moment);
    range.largest = larger(range.largest, moment);
  }
  return range;
}

// factors <- moment^-1/2, 0 where the moment is 0.
template <class T>
void store_inverse_roots(const T* moments, T* factors, std::int64_t n) {
  for_each(n, [&](std::int64_t i, auto amount) ADAFACTOR_INLINE_LAMBDA {
    const auto moment = load<double>(moments + i, amount);
    store(factors + i, where_nonzero(1.0 / square_root(moment), moment), amount);
  });
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

// Adds, to two sums for each block of a run, the squares of u and of p.
template <class T, class G, class P, class U>
void add_u_squares(Run<G> g, Run<P> p, const U& u_of, std::int64_t n, double* update_sums, double* parameter_sums) {
  for_blocks(n, [&](std::int64_t first, std::int64_t count) ADAFACTOR_INLINE_LAMBDA {
    g.ask(first, count);
    p.ask(first, count);
    Lanes<T> of_update = fill(T{});
    Lanes<T> of_parameter = fill(T{});
    for_lanes(count, [&](std::int64_t i, auto amount) ADAFACTOR_INLINE_LAMBDA {
      const Lanes<T> u = u_of(load<T>(g, first + i, amount), first + i, amount);
      const Lanes<T> x = load<T>(p, first + i, amount);
      of_update = of_update + u * u;
      of_parameter = of_parameter + x * x;
    });
    update_sums[first / kBlock] += fold(of_update);
    parameter_sums[first / kBlock] += fold(of_parameter);
  });
}

// out <- p - u, the whole of `apply` where no update link is.
template <class T, class G, class P, class U>
void subtract_u(Run<G> g, Run<P> p, P* out, const U& u_of, std::int64_t n) {
  g.ask(0, n);
  p.ask(0, n);
  for_each(n, [&](std::int64_t i, auto amount) ADAFACTOR_INLINE_LAMBDA {
    store(out + i, load<T>(p, i, amount) - u_of(load<T>(g, i, amount), i, amount), amount);
  });
}

// out <- u, for the links to go on with.
template <class T, class U>
void store_u(Run<T> g, T* out, const U& u_of, std::int64_t n) {
  g.ask(0, n);
  for_each(n, [&](std::int64_t i, auto amount)
                  ADAFACTOR_INLINE_LAMBDA { store(out + i, u_of(load<T>(g, i, amount), i, amount), amount); });
}

// The rule of an unfactored leaf.
template <class T>
struct FullRule {
  T gradient_scale;
  T beta_2;
  T one_minus_beta_2;
  T epsilon;  // added to g^2
  T floor;    // of the estimate under the root
};

// v_out <- beta2 v + (1 - beta2) (g^2 + epsilon); u <- scale * g / sqrt(max(v_out, floor)), 0 where that is 0.
// v_out may be null (`rms` needs u alone) and may be v.
template <class T>
void update_full(Run<T> g, Run<T> v, T* v_out, FullRule<T> rule, T scale, T* u, std::int64_t n) {
  g.ask(0, n);
  v.ask(0, n);
  for_each(n, [&](std::int64_t i, auto amount) ADAFACTOR_INLINE_LAMBDA {
    const auto x = load<T>(g, i, amount) * rule.gradient_scale;
    const auto moment = rule.beta_2 * load<T>(v, i, amount) + rule.one_minus_beta_2 * (x * x + rule.epsilon);
    if (v_out) store(v_out + i, moment, amount);
    const auto estimate = larger(moment, rule.floor);
    store(u + i, where_nonzero(x / square_root(estimate), estimate) * scale, amount);
  });
}

}}  // namespace adafactor::ADAFACTOR_LOOPS

#include "adafactor/compiler/exact_end.hpp"
