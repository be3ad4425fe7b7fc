// Sixteen numbers at a time, on every CPU: one AVX-512 register, two of AVX, four of SSE or NEON, or plain numbers. A
// sum always has sixteen partial sums, folded in one fixed order, so its bits do not depend on how wide the registers
// are.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "adafactor/lanes/formats.hpp"
#include "adafactor/lanes/group.hpp"
#include "adafactor/lanes/run.hpp"
#include "adafactor/order.hpp"

#include "adafactor/compiler/exact_begin.hpp"

namespace adafactor { inline namespace ADAFACTOR_LOOPS {

namespace loop_detail {

template <class T>
struct SameAs {
  using type = T;
};

}  // namespace loop_detail

// T, but a template does not find out T from it.
template <class T>
using Same = typename loop_detail::SameAs<T>::type;

// Sixteen numbers, or eight or four where there are no more. Arithmetic is by element.
template <class T, int n = kLanes>
struct Lanes {
  loop_detail::Group<T, n> group;
};

template <class T, int n>
ADAFACTOR_INLINE Lanes<T, n> operator+(const Lanes<T, n>& a, const Lanes<T, n>& b) {
  return {loop_detail::combine<loop_detail::Sum>(a.group, b.group)};
}
template <class T, int n>
ADAFACTOR_INLINE Lanes<T, n> operator-(const Lanes<T, n>& a, const Lanes<T, n>& b) {
  return {loop_detail::combine<loop_detail::Difference>(a.group, b.group)};
}
template <class T, int n>
ADAFACTOR_INLINE Lanes<T, n> operator*(const Lanes<T, n>& a, const Lanes<T, n>& b) {
  return {loop_detail::combine<loop_detail::Product>(a.group, b.group)};
}
template <class T, int n>
ADAFACTOR_INLINE Lanes<T, n> operator/(const Lanes<T, n>& a, const Lanes<T, n>& b) {
  return {loop_detail::combine<loop_detail::Quotient>(a.group, b.group)};
}
template <class T, int n>
ADAFACTOR_INLINE Lanes<T, n> smaller(const Lanes<T, n>& a, const Lanes<T, n>& b) {
  return {loop_detail::combine<loop_detail::Smaller>(a.group, b.group)};
}
template <class T, int n>
ADAFACTOR_INLINE Lanes<T, n> larger(const Lanes<T, n>& a, const Lanes<T, n>& b) {
  return {loop_detail::combine<loop_detail::Larger>(a.group, b.group)};
}
template <class T, int n>
ADAFACTOR_INLINE Lanes<T, n> where_nonzero(const Lanes<T, n>& a, const Lanes<T, n>& condition) {
  return {loop_detail::combine<loop_detail::WhereNonzero>(a.group, condition.group)};
}
template <class T, int n>
ADAFACTOR_INLINE Lanes<T, n> select_less(const Lanes<T, n>& a, const Lanes<T, n>& b, const Lanes<T, n>& c,
                                         const Lanes<T, n>& d) {
  return {loop_detail::select_less_group(a.group, b.group, c.group, d.group)};
}
template <class T, int n>
ADAFACTOR_INLINE Lanes<T, n> square_root(const Lanes<T, n>& a) {
  return {loop_detail::sqrt_group(a.group)};
}
ADAFACTOR_INLINE float square_root(float a) { return loop_detail::sqrt_one(a); }
ADAFACTOR_INLINE double square_root(double a) { return loop_detail::sqrt_one(a); }
template <class T, int n>
ADAFACTOR_INLINE Lanes<double, n> widen(const Lanes<T, n>& a) {
  T stored[std::size_t{n}];
  loop_detail::store_group(stored, a.group);
  return {loop_detail::load_group<double, n>(stored)};
}
template <class T, int n = kLanes>
ADAFACTOR_INLINE Lanes<T, n> fill(T x) {
  return {loop_detail::fill_group<T, n>(x)};
}

// A number beside lanes stands for as many of it.
template <class T, int n>
ADAFACTOR_INLINE Lanes<T, n> operator+(const Lanes<T, n>& a, Same<T> b) {
  return a + fill<T, n>(b);
}
template <class T, int n>
ADAFACTOR_INLINE Lanes<T, n> operator*(const Lanes<T, n>& a, Same<T> b) {
  return a * fill<T, n>(b);
}
template <class T, int n>
ADAFACTOR_INLINE Lanes<T, n> operator*(Same<T> a, const Lanes<T, n>& b) {
  return fill<T, n>(a) * b;
}
template <class T, int n>
ADAFACTOR_INLINE Lanes<T, n> operator/(Same<T> a, const Lanes<T, n>& b) {
  return fill<T, n>(a) / b;
}
template <class T, int n>
ADAFACTOR_INLINE Lanes<T, n> operator/(const Lanes<T, n>& a, Same<T> b) {
  return a / fill<T, n>(b);
}
template <class T, int n>
ADAFACTOR_INLINE Lanes<T, n> smaller(const Lanes<T, n>& a, Same<T> b) {
  return smaller(a, fill<T, n>(b));
}
template <class T, int n>
ADAFACTOR_INLINE Lanes<T, n> larger(const Lanes<T, n>& a, Same<T> b) {
  return larger(a, fill<T, n>(b));
}
template <class T, int n>
ADAFACTOR_INLINE Lanes<T, n> select_less(Same<T> a, const Lanes<T, n>& b, const Lanes<T, n>& c, const Lanes<T, n>& d) {
  return select_less(fill<T, n>(a), b, c, d);
}

// These functions exist of single numbers too, so that a loop's body serves lanes and one.
template <std::floating_point T>
ADAFACTOR_INLINE T smaller(T a, T b) {
  return loop_detail::Smaller::of(a, b);
}
template <std::floating_point T>
ADAFACTOR_INLINE T larger(T a, T b) {
  return loop_detail::Larger::of(a, b);
}
template <std::floating_point T>
ADAFACTOR_INLINE T where_nonzero(T a, T condition) {
  return loop_detail::WhereNonzero::of(a, condition);
}
template <std::floating_point T>
ADAFACTOR_INLINE T select_less(T a, T b, T c, T d) {
  return a < b ? c : d;
}

// How many elements there are: sixteen, fewer, one alone, or the first few of sixteen at the end of a run, where the
// others read as zero.
template <int n>
struct Exactly {};
using Full = Exactly<kLanes>;
struct One {};
struct Part {
  int count;
};

namespace loop_detail {

// Copies fewer than sixteen elements, by as few copies as there are bits in their number.
template <class S>
ADAFACTOR_INLINE void copy_few(S* to, const S* from, int count) {
  int done = 0;
  const auto copy = [&](auto n) ADAFACTOR_INLINE_LAMBDA {
    if (!(count & n)) return;
    std::memcpy(to + done, from + done, n * sizeof(S));
    done += n;
  };
  copy(std::integral_constant<int, 8>{});
  copy(std::integral_constant<int, 4>{});
  copy(std::integral_constant<int, 2>{});
  copy(std::integral_constant<int, 1>{});
}

}  // namespace loop_detail

// Loads and stores go through memcpy, since nothing promises that an array is aligned. Numbers of a narrower format
// become floats where they are loaded, and are rounded to nearest where they are stored.
template <class T, class S, int n>
ADAFACTOR_INLINE Lanes<T, n> load(const S* from, Exactly<n>) {
  if constexpr (!Formatted<S>) {
    return {loop_detail::load_group<T, n>(from)};
  } else {
    const Lanes<float, n> lanes{loop_detail::load_format_group<S, n>(from)};
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
  if constexpr (Formatted<S>) {
    return static_cast<T>(to_float(one));
  } else {
    return static_cast<T>(one);
  }
}
template <class T, class S>
ADAFACTOR_INLINE Lanes<T> load(const S* from, Part part) {
  S whole[kLanes] = {};
  loop_detail::copy_few(whole, from, part.count);
  return load<T>(whole, Full{});
}
template <class S, class T, int n>
ADAFACTOR_INLINE void store(S* to, const Lanes<T, n>& lanes, Exactly<n>) {
  if constexpr (Formatted<S>) {
    loop_detail::store_format_group(to, lanes.group);
  } else {
    loop_detail::store_group(to, lanes.group);
  }
}
template <class S, class T>
ADAFACTOR_INLINE void store(S* to, T x, One) {
  if constexpr (Formatted<S>) {
    const S one = round_to<S>(x);
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
  loop_detail::copy_few(to, whole, part.count);
}

// The elements of a run from the i-th on, as numbers of T.
template <class T, class S, class Amount>
ADAFACTOR_INLINE auto load(const Run<S>& run, std::int64_t i, Amount amount) {
  return load<T>(run.at + i, amount);
}

// The sum of all lanes, in double, as a tree of 8, 4, 2, 1: lane i with lane i + 8, then i + 4, and so on. That of
// fewer lanes is the same as if the others were zero, unless all are negative zeros.
template <class T, int n>
ADAFACTOR_INLINE double fold(const Lanes<T, n>& lanes) {
  constexpr Exactly<4> quarter;
  T stored[std::size_t{n}];
  store(stored, lanes, Exactly<n>{});
  Lanes<double, 4> four = load<double>(stored, quarter);
  if constexpr (n >= 8) {
    Lanes<double, 4> second = load<double>(stored + 4, quarter);
    if constexpr (n == 16) {
      four = four + load<double>(stored + 8, quarter);
      second = second + load<double>(stored + 12, quarter);
    }
    four = four + second;
  }
  double last[4];
  store(last, four, quarter);
  return (last[0] + last[2]) + (last[1] + last[3]);
}

// Eight numbers as one, by an operation of which the order does not matter.
template <class Operation>
ADAFACTOR_INLINE double fold_by(const double* numbers) {
  constexpr Exactly<4> half;
  double four[4];
  const Lanes<double, 4> low = load<double>(numbers, half);
  store(four, Lanes<double, 4>{loop_detail::combine<Operation>(low.group, load<double>(numbers + 4, half).group)},
        half);
  return Operation::of(Operation::of(four[0], four[1]), Operation::of(four[2], four[3]));
}

// Reads sixteen numbers, each `apart` after the last.
template <class T>
ADAFACTOR_INLINE Lanes<T> load_apart(const T* from, std::int64_t apart) {
  return {loop_detail::group_of<T, kLanes>([&](int i) ADAFACTOR_INLINE_LAMBDA {
    T one;
    std::memcpy(&one, from + i * apart, sizeof one);
    return one;
  })};
}

// to[lane][k] = from[k][lane], for `lanes` runs of n numbers that follow each other.
template <class T>
ADAFACTOR_INLINE void gather_from_lanes(const T* from, int n, int lanes, T* to) {
  for (int lane = 0; lane < lanes; ++lane) {
    for (int k = 0; k < n; ++k) std::memcpy(to++, from + k * kLanes + lane, sizeof(T));
  }
}

// What fold() gives, of sixteen sums at once: `count` vectors have a number of each. Overwrites them.
ADAFACTOR_INLINE Lanes<double> fold_vectors(double* vectors, int count) {
  if (count <= 4) {  // so few are added up in registers
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

// Calls body(i, amount) for i = 0, 16, 32, ... below n; the amount is Full, or Part at the end. Sums are made so.
template <class Body>
ADAFACTOR_INLINE void for_lanes(std::int64_t n, const Body& body) {
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) body(i, Full{});
  if (i < n) body(i, Part{static_cast<int>(n - i)});
}

// Calls body(i, amount) for all of n elements, sixteen at a time, then eight where loops are compiled once, then one.
// It serves what is done element by element.
template <class Body>
ADAFACTOR_INLINE void for_each(std::int64_t n, const Body& body) {
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) body(i, Full{});
  if constexpr (ADAFACTOR_COMPILED_ONCE) {
    if (i + 8 <= n) {
      body(i, Exactly<8>{});
      i += 8;
    }
  }
  for (; i < n; ++i) {
    ADAFACTOR_STAY_SCALAR;
    body(i, One{});
  }
}

}}  // namespace adafactor::ADAFACTOR_LOOPS

#include "adafactor/compiler/exact_end.hpp"
