// Links: small functions on one run. Gradient links make G out of what lies in memory and run wherever g is read;
// update links turn the update into the new parameter and run in `apply` alone.
#pragma once

#include <cstdint>

#include "adafactor/dtype.hpp"
#include "adafactor/exact_begin.hpp"
#include "adafactor/kernels.hpp"
#include "adafactor/leaf.hpp"

namespace adafactor::inline ADAFACTOR_ABI {

// g <- (accumulator + multiplier g) mean_factor.
template <class T>
void add_accumulator(T* g, const T* accumulator, T multiplier, T mean_factor, std::int64_t n) {
  for_each(n, [&](std::int64_t i, auto extent) ADAFACTOR_INLINE_LAMBDA {
    const auto sum = load<T>(accumulator + i, extent) + load<T>(g + i, extent) * multiplier;
    store(g + i, sum * mean_factor, extent);
  });
}

// g <- scale g.
template <class T>
void multiply(T* g, T scale, std::int64_t n) {
  for_each(n, [&](std::int64_t i, auto extent)
                  ADAFACTOR_INLINE_LAMBDA { store(g + i, load<T>(g + i, extent) * scale, extent); });
}

// g <- g kept within [-limit, limit]; a NaN stays one.
template <class T>
void clip_by_value(T* g, T limit, std::int64_t n) {
  for_each(n, [&](std::int64_t i, auto extent) ADAFACTOR_INLINE_LAMBDA {
    store(g + i, larger(smaller(load<T>(g + i, extent), limit), -limit), extent);
  });
}

// after <- beta_1 before + (1 - beta_1) x, and x becomes it.
template <class T>
void apply_momentum(T* x, const T* before, T* after, double beta_1, std::int64_t n) {
  const T decay = static_cast<T>(beta_1);
  const T gain = static_cast<T>(1 - beta_1);
  for_each(n, [&](std::int64_t i, auto extent) ADAFACTOR_INLINE_LAMBDA {
    const auto momentum = decay * load<T>(before + i, extent) + gain * load<T>(x + i, extent);
    store(after + i, momentum, extent);
    store(x + i, momentum, extent);
  });
}

// The same with the momentum stored in 16 bits; x becomes it before (exact) or after rounding.
template <class T>
void apply_momentum(T* x, const Bfloat16* before, Bfloat16* after, double beta_1, bool exact, std::int64_t n) {
  const T decay = static_cast<T>(beta_1);
  const T gain = static_cast<T>(1 - beta_1);
  for (std::int64_t i = 0; i < n; ++i) {
    const T momentum = decay * static_cast<T>(to_float(before[i])) + gain * x[i];
    after[i] = to_bfloat16(static_cast<float>(momentum));
    x[i] = exact ? momentum : static_cast<T>(to_float(after[i]));
  }
}

// out <- p - (x + decay p). Never p (1 - decay): 1 - decay loses what is below a unit of 1.
template <class T>
void subtract_with_decay(const T* x, const T* p, T* out, T decay, std::int64_t n) {
  for_each(n, [&](std::int64_t i, auto extent) ADAFACTOR_INLINE_LAMBDA {
    const auto old = load<T>(p + i, extent);
    store(out + i, old - (load<T>(x + i, extent) + decay * old), extent);
  });
}

// out <- p - x.
template <class T>
void subtract(const T* x, const T* p, T* out, std::int64_t n) {
  for_each(n, [&](std::int64_t i, auto extent)
                  ADAFACTOR_INLINE_LAMBDA { store(out + i, load<T>(p + i, extent) - load<T>(x + i, extent), extent); });
}

// after <- momentum before + (1 - momentum) p, or p where the average starts; p becomes it where it overwrites.
template <class T>
void apply_average(T* p, const T* before, T* after, const Leaf& leaf, std::int64_t n) {
  const double momentum = leaf.starts_average ? 0 : leaf.ema_momentum;
  const T decay = static_cast<T>(momentum);
  const T gain = static_cast<T>(1 - momentum);
  for_each(n, [&](std::int64_t i, auto extent) ADAFACTOR_INLINE_LAMBDA {
    const auto average = decay * load<T>(before + i, extent) + gain * load<T>(p + i, extent);
    store(after + i, average, extent);
    if (leaf.overwrites) store(p + i, average, extent);
  });
}

}  // namespace adafactor::inline ADAFACTOR_ABI

#include "adafactor/exact_end.hpp"
