// Sixteen numbers at a time, on every CPU: one AVX-512 register, two of AVX, four of SSE or NEON, or plain numbers. A
// sum always has sixteen partial sums, folded in one fixed order, so its bits do not depend on how wide the registers
// are.
#pragma once

#include <concepts>
#include <cstdint>
#include <cstring>

#include "adafactor/exact_begin.hpp"
#include "adafactor/group.hpp"
#include "adafactor/half_group.hpp"

namespace adafactor::inline ADAFACTOR_ABI {

inline constexpr int kLanes = 16;

namespace detail {

template <class T>
struct SameAs {
  using type = T;
};

}  // namespace detail

// T, but a template does not find out T from it.
template <class T>
using Same = typename detail::SameAs<T>::type;

// Sixteen numbers. Arithmetic is by element.
template <class T>
struct Lanes {
  detail::Group<T, kLanes> group;
};

template <class T>
ADAFACTOR_INLINE Lanes<T> operator+(const Lanes<T>& a, const Lanes<T>& b) {
  return {detail::combine<detail::Sum>(a.group, b.group)};
}
template <class T>
ADAFACTOR_INLINE Lanes<T> operator-(const Lanes<T>& a, const Lanes<T>& b) {
  return {detail::combine<detail::Difference>(a.group, b.group)};
}
template <class T>
ADAFACTOR_INLINE Lanes<T> operator*(const Lanes<T>& a, const Lanes<T>& b) {
  return {detail::combine<detail::Product>(a.group, b.group)};
}
template <class T>
ADAFACTOR_INLINE Lanes<T> operator/(const Lanes<T>& a, const Lanes<T>& b) {
  return {detail::combine<detail::Quotient>(a.group, b.group)};
}
template <class T>
ADAFACTOR_INLINE Lanes<T> smaller(const Lanes<T>& a, const Lanes<T>& b) {
  return {detail::combine<detail::Smaller>(a.group, b.group)};
}
template <class T>
ADAFACTOR_INLINE Lanes<T> larger(const Lanes<T>& a, const Lanes<T>& b) {
  return {detail::combine<detail::Larger>(a.group, b.group)};
}
template <class T>
ADAFACTOR_INLINE Lanes<T> where_nonzero(const Lanes<T>& a, const Lanes<T>& condition) {
  return {detail::combine<detail::WhereNonzero>(a.group, condition.group)};
}
template <class T>
ADAFACTOR_INLINE Lanes<T> select_less(const Lanes<T>& a, const Lanes<T>& b, const Lanes<T>& c, const Lanes<T>& d) {
  return {detail::select_less_group(a.group, b.group, c.group, d.group)};
}
template <class T>
ADAFACTOR_INLINE Lanes<T> square_root(const Lanes<T>& a) {
  return {detail::sqrt_group(a.group)};
}
ADAFACTOR_INLINE float square_root(float a) { return detail::sqrt_one(a); }
ADAFACTOR_INLINE double square_root(double a) { return detail::sqrt_one(a); }
template <class T>
ADAFACTOR_INLINE Lanes<double> widen(const Lanes<T>& a) {
  T stored[kLanes];
  detail::store_group(stored, a.group);
  return {detail::load_group<double, kLanes>(stored)};
}
template <class T>
ADAFACTOR_INLINE Lanes<T> fill(T x) {
  return {detail::fill_group<T, kLanes>(x)};
}

// A number beside lanes stands for sixteen of it.
template <class T>
ADAFACTOR_INLINE Lanes<T> operator+(const Lanes<T>& a, Same<T> b) {
  return a + fill(b);
}
template <class T>
ADAFACTOR_INLINE Lanes<T> operator*(const Lanes<T>& a, Same<T> b) {
  return a * fill(b);
}
template <class T>
ADAFACTOR_INLINE Lanes<T> operator*(Same<T> a, const Lanes<T>& b) {
  return fill(a) * b;
}
template <class T>
ADAFACTOR_INLINE Lanes<T> operator/(Same<T> a, const Lanes<T>& b) {
  return fill(a) / b;
}
template <class T>
ADAFACTOR_INLINE Lanes<T> operator/(const Lanes<T>& a, Same<T> b) {
  return a / fill(b);
}
template <class T>
ADAFACTOR_INLINE Lanes<T> smaller(const Lanes<T>& a, Same<T> b) {
  return smaller(a, fill(b));
}
template <class T>
ADAFACTOR_INLINE Lanes<T> larger(const Lanes<T>& a, Same<T> b) {
  return larger(a, fill(b));
}
template <class T>
ADAFACTOR_INLINE Lanes<T> select_less(Same<T> a, const Lanes<T>& b, const Lanes<T>& c, const Lanes<T>& d) {
  return select_less(fill(a), b, c, d);
}

// The same functions of single numbers, so that a loop's body serves sixteen and one.
template <std::floating_point T>
ADAFACTOR_INLINE T smaller(T a, T b) {
  return detail::Smaller::of(a, b);
}
template <std::floating_point T>
ADAFACTOR_INLINE T larger(T a, T b) {
  return detail::Larger::of(a, b);
}
template <std::floating_point T>
ADAFACTOR_INLINE T where_nonzero(T a, T condition) {
  return detail::WhereNonzero::of(a, condition);
}
template <std::floating_point T>
ADAFACTOR_INLINE T select_less(T a, T b, T c, T d) {
  return a < b ? c : d;
}

// How many of sixteen elements are there: all, one alone, or the first few at the end of a run, where the others read
// as zero.
struct Full {};
struct One {};
struct Part {
  int count;
};

// Loads and stores go through memcpy, since nothing promises that an array is aligned. Numbers of 16 bits become floats
// where they are loaded, and are rounded to nearest where they are stored.
template <class T, class S>
ADAFACTOR_INLINE Lanes<T> load(const S* from, Full) {
  if constexpr (!detail::kIsHalf<S>) {
    return {detail::load_group<T, kLanes>(from)};
  } else {
    const Lanes<float> lanes{detail::load_half_group<S, kLanes>(from)};
    if constexpr (sizeof(T) == sizeof(float)) {
      return lanes;
    } else {
      return widen(lanes);
    }
  }
}
template <class T, class S>
ADAFACTOR_INLINE T load(const S* from, One) {
  S one;
  std::memcpy(&one, from, sizeof one);
  if constexpr (detail::kIsHalf<S>) {
    return static_cast<T>(to_float(one));
  } else {
    return static_cast<T>(one);
  }
}
template <class T, class S>
ADAFACTOR_INLINE Lanes<T> load(const S* from, Part part) {
  S whole[kLanes] = {};
  for (int i = 0; i < part.count; ++i) std::memcpy(whole + i, from + i, sizeof(S));
  return load<T>(whole, Full{});
}
template <class S, class T>
ADAFACTOR_INLINE void store(S* to, const Lanes<T>& lanes, Full) {
  if constexpr (detail::kIsHalf<S>) {
    detail::store_half_group(to, lanes.group);
  } else {
    detail::store_group(to, lanes.group);
  }
}
template <class S, class T>
ADAFACTOR_INLINE void store(S* to, T x, One) {
  if constexpr (detail::kIsHalf<S>) {
    const S one = to_half<S>(x);
    std::memcpy(to, &one, sizeof one);
  } else {
    const S one = static_cast<S>(x);
    std::memcpy(to, &one, sizeof one);
  }
}
template <class S, class T>
ADAFACTOR_INLINE void store(S* to, const Lanes<T>& lanes, Part part) {
  S whole[kLanes];
  store(whole, lanes, Full{});
  for (int i = 0; i < part.count; ++i) std::memcpy(to + i, whole + i, sizeof(S));
}

// The sum of the sixteen, in double, as a tree of 8, 4, 2, 1: lane i with lane i + 8, then i + 4, and so on.
template <class T>
ADAFACTOR_INLINE double fold(const Lanes<T>& lanes) {
  T stored[kLanes];
  store(stored, lanes, Full{});
  using Four = detail::Group<double, 4>;
  const Four first = detail::load_group<double, 4>(stored);
  const Four second = detail::load_group<double, 4>(stored + 4);
  const Four third = detail::load_group<double, 4>(stored + 8);
  const Four fourth = detail::load_group<double, 4>(stored + 12);
  const Four four = detail::combine<detail::Sum>(detail::combine<detail::Sum>(first, third),
                                                 detail::combine<detail::Sum>(second, fourth));
  double last[4];
  detail::store_group(last, four);
  return (last[0] + last[2]) + (last[1] + last[3]);
}

// The same sum of fewer than sixteen lanes, the others being zero: what would add a zero is left out.
ADAFACTOR_INLINE double fold_few(double* lanes, int count) {
  for (int half = kLanes / 2; half >= 1; half /= 2) {
    for (int i = half; i < count; ++i) lanes[i - half] += lanes[i];
    if (count > half) count = half;
  }
  return lanes[0];
}

// Reads sixteen numbers, each `apart` after the last.
template <class T>
ADAFACTOR_INLINE Lanes<T> load_apart(const T* from, std::int64_t apart) {
  return {detail::load_group_apart<T, kLanes>(from, apart)};
}

// to[lane][k] = from[k][lane], for `lanes` runs of n numbers that follow each other.
template <class T>
ADAFACTOR_INLINE void gather_from_lanes(const T* from, int n, int lanes, T* to) {
  for (int lane = 0; lane < lanes; ++lane) {
    for (int k = 0; k < n; ++k) std::memcpy(to++, from + k * kLanes + lane, sizeof(T));
  }
}

// What fold_few does, of sixteen sums at once: `count` vectors have a number of each. Overwrites them.
ADAFACTOR_INLINE Lanes<double> fold_vectors(double* vectors, int count) {
  if (count <= 4) {  // the same in registers
    Lanes<double> even = load<double>(vectors, Full{});
    if (count == 1) return even;
    Lanes<double> odd = load<double>(vectors + kLanes, Full{});
    if (count > 2) even = even + load<double>(vectors + 2 * kLanes, Full{});
    if (count > 3) odd = odd + load<double>(vectors + 3 * kLanes, Full{});
    return even + odd;
  }
  for (int half = kLanes / 2; half >= 1; half /= 2) {
    for (int i = half; i < count; ++i) {
      double* sum = vectors + (i - half) * kLanes;
      store(sum, load<double>(sum, Full{}) + load<double>(vectors + i * kLanes, Full{}), Full{});
    }
    if (count > half) count = half;
  }
  return load<double>(vectors, Full{});
}

// Calls body(i, extent) for i = 0, 16, 32, ... below n; extent is Full, or Part at the end. For sums.
template <class Body>
ADAFACTOR_INLINE void for_lanes(std::int64_t n, const Body& body) {
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) body(i, Full{});
  if (i < n) body(i, Part{static_cast<int>(n - i)});
}

// Calls body(i, extent) for i = 0, 16, 32, ... below n with Full, and for each of the rest with One. For what is done
// element by element.
template <class Body>
ADAFACTOR_INLINE void for_each(std::int64_t n, const Body& body) {
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) body(i, Full{});
  for (; i < n; ++i) {
    ADAFACTOR_STAY_SCALAR;
    body(i, One{});
  }
}

}  // namespace adafactor::inline ADAFACTOR_ABI

#include "adafactor/exact_end.hpp"
