// The formats that are narrower than a float, and how their numbers become floats and back. By integers, so that every
// CPU has the same bits; each function is written once, for one number (U is std::uint32_t, F is float) and for a
// register of them. And how one number alone is read and written.
#pragma once

#include <cstdint>
#include <cstring>

#include "adafactor/compiler/abi.hpp"
#include "adafactor/dtype.hpp"
#include "adafactor/order.hpp"

#include "adafactor/compiler/exact_begin.hpp"

namespace adafactor { inline namespace ADAFACTOR_LOOPS {
namespace loop_detail {

template <class To, class From>
ADAFACTOR_INLINE To bits_as(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

template <class V>
ADAFACTOR_INLINE V smaller_of(const V& a, const V& b) {
  return b < a ? b : a;
}

// What the format of an element does with bits. `widen` is exact. `narrow` rounds to nearest, ties to even, and keeps a
// NaN one, quiet; with noise (16 random bits) it rounds up with the probability that the part which is lost is of a
// unit, and a number that nearest keeps finite stays finite.
template <class S>
struct Format;

template <>
struct Format<Bfloat16> {
  template <class F, class U>
  static ADAFACTOR_INLINE U widen(const U& half) {
    return half << 16;
  }

  template <class F, class U>
  static ADAFACTOR_INLINE U narrow(const U& bits) {
    const U nearest = (bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16;
    const U nan = (bits >> 16) | 0x40U;
    const F number = bits_as<F>(bits);
    return number == number ? nearest : nan;
  }

  template <class F, class U>
  static ADAFACTOR_INLINE U narrow(const U& bits, const U& noise) {
    const U zero = bits & 0U;
    const U size = bits & 0x7fffffffU;
    const U sum = size + noise;
    const U limited = size < zero + 0x7f7f8000U ? smaller_of<U>(sum, zero + 0x7f7fffffU) : sum;
    const U rounded = (limited >> 16) | ((bits >> 16) & 0x8000U);
    return size < zero + 0x7f800000U ? rounded : narrow<F>(bits);
  }
};

template <>
struct Format<Float16> {
  template <class F, class U>
  static ADAFACTOR_INLINE U widen(const U& half) {
    const U zero = half & 0U;
    const U shifted = (half & 0x7fffU) << 13;
    // The product moves the exponent from one bias to the other, and denormals along.
    const U finite = bits_as<U>(bits_as<F>(shifted) * 0x1p112F);
    const U quiet = shifted > zero + 0x0f800000U ? zero + 0x7fc00000U : zero + 0x7f800000U;
    const U size = shifted < zero + 0x0f800000U ? finite : shifted | quiet;
    return size | ((half & 0x8000U) << 16);
  }

  template <class F, class U>
  static ADAFACTOR_INLINE U narrow(const U& bits) {
    const U size = bits & 0x7fffffffU;
    const U normal = (size - kBias + 0xfffU + ((size >> 13) & 1U)) >> 13;
    // The unit of the sum is that of a denormal half.
    const U denormal = bits_as<U>(bits_as<F>(size) + 0.5F) - 0x3f000000U;
    return put_together(bits, normal, denormal);
  }

  template <class F, class U>
  static ADAFACTOR_INLINE U narrow(const U& bits, const U& noise) {
    const U zero = bits & 0U;
    const U size = bits & 0x7fffffffU;
    const U sum = (size - kBias + (noise >> 3)) >> 13;
    const U normal = size < zero + 0x477ff000U ? smaller_of<U>(sum, zero + 0x7bffU) : sum;
    const U rounded = put_together(bits, normal, narrow_denormal<F>(size, noise));
    return size < zero + 0x7f800000U ? rounded : narrow<F>(bits);
  }

 private:
  static constexpr std::uint32_t kBias = 112U << 23;  // between the exponents of the two formats

  // The size in units of a denormal half, rounded by noise.
  template <class F, class U>
  static ADAFACTOR_INLINE U narrow_denormal(const U& size, const U& noise) {
    const U zero = size & 0U;
    const U kept = size < zero + 0x38800000U ? size : zero;
    const F units = bits_as<F>(kept) * 0x1p24F;
    const F nearest = (units + 0x1p23F) - 0x1p23F;
    const F below = nearest > units ? nearest - 1.0F : nearest;
    const F random = bits_as<F>(noise | 0x4b000000U) - 0x1p23F;
    const F rounded = random < (units - below) * 0x1p16F ? below + 1.0F : below;
    return bits_as<U>(rounded + 0x1p23F) - 0x4b000000U;
  }

  template <class U>
  static ADAFACTOR_INLINE U put_together(const U& bits, const U& normal, const U& denormal) {
    const U zero = bits & 0U;
    const U size = bits & 0x7fffffffU;
    const U nan = ((size >> 13) & 0x3ffU) | 0x7e00U;
    const U special = size > zero + 0x7f800000U ? nan : zero + 0x7c00U;
    const U number = size < zero + 0x38800000U ? denormal : normal;
    return (size < zero + 0x47800000U ? number : special) | ((bits >> 16) & 0x8000U);
  }
};

// The bits of an element in its format.
template <class S>
using BitsOf = decltype(S::bits);

}  // namespace loop_detail

// Whether an element has a format, and is not a number of C++ itself.
template <class S>
concept Formatted = requires(S element) { element.bits; };

// The number that an element is; exact.
template <Formatted S>
ADAFACTOR_DEVICE inline float to_float(S element) {
  return loop_detail::bits_as<float>(loop_detail::Format<S>::template widen<float>(std::uint32_t{element.bits}));
}

// The nearest element, ties to even; a NaN stays one, quiet.
template <Formatted S>
ADAFACTOR_DEVICE inline S round_to(float value) {
  const std::uint32_t bits = loop_detail::Format<S>::template narrow<float>(loop_detail::bits_as<std::uint32_t>(value));
  return {static_cast<loop_detail::BitsOf<S>>(bits)};
}

// One of the two neighbours of a number between them, the nearer one the more often; `noise` is 16 random bits.
template <Formatted S>
ADAFACTOR_DEVICE inline S round_to(float value, std::uint16_t noise) {
  const std::uint32_t bits =
      loop_detail::Format<S>::template narrow<float>(loop_detail::bits_as<std::uint32_t>(value), std::uint32_t{noise});
  return {static_cast<loop_detail::BitsOf<S>>(bits)};
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

// Loads and stores go through memcpy, since nothing promises that an array is aligned. Numbers of a narrower format
// become floats where they are loaded, and are rounded to nearest where they are stored.
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
template <class S, class T>
ADAFACTOR_INLINE void store(S* to, T x, One) {
  if constexpr (Formatted<S>) {
    const S one = round_to<S>(static_cast<float>(x));
    std::memcpy(to, &one, sizeof one);
  } else {
    const S one = static_cast<S>(x);
    std::memcpy(to, &one, sizeof one);
  }
}

}}  // namespace adafactor::ADAFACTOR_LOOPS

#include "adafactor/compiler/exact_end.hpp"
