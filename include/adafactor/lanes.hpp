// Sixteen numbers at a time, on every CPU: one AVX-512 register, two of AVX, four of SSE or NEON, or plain numbers. A
// sum always has sixteen partial sums, folded in one fixed order, so its bits do not depend on how wide the registers
// are.
#pragma once

#include <cmath>
#include <concepts>
#include <cstdint>
#include <cstring>

#include "adafactor/abi.hpp"

#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__ARM_NEON) && defined(__aarch64__)
#include <arm_neon.h>
#endif

#if defined(__GNUC__)
#define ADAFACTOR_INLINE inline __attribute__((always_inline))
#define ADAFACTOR_INLINE_LAMBDA __attribute__((always_inline))
#else
#define ADAFACTOR_INLINE inline
#define ADAFACTOR_INLINE_LAMBDA
#endif

#include "adafactor/exact_begin.hpp"

namespace adafactor::inline ADAFACTOR_ABI {

inline constexpr int kLanes = 16;

#if !defined(__GNUC__) || defined(ADAFACTOR_PLAIN_LANES)
#define ADAFACTOR_NATIVE_LANES 0
inline constexpr int kRegisterBytes = 0;
#else
#define ADAFACTOR_NATIVE_LANES 1
#if defined(__AVX512F__)
inline constexpr int kRegisterBytes = 64;
#elif defined(__AVX__)
inline constexpr int kRegisterBytes = 32;
#else
inline constexpr int kRegisterBytes = 16;
#endif
#endif

namespace detail {

#if ADAFACTOR_NATIVE_LANES
template <class T, int n>
struct Register {
  typedef T type __attribute__((vector_size(n * sizeof(T))));
};
#endif

// The widest group of T that is one value for the compiler: a register, or a single number.
template <class T>
inline constexpr int kNativeWidth = kRegisterBytes == 0 ? 1 : kRegisterBytes / static_cast<int>(sizeof(T));

template <class T, int n, bool native = (n <= kNativeWidth<T>)>
struct Group;

// Halves with names, not an array of registers: compilers keep named members in registers and spill arrays.
template <class T, int n>
struct Group<T, n, false> {
  Group<T, n / 2> low, high;
};

template <class T, int n>
struct Group<T, n, true> {
#if ADAFACTOR_NATIVE_LANES
  typename Register<T, n>::type value;
#else
  T value;
#endif
};

// Reads n numbers stored as S.
template <class T, int n, class S>
ADAFACTOR_INLINE Group<T, n> load_group(const S* from) {
  Group<T, n> group;
  if constexpr (n > kNativeWidth<T>) {
    group.low = load_group<T, n / 2>(from);
    group.high = load_group<T, n / 2>(from + n / 2);
  } else if constexpr (sizeof(S) == sizeof(T)) {
    std::memcpy(&group.value, from, sizeof group.value);
#if ADAFACTOR_NATIVE_LANES
  } else {
    typename Register<S, n>::type stored;
    std::memcpy(&stored, from, sizeof stored);
    group.value = __builtin_convertvector(stored, typename Register<T, n>::type);
  }
#else
  } else {
    group.value = static_cast<T>(*from);
  }
#endif
  return group;
}

template <class S, class T, int n>
ADAFACTOR_INLINE void store_group(S* to, const Group<T, n>& group) {
  if constexpr (n > kNativeWidth<T>) {
    store_group<S>(to, group.low);
    store_group<S>(to + n / 2, group.high);
  } else if constexpr (sizeof(S) == sizeof(T)) {
    std::memcpy(to, &group.value, sizeof group.value);
#if ADAFACTOR_NATIVE_LANES
  } else {
    const auto stored = __builtin_convertvector(group.value, typename Register<S, n>::type);
    std::memcpy(to, &stored, sizeof stored);
  }
#else
  } else {
    *to = static_cast<S>(group.value);
  }
#endif
}

template <class T, int n>
ADAFACTOR_INLINE Group<T, n> fill_group(T x) {
  Group<T, n> group;
  if constexpr (n > kNativeWidth<T>) {
    group.low = group.high = fill_group<T, n / 2>(x);
  } else {
    group.value = x - decltype(group.value){};  // x - 0 is x to the bit, also for x = -0
  }
  return group;
}

template <class Operation, class T, int n>
ADAFACTOR_INLINE Group<T, n> combine(const Group<T, n>& a, const Group<T, n>& b) {
  Group<T, n> result;
  if constexpr (n > kNativeWidth<T>) {
    result.low = combine<Operation>(a.low, b.low);
    result.high = combine<Operation>(a.high, b.high);
  } else {
    result.value = Operation::of(a.value, b.value);
  }
  return result;
}

