// t^decay, the one transcendental number of a step, to the last bit the same on every machine: the C libraries' `pow`
// differ there. Computed as a sum of two doubles (about 100 bits) with IEEE additions and products alone.
#pragma once

#include <cmath>
#include <cstdint>

#include "adafactor/compiler/abi.hpp"

#include "adafactor/compiler/exact_begin.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI {

namespace detail {

// The number high + low, |low| at most half a unit in the last place of high.
struct DoubleDouble {
  double high;
  double low;
};

inline DoubleDouble quick_two_sum(double a, double b) {
  const double sum = a + b;
  return {sum, b - (sum - a)};
}

inline DoubleDouble two_sum(double a, double b) {
  const double sum = a + b;
  const double rest = sum - a;
  return {sum, (a - (sum - rest)) + (b - rest)};
}

// Veltkamp's split of a double into halves of 26 bits, so that the four partial products are exact.
inline DoubleDouble split(double a) {
  const double scaled = 134217729.0 * a;
  const double high = scaled - (scaled - a);
  return {high, a - high};
}

inline DoubleDouble two_product(double a, double b) {
  const double product = a * b;
  const DoubleDouble x = split(a);
  const DoubleDouble y = split(b);
  return {product, ((x.high * y.high - product) + x.high * y.low + x.low * y.high) + x.low * y.low};
}

inline DoubleDouble operator+(DoubleDouble a, DoubleDouble b) {
  const DoubleDouble high = two_sum(a.high, b.high);
  return quick_two_sum(high.high, high.low + (a.low + b.low));
}

// The sign is changed by products: Clang does not hold a change of sign to what it is told of sums (exact_begin.hpp).
inline DoubleDouble operator-(DoubleDouble a) { return {-1.0 * a.high, -1.0 * a.low}; }

inline DoubleDouble operator*(DoubleDouble a, DoubleDouble b) {
  const DoubleDouble high = two_product(a.high, b.high);
  return quick_two_sum(high.high, high.low + (a.high * b.low + a.low * b.high));
}

inline DoubleDouble operator/(DoubleDouble a, DoubleDouble b) {
  const double first = a.high / b.high;
  const DoubleDouble rest = a + -(b * DoubleDouble{first, 0});
  return quick_two_sum(first, rest.high / b.high);
}

inline constexpr DoubleDouble kLogOfTwo{0x1.62e42fefa39efp-1, 0x1.abc9e3b39803fp-56};

// e^x for |x| up to a few hundred: x = k log 2 + 256 r, the series for r, squared eight times.
inline DoubleDouble exp(DoubleDouble x) {
  const double k = std::floor(x.high / kLogOfTwo.high + 0.5);
  DoubleDouble r = x + -(kLogOfTwo * DoubleDouble{k, 0});
  r = {r.high / 256, r.low / 256};
  DoubleDouble term{1, 0};
  DoubleDouble sum{1, 0};
  for (int n = 1; n <= 10; ++n) {
    term = term * r / DoubleDouble{static_cast<double>(n), 0};
    sum = sum + term;
  }
  for (int n = 0; n < 8; ++n) sum = sum * sum;
  const int exponent = static_cast<int>(k);
  return {std::ldexp(sum.high, exponent), std::ldexp(sum.low, exponent)};
}

// log m for m in [0.7, 1.5], by the series of atanh in double and one step of Newton's method.
inline DoubleDouble log_near_one(double m) {
  const double s = (m - 1) / (m + 1);
  double series = 0;
  for (int n = 25; n >= 1; n -= 2) series = series * s * s + 1.0 / n;
  const DoubleDouble guess{2 * s * series, 0};
  return guess + (DoubleDouble{m, 0} * exp(-guess) + DoubleDouble{-1, 0});
}

}  // namespace detail

// base^exponent for a whole number base in [1, 2^53] and exponent <= 0; 0 where it is below 1e-300.
inline double whole_number_power(std::int64_t base, double exponent) {
  if (base == 1 || exponent == 0) return 1;
  int twos = 0;
  double m = std::frexp(static_cast<double>(base), &twos);
  if (m < 0.70710678118654752) {
    m *= 2;
    --twos;
  }
  using detail::DoubleDouble;
  const DoubleDouble log = detail::log_near_one(m) + detail::kLogOfTwo * DoubleDouble{static_cast<double>(twos), 0};
  if (exponent * log.high < -690) return 0;
  const DoubleDouble power = detail::exp(log * DoubleDouble{exponent, 0});
  return power.high + power.low;
}

}}  // namespace adafactor::ADAFACTOR_ABI

#include "adafactor/compiler/exact_end.hpp"
