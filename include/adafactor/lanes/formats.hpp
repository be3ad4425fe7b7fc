// The formats that are narrower than a float, and how their numbers become floats and back. By integers, so that every
// CPU has the same bits; each function is written once, for one number (U is std::uint32_t, F is float) and for a
// register of them. What a CPU's own instructions do is the same.
#pragma once

#include <cstdint>
#include <cstring>

#include "adafactor/compiler/abi.hpp"
#include "adafactor/dtype.hpp"
#include "adafactor/lanes/group.hpp"

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
inline float to_float(S element) {
  return loop_detail::bits_as<float>(loop_detail::Format<S>::template widen<float>(std::uint32_t{element.bits}));
}

// The nearest element, ties to even; a NaN stays one, quiet.
template <Formatted S>
inline S round_to(float value) {
  const std::uint32_t bits = loop_detail::Format<S>::template narrow<float>(loop_detail::bits_as<std::uint32_t>(value));
  return {static_cast<loop_detail::BitsOf<S>>(bits)};
}

// One of the two neighbours of a number between them, the nearer one the more often; `noise` is 16 random bits.
template <Formatted S>
inline S round_to(float value, std::uint16_t noise) {
  const std::uint32_t bits =
      loop_detail::Format<S>::template narrow<float>(loop_detail::bits_as<std::uint32_t>(value), std::uint32_t{noise});
  return {static_cast<loop_detail::BitsOf<S>>(bits)};
}

