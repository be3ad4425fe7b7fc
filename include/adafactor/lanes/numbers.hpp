// Sixteen numbers at a time and what is computed with them, element by element: groups, from one register down to its
// halves or plain numbers, are what they are made of. The same functions exist of single numbers.
#pragma once

#include <cmath>
#include <concepts>
#include <cstddef>

#include "adafactor/compiler/abi.hpp"
#include "adafactor/order.hpp"

#if defined(__AVX__)
#include <immintrin.h>
#elif defined(__SSE2__)
#include <emmintrin.h>
#elif defined(__ARM_NEON) && defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "adafactor/compiler/exact_begin.hpp"

namespace adafactor { inline namespace ADAFACTOR_LOOPS {

#if !defined(__GNUC__) || defined(ADAFACTOR_PLAIN_LANES) || ADAFACTOR_LANES_ARE_THREADS
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

// The widest group of T that is one value for the compiler: a register, or a single number, which may be one in each of
// sixteen threads.
template <class T>
inline constexpr int kNativeWidth = ADAFACTOR_LANES_ARE_THREADS ? kLanes
                                    : kRegisterBytes == 0       ? 1
                                                                : kRegisterBytes / static_cast<int>(sizeof(T));

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

}}  // namespace adafactor::ADAFACTOR_LOOPS

#include "adafactor/compiler/exact_end.hpp"
