// Groups of numbers from and to arrays of 16 bits.
#pragma once

#include <cstdint>
#include <cstring>

#include "adafactor/dtype.hpp"
#include "adafactor/lanes/formats.hpp"
#include "adafactor/lanes/group.hpp"

#include "adafactor/compiler/exact_begin.hpp"

namespace adafactor { inline namespace ADAFACTOR_LOOPS { namespace loop_detail {

#if ADAFACTOR_NATIVE_LANES
template <int n>
using Words = typename Register<std::uint32_t, n>::type;
template <int n>
using HalfWords = typename Register<std::uint16_t, n>::type;
#endif

#if ADAFACTOR_NATIVE_LANES
// GCC makes four instructions of the conversion where the CPU has one.
template <int n>
ADAFACTOR_INLINE Words<n> widen_words(const HalfWords<n>& stored) {
#if defined(__AVX512F__)
  if constexpr (n == 16)
    return reinterpret_cast<Words<n>>(_mm512_maskz_cvtepu16_epi32(0xffff, reinterpret_cast<__m256i>(stored)));
#endif
#if defined(__AVX2__)
  if constexpr (n == 8) return reinterpret_cast<Words<n>>(_mm256_cvtepu16_epi32(reinterpret_cast<__m128i>(stored)));
#endif
  return __builtin_convertvector(stored, Words<n>);
}

template <int n>
ADAFACTOR_INLINE HalfWords<n> narrow_words(const Words<n>& words) {
#if defined(__AVX512F__)
  if constexpr (n == 16)
    return reinterpret_cast<HalfWords<n>>(_mm512_maskz_cvtepi32_epi16(0xffff, reinterpret_cast<__m512i>(words)));
#endif
  return __builtin_convertvector(words, HalfWords<n>);
}
#endif

// n numbers of 16 bits, each in a word.
template <int n>
ADAFACTOR_INLINE auto load_words(const void* from) {
#if ADAFACTOR_NATIVE_LANES
  HalfWords<n> stored;
  std::memcpy(&stored, from, sizeof stored);
  return widen_words<n>(stored);
#else
  std::uint16_t stored;
  std::memcpy(&stored, from, sizeof stored);
  return std::uint32_t{stored};
#endif
}

template <int n, class W>
ADAFACTOR_INLINE void store_words(void* to, const W& words) {
#if ADAFACTOR_NATIVE_LANES
  const HalfWords<n> stored = narrow_words<n>(words);
#else
  const auto stored = static_cast<std::uint16_t>(words);
#endif
  std::memcpy(to, &stored, sizeof stored);
}

template <class Half, int n>
ADAFACTOR_INLINE Group<float, n> load_half_group(const Half* from) {
  Group<float, n> group;
  if constexpr (n > kNativeWidth<float>) {
    group.low = load_half_group<Half, n / 2>(from);
    group.high = load_half_group<Half, n / 2>(from + n / 2);
  } else {
    using F = decltype(group.value);
    group.value = bits_as<F>(Format<Half>::template widen<F>(load_words<n>(from)));
  }
  return group;
}

template <class Half, int n>
ADAFACTOR_INLINE void store_half_group(Half* to, const Group<float, n>& group) {
  if constexpr (n > kNativeWidth<float>) {
    store_half_group(to, group.low);
    store_half_group(to + n / 2, group.high);
  } else {
    using F = decltype(group.value);
    using W = decltype(load_words<n>(to));
    store_words<n>(to, Format<Half>::template narrow<F>(bits_as<W>(group.value)));
  }
}

// The same, rounded by noise.
template <class Half, int n>
ADAFACTOR_INLINE void store_half_group(Half* to, const Group<float, n>& group, const std::uint16_t* noise) {
  if constexpr (n > kNativeWidth<float>) {
    store_half_group(to, group.low, noise);
    store_half_group(to + n / 2, group.high, noise + n / 2);
  } else {
    using F = decltype(group.value);
    using W = decltype(load_words<n>(to));
    store_words<n>(to, Format<Half>::template narrow<F>(bits_as<W>(group.value), load_words<n>(noise)));
  }
}

// float16 by the CPU's own conversions, where it has them: the same bits.
#if ADAFACTOR_NATIVE_LANES && defined(__AVX512F__)
template <>
ADAFACTOR_INLINE Group<float, 16> load_half_group<Float16, 16>(const Float16* from) {
  __m256i stored;
  std::memcpy(&stored, from, sizeof stored);
  Group<float, 16> group;
  group.value = reinterpret_cast<decltype(group.value)>(_mm512_maskz_cvtph_ps(0xffff, stored));
  return group;
}
template <>
ADAFACTOR_INLINE void store_half_group<Float16, 16>(Float16* to, const Group<float, 16>& group) {
  const __m256i stored =
      _mm512_maskz_cvtps_ph(0xffff, reinterpret_cast<__m512>(group.value), _MM_FROUND_TO_NEAREST_INT);
  std::memcpy(to, &stored, sizeof stored);
}
#elif ADAFACTOR_NATIVE_LANES && defined(__F16C__)
template <>
ADAFACTOR_INLINE Group<float, 8> load_half_group<Float16, 8>(const Float16* from) {
  __m128i stored;
  std::memcpy(&stored, from, sizeof stored);
  Group<float, 8> group;
  group.value = reinterpret_cast<decltype(group.value)>(_mm256_cvtph_ps(stored));
  return group;
}
template <>
ADAFACTOR_INLINE void store_half_group<Float16, 8>(Float16* to, const Group<float, 8>& group) {
  const __m128i stored = _mm256_cvtps_ph(reinterpret_cast<__m256>(group.value), _MM_FROUND_TO_NEAREST_INT);
  std::memcpy(to, &stored, sizeof stored);
}
#elif ADAFACTOR_NATIVE_LANES && defined(__ARM_NEON) && defined(__aarch64__)
template <>
ADAFACTOR_INLINE Group<float, 4> load_half_group<Float16, 4>(const Float16* from) {
  float16x4_t stored;
  std::memcpy(&stored, from, sizeof stored);
  Group<float, 4> group;
  group.value = reinterpret_cast<decltype(group.value)>(vcvt_f32_f16(stored));
  return group;
}
template <>
ADAFACTOR_INLINE void store_half_group<Float16, 4>(Float16* to, const Group<float, 4>& group) {
  const float16x4_t stored = vcvt_f16_f32(reinterpret_cast<float32x4_t>(group.value));
  std::memcpy(to, &stored, sizeof stored);
}
#endif

}}}  // namespace adafactor::ADAFACTOR_LOOPS::loop_detail

#include "adafactor/compiler/exact_end.hpp"