// Groups of numbers from and to arrays in a format.
namespace loop_detail {

#if ADAFACTOR_NATIVE_LANES
template <int n>
using Words = typename Register<std::uint32_t, n>::type;

// GCC makes four instructions of the conversion where the CPU has one.
template <int n, class B>
ADAFACTOR_INLINE Words<n> widen_words(const typename Register<B, n>::type& stored) {
#if defined(__AVX512F__)
  if constexpr (sizeof(B) == 2 && n == 16)
    return reinterpret_cast<Words<n>>(_mm512_maskz_cvtepu16_epi32(0xffff, reinterpret_cast<__m256i>(stored)));
#endif
#if defined(__AVX2__)
  if constexpr (sizeof(B) == 2 && n == 8)
    return reinterpret_cast<Words<n>>(_mm256_cvtepu16_epi32(reinterpret_cast<__m128i>(stored)));
#endif
  return __builtin_convertvector(stored, Words<n>);
}

template <int n, class B>
ADAFACTOR_INLINE typename Register<B, n>::type narrow_words(const Words<n>& words) {
  using To = typename Register<B, n>::type;
#if defined(__AVX512F__)
  if constexpr (sizeof(B) == 2 && n == 16)
    return reinterpret_cast<To>(_mm512_maskz_cvtepi32_epi16(0xffff, reinterpret_cast<__m512i>(words)));
#endif
  return __builtin_convertvector(words, To);
}
#endif

// n whole numbers of B, each in a word.
template <int n, class B>
ADAFACTOR_INLINE auto load_words(const void* from) {
#if ADAFACTOR_NATIVE_LANES
  typename Register<B, n>::type stored;
  std::memcpy(&stored, from, sizeof stored);
  return widen_words<n, B>(stored);
#else
  B stored;
  std::memcpy(&stored, from, sizeof stored);
  return std::uint32_t{stored};
#endif
}

template <int n, class B, class W>
ADAFACTOR_INLINE void store_words(void* to, const W& words) {
#if ADAFACTOR_NATIVE_LANES
  const typename Register<B, n>::type stored = narrow_words<n, B>(words);
#else
  const auto stored = static_cast<B>(words);
#endif
  std::memcpy(to, &stored, sizeof stored);
}

template <Formatted S, int n>
ADAFACTOR_INLINE Group<float, n> load_format_group(const S* from) {
  Group<float, n> group;
  if constexpr (n > kNativeWidth<float>) {
    group.low = load_format_group<S, n / 2>(from);
    group.high = load_format_group<S, n / 2>(from + n / 2);
  } else {
    using F = decltype(group.value);
    group.value = bits_as<F>(Format<S>::template widen<F>(load_words<n, BitsOf<S>>(from)));
  }
  return group;
}

template <Formatted S, int n>
ADAFACTOR_INLINE void store_format_group(S* to, const Group<float, n>& group) {
  if constexpr (n > kNativeWidth<float>) {
    store_format_group(to, group.low);
    store_format_group(to + n / 2, group.high);
  } else {
    using F = decltype(group.value);
    using W = decltype(load_words<n, BitsOf<S>>(to));
    store_words<n, BitsOf<S>>(to, Format<S>::template narrow<F>(bits_as<W>(group.value)));
  }
}

// Stores a group rounded by noise.
template <Formatted S, int n>
ADAFACTOR_INLINE void store_format_group(S* to, const Group<float, n>& group, const std::uint16_t* noise) {
  if constexpr (n > kNativeWidth<float>) {
    store_format_group(to, group.low, noise);
    store_format_group(to + n / 2, group.high, noise + n / 2);
  } else {
    using F = decltype(group.value);
    using W = decltype(load_words<n, BitsOf<S>>(to));
    store_words<n, BitsOf<S>>(
        to, Format<S>::template narrow<F>(bits_as<W>(group.value), load_words<n, std::uint16_t>(noise)));
  }
}

// float16 by the CPU's own conversions, where it has them: the same bits.
#if ADAFACTOR_NATIVE_LANES && defined(__AVX512F__)
template <>
ADAFACTOR_INLINE Group<float, 16> load_format_group<Float16, 16>(const Float16* from) {
  __m256i stored;
  std::memcpy(&stored, from, sizeof stored);
  Group<float, 16> group;
  group.value = reinterpret_cast<decltype(group.value)>(_mm512_maskz_cvtph_ps(0xffff, stored));
  return group;
}
template <>
ADAFACTOR_INLINE void store_format_group<Float16, 16>(Float16* to, const Group<float, 16>& group) {
  const __m256i stored =
      _mm512_maskz_cvtps_ph(0xffff, reinterpret_cast<__m512>(group.value), _MM_FROUND_TO_NEAREST_INT);
  std::memcpy(to, &stored, sizeof stored);
}
#elif ADAFACTOR_NATIVE_LANES && defined(__F16C__)
template <>
ADAFACTOR_INLINE Group<float, 8> load_format_group<Float16, 8>(const Float16* from) {
  __m128i stored;
  std::memcpy(&stored, from, sizeof stored);
  Group<float, 8> group;
  group.value = reinterpret_cast<decltype(group.value)>(_mm256_cvtph_ps(stored));
  return group;
}
template <>
ADAFACTOR_INLINE void store_format_group<Float16, 8>(Float16* to, const Group<float, 8>& group) {
  const __m128i stored = _mm256_cvtps_ph(reinterpret_cast<__m256>(group.value), _MM_FROUND_TO_NEAREST_INT);
  std::memcpy(to, &stored, sizeof stored);
}
#elif ADAFACTOR_NATIVE_LANES && defined(__ARM_NEON) && defined(__aarch64__)
template <>
ADAFACTOR_INLINE Group<float, 4> load_format_group<Float16, 4>(const Float16* from) {
  float16x4_t stored;
  std::memcpy(&stored, from, sizeof stored);
  Group<float, 4> group;
  group.value = reinterpret_cast<decltype(group.value)>(vcvt_f32_f16(stored));
  return group;
}
template <>
ADAFACTOR_INLINE void store_format_group<Float16, 4>(Float16* to, const Group<float, 4>& group) {
  const float16x4_t stored = vcvt_f16_f32(reinterpret_cast<float32x4_t>(group.value));
  std::memcpy(to, &stored, sizeof stored);
}
#endif

}  // namespace loop_detail

}}  // namespace adafactor::ADAFACTOR_LOOPS

#include "adafactor/compiler/exact_end.hpp"
