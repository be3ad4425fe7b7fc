// Links: small functions on one run. Gradient links make G out of what lies in memory and run wherever g is read;
// update links turn the update into the new parameter and run in `apply` alone.
#pragma once

#include <cstdint>

#include "adafactor/cpu/runs/formulas.hpp"
#include "adafactor/dtype.hpp"
#include "adafactor/lanes/lanes.hpp"
#include "adafactor/lanes/run.hpp"
#include "adafactor/order.hpp"
#include "adafactor/step/leaf.hpp"

#include "adafactor/compiler/exact_begin.hpp"

namespace adafactor { inline namespace ADAFACTOR_LOOPS {

// The gradient links of one run: what is read becomes G = (accumulator + multiplier g) mean_factor, kept within
// [-limit, limit]; a NaN stays one.
template <class T>
struct GradientLinks {
  Run<T> accumulator;  // of the run's elements; null where there is none
  T multiplier;
  T mean_factor;
  T limit;  // infinity where there is none

  template <class Numbers, class Amount>
  ADAFACTOR_INLINE Numbers unclipped(const Numbers& g, std::int64_t i, Amount amount) const {
    if (!accumulator.at) return g * multiplier;
    return (load<T>(accumulator, i, amount) + g * multiplier) * mean_factor;
  }

  // Asks for what lies ahead of some elements.
  ADAFACTOR_INLINE void ask(std::int64_t first, std::int64_t count) const { accumulator.ask(first, count); }

  template <class Numbers>
  ADAFACTOR_INLINE Numbers clip(const Numbers& x) const {
    return larger(smaller(x, limit), -limit);
  }
};

// Those of the elements from `first` on, in the order of the state, with or without clipping by value.
template <class T>
ADAFACTOR_DEVICE GradientLinks<T> gradient_links(const Leaf& leaf, std::int64_t first, bool clips = true) {
  const double limit = clips && leaf.rule.clip_value > 0 ? leaf.rule.clip_value : __builtin_inf();
  const T* accumulator = static_cast<const T*>(leaf.at.before.accumulator);
  return {{leaf.rule.accumulates ? accumulator + first : nullptr, bytes_ahead()},
          static_cast<T>(leaf.rule.multiplier),
          static_cast<T>(leaf.rule.mean_factor),
          static_cast<T>(limit)};
}

// U of what is read, through the gradient links.
template <class T, class U>
struct LinkedU {
  GradientLinks<T> links;
  U u_of;

  template <class Numbers, class Amount>
  ADAFACTOR_INLINE Numbers operator()(const Numbers& g, std::int64_t i, Amount amount) const {
    return u_of(links.clip(links.unclipped(g, i, amount)), i, amount);
  }
  ADAFACTOR_INLINE void ask(std::int64_t first, std::int64_t count) const {
    links.ask(first, count);
    ask_for(u_of, first, count);
  }
};

// buffer <- G, of what is stored as G.
template <class T, class G>
void store_gradient(Run<G> g, const GradientLinks<T>& links, T* buffer, std::int64_t n) {
  g.ask(0, n);
  links.ask(0, n);
  for_each(n, [&](std::int64_t i, auto amount) ADAFACTOR_INLINE_LAMBDA {
    store(buffer + i, links.clip(links.unclipped(load<T>(g, i, amount), i, amount)), amount);
  });
}

// g <- scale g.
template <class T>
void multiply(T* g, T scale, std::int64_t n) {
  for_each(n, [&](std::int64_t i, auto amount)
                  ADAFACTOR_INLINE_LAMBDA { store(g + i, load<T>(g + i, amount) * scale, amount); });
}

// after <- beta_1 before + (1 - beta_1) x, and x becomes it.
template <class T>
void apply_momentum(T* x, Run<T> before, T* after, double beta_1, std::int64_t n) {
  const MovingMean<T> mean(beta_1);
  before.ask(0, n);
  for_each(n, [&](std::int64_t i, auto amount) ADAFACTOR_INLINE_LAMBDA {
    const auto momentum = mean(load<T>(before, i, amount), load<T>(x + i, amount));
    store(after + i, momentum, amount);
    store(x + i, momentum, amount);
  });
}

// What apply_momentum() does where the momentum is stored in 16 bits; x becomes it before (exact) or after rounding.
template <class T>
void apply_momentum(T* x, Run<Bfloat16> before, Bfloat16* after, double beta_1, bool exact, std::int64_t n) {
  const MovingMean<T> mean(beta_1);
  before.ask(0, n);
  if constexpr (sizeof(T) == sizeof(float)) {
    for_each(n, [&](std::int64_t i, auto amount) ADAFACTOR_INLINE_LAMBDA {
      const auto momentum = mean(load<T>(before, i, amount), load<T>(x + i, amount));
      store(after + i, momentum, amount);
      store(x + i, exact ? momentum : load<T>(after + i, amount), amount);
    });
  } else {
    for (std::int64_t i = 0; i < n; ++i) {
      const T momentum = mean(static_cast<T>(to_float(before.at[i])), x[i]);
      after[i] = round_to<Bfloat16>(static_cast<float>(momentum));
      x[i] = exact ? momentum : static_cast<T>(to_float(after[i]));
    }
  }
}

// out <- p - (u + decay p).
template <class T, class G, class P, class U>
void subtract_with_decay(Run<G> g, Run<P> p, P* out, const U& u_of, T decay, std::int64_t n) {
  g.ask(0, n);
  p.ask(0, n);
  ask_for(u_of, 0, n);
  for_each(n, [&](std::int64_t i, auto amount) ADAFACTOR_INLINE_LAMBDA {
    const auto old = load<T>(p, i, amount);
    store(out + i, decayed(old, u_of(load<T>(g, i, amount), i, amount), decay), amount);
  });
}

// out <- what is to be added to p: -(u + decay p), of which p needs none where decay is 0.
template <class T>
void store_difference(const T* u, Run<T> p, T* out, T decay, std::int64_t n) {
  for_each(n, [&](std::int64_t i, auto amount) ADAFACTOR_INLINE_LAMBDA {
    const auto update = load<T>(u + i, amount);
    store(out + i, (decay == 0 ? update : with_decay(load<T>(p, i, amount), update, decay)) * T{-1}, amount);
  });
}

// U where it was stored, as a function for such a loop.
struct StoredU {
  template <class Numbers, class Amount>
  ADAFACTOR_INLINE Numbers operator()(const Numbers& u, std::int64_t, Amount) const {
    return u;
  }
};

// after <- momentum before + (1 - momentum) p, or p where the average starts; p becomes it where it overwrites.
template <class T>
void apply_average(T* p, Run<T> before, T* after, const Leaf& leaf, std::int64_t n) {
  const MovingMean<T> mean(leaf.rule.starts_average ? 0 : leaf.rule.ema_momentum);
  before.ask(0, n);
  for_each(n, [&](std::int64_t i, auto amount) ADAFACTOR_INLINE_LAMBDA {
    const auto average = mean(load<T>(before, i, amount), load<T>(p + i, amount));
    store(after + i, average, amount);
    if (leaf.rule.overwrites) store(p + i, average, amount);
  });
}

}}  // namespace adafactor::ADAFACTOR_LOOPS

#include "adafactor/compiler/exact_end.hpp"