struct Sum {
  template <class V>
  static ADAFACTOR_INLINE V of(const V& a, const V& b) {
    return a + b;
  }
};
struct Difference {
  template <class V>
  static ADAFACTOR_INLINE V of(const V& a, const V& b) {
    return a - b;
  }
};
struct Product {
  template <class V>
  static ADAFACTOR_INLINE V of(const V& a, const V& b) {
    return a * b;
  }
};
struct Quotient {
  template <class V>
  static ADAFACTOR_INLINE V of(const V& a, const V& b) {
    return a / b;
  }
};
// Compare and select: the CPUs' own minimum and maximum differ in what they do to a NaN. These keep a NaN of `a`.
struct Smaller {
  template <class V>
  static ADAFACTOR_INLINE V of(const V& a, const V& b) {
    return b < a ? b : a;
  }
};
struct Larger {
  template <class V>
  static ADAFACTOR_INLINE V of(const V& a, const V& b) {
    return b > a ? b : a;
  }
};
// c where a < b, else d.
template <class T, int n>
ADAFACTOR_INLINE Group<T, n> select_less_group(const Group<T, n>& a, const Group<T, n>& b, const Group<T, n>& c,
                                               const Group<T, n>& d) {
  Group<T, n> result;
  if constexpr (n > kNativeWidth<T>) {
    result.low = select_less_group(a.low, b.low, c.low, d.low);
    result.high = select_less_group(a.high, b.high, c.high, d.high);
  } else {
    result.value = a.value < b.value ? c.value : d.value;
  }
  return result;
}

// a where b is not zero, and zero where it is.
struct WhereNonzero {
  template <class V>
  static ADAFACTOR_INLINE V of(const V& a, const V& b) {
    return b == V{} ? V{} : a;
  }
};

#if defined(__GNUC__)
ADAFACTOR_INLINE float sqrt_one(float x) { return __builtin_sqrtf(x); }
ADAFACTOR_INLINE double sqrt_one(double x) { return __builtin_sqrt(x); }
#else
inline float sqrt_one(float x) { return std::sqrt(x); }
inline double sqrt_one(double x) { return std::sqrt(x); }
#endif

// IEEE square roots, correctly rounded; the compilers' vectors have no operator for it.
template <class T, int n>
ADAFACTOR_INLINE Group<T, n> sqrt_group(const Group<T, n>& a) {
  Group<T, n> result;
  if constexpr (n > kNativeWidth<T>) {
    result.low = sqrt_group(a.low);
    result.high = sqrt_group(a.high);
#if ADAFACTOR_NATIVE_LANES
#if defined(__AVX512F__)
  } else if constexpr (sizeof(T) == 4 && n == 16) {
    result.value = (decltype(result.value))_mm512_sqrt_ps((__m512)a.value);
  } else if constexpr (sizeof(T) == 8 && n == 8) {
    result.value = (decltype(result.value))_mm512_sqrt_pd((__m512d)a.value);
#endif
#if defined(__AVX__)
  } else if constexpr (sizeof(T) == 4 && n == 8) {
    result.value = (decltype(result.value))_mm256_sqrt_ps((__m256)a.value);
  } else if constexpr (sizeof(T) == 8 && n == 4) {
    result.value = (decltype(result.value))_mm256_sqrt_pd((__m256d)a.value);
#endif
#if defined(__SSE2__)
  } else if constexpr (sizeof(T) == 4 && n == 4) {
    result.value = (decltype(result.value))_mm_sqrt_ps((__m128)a.value);
  } else if constexpr (sizeof(T) == 8 && n == 2) {
    result.value = (decltype(result.value))_mm_sqrt_pd((__m128d)a.value);
#elif defined(__ARM_NEON) && defined(__aarch64__)
  } else if constexpr (sizeof(T) == 4 && n == 4) {
    result.value = (decltype(result.value))vsqrtq_f32((float32x4_t)a.value);
  } else if constexpr (sizeof(T) == 8 && n == 2) {
    result.value = (decltype(result.value))vsqrtq_f64((float64x2_t)a.value);
#endif
  } else {
    for (int i = 0; i < n; ++i) result.value[i] = sqrt_one(a.value[i]);
#else
  } else {
    result.value = sqrt_one(a.value);
#endif
  }
  return result;
}

}  // namespace detail

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

// Loads and stores go through memcpy, since nothing promises that an array is aligned.
template <class T, class S>
ADAFACTOR_INLINE Lanes<T> load(const S* from, Full) {
  return {detail::load_group<T, kLanes>(from)};
}
template <class T, class S>
ADAFACTOR_INLINE T load(const S* from, One) {
  S one;
  std::memcpy(&one, from, sizeof one);
  return static_cast<T>(one);
}
template <class T, class S>
ADAFACTOR_INLINE Lanes<T> load(const S* from, Part part) {
  S whole[kLanes] = {};
  for (int i = 0; i < part.count; ++i) std::memcpy(whole + i, from + i, sizeof(S));
  return load<T>(whole, Full{});
}
template <class S, class T>
ADAFACTOR_INLINE void store(S* to, const Lanes<T>& lanes, Full) {
  detail::store_group(to, lanes.group);
}
template <class S, class T>
ADAFACTOR_INLINE void store(S* to, T x, One) {
  const S one = static_cast<S>(x);
  std::memcpy(to, &one, sizeof one);
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
  for (; i < n; ++i) body(i, One{});
}

}  // namespace adafactor::inline ADAFACTOR_ABI

#include "adafactor/exact_end.hpp"
