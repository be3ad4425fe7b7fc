// Groups of numbers, from one register down to its halves or plain numbers: what the sixteen lanes are made of. Every
// operation is by element.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>

#include "adafactor/compiler/abi.hpp"

#if defined(__AVX__)
#include <immintrin.h>
#elif defined(__SSE2__)
#include <emmintrin.h>
#elif defined(__ARM_NEON) && defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "adafactor/compiler/exact_begin.hpp"

namespace adafactor { inline namespace ADAFACTOR_LOOPS {

#if !defined(__GNUC__) || defined(ADAFACTOR_PLAIN_LANES)
#define ADAFACTOR_NATIVE_LANES 0
#else
#define ADAFACTOR_NATIVE_LANES 1
#endif

// How wide a register of this file's instruction set is; 0 where the compiler has no vectors.
inline constexpr int kRegisterBytes =
#if !ADAFACTOR_NATIVE_LANES
    0;
#elif defined(__AVX512F__)
    64;
#elif defined(__AVX__)
    32;
#else
    16;
#endif

namespace loop_detail {

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

#if ADAFACTOR_NATIVE_LANES
// n numbers of S as numbers of T. GCC makes two or three instructions of what the CPUs have one for, where T is wider.
template <class T, int n, class S>
ADAFACTOR_INLINE typename Register<T, n>::type convert_register(const typename Register<S, n>::type& from) {
  using To = typename Register<T, n>::type;
#if defined(__AVX512F__)
  if constexpr (sizeof(T) > sizeof(S) && n == 8)
    return reinterpret_cast<To>(_mm512_maskz_cvtps_pd(0xff, reinterpret_cast<__m256>(from)));
#endif
#if defined(__AVX__)
  if constexpr (sizeof(T) > sizeof(S) && n == 4)
    return reinterpret_cast<To>(_mm256_cvtps_pd(reinterpret_cast<__m128>(from)));
#endif
#if defined(__SSE2__)
  if constexpr (sizeof(T) > sizeof(S) && n == 2) {
    return reinterpret_cast<To>(_mm_cvtps_pd(_mm_castpd_ps(_mm_set_sd(__builtin_bit_cast(double, from)))));
  }
#endif
  return __builtin_convertvector(from, To);
}
#endif

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
    group.value = convert_register<T, n, S>(stored);
  }
#else
  } else {
    group.value = static_cast<T>(*from);
  }
#endif
  return group;
}

// The numbers number(first), number(first + 1), ..., asked for in this order. Built in one expression: number by
// number, GCC would build them in memory, and wait for its stores.
template <class T, int n, class Number>
ADAFACTOR_INLINE Group<T, n> group_of(const Number& number, int first = 0) {
  Group<T, n> group;
  if constexpr (n > kNativeWidth<T>) {
    group.low = group_of<T, n / 2>(number, first);
    group.high = group_of<T, n / 2>(number, first + n / 2);
  } else {
    group.value = [&]<int... i>(std::integer_sequence<int, i...>) ADAFACTOR_INLINE_LAMBDA {
      return decltype(group.value){number(first + i)...};
    }(std::make_integer_sequence<int, n>{});
  }
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
    // With a mask of all: GCC's header warns of what the function without one leaves undefined.
  } else if constexpr (sizeof(T) == 4 && n == 16) {
    result.value =
        reinterpret_cast<decltype(result.value)>(_mm512_maskz_sqrt_ps(0xffff, reinterpret_cast<__m512>(a.value)));
  } else if constexpr (sizeof(T) == 8 && n == 8) {
    result.value =
        reinterpret_cast<decltype(result.value)>(_mm512_maskz_sqrt_pd(0xff, reinterpret_cast<__m512d>(a.value)));
#endif
#if defined(__AVX__)
  } else if constexpr (sizeof(T) == 4 && n == 8) {
    result.value = reinterpret_cast<decltype(result.value)>(_mm256_sqrt_ps(reinterpret_cast<__m256>(a.value)));
  } else if constexpr (sizeof(T) == 8 && n == 4) {
    result.value = reinterpret_cast<decltype(result.value)>(_mm256_sqrt_pd(reinterpret_cast<__m256d>(a.value)));
#endif
#if defined(__SSE2__)
  } else if constexpr (sizeof(T) == 4 && n == 4) {
    result.value = reinterpret_cast<decltype(result.value)>(_mm_sqrt_ps(reinterpret_cast<__m128>(a.value)));
  } else if constexpr (sizeof(T) == 8 && n == 2) {
    result.value = reinterpret_cast<decltype(result.value)>(_mm_sqrt_pd(reinterpret_cast<__m128d>(a.value)));
#elif defined(__ARM_NEON) && defined(__aarch64__)
  } else if constexpr (sizeof(T) == 4 && n == 4) {
    result.value = reinterpret_cast<decltype(result.value)>(vsqrtq_f32(reinterpret_cast<float32x4_t>(a.value)));
  } else if constexpr (sizeof(T) == 8 && n == 2) {
    result.value = reinterpret_cast<decltype(result.value)>(vsqrtq_f64(reinterpret_cast<float64x2_t>(a.value)));
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

}  // namespace loop_detail

}}  // namespace adafactor::ADAFACTOR_LOOPS

#include "adafactor/compiler/exact_end.hpp"
