// Sixteen numbers at a time, on every CPU: one AVX-512 register, two of AVX, four of SSE or NEON, or plain numbers. A
// sum always has sixteen partial sums, folded in one fixed order, so its bits do not depend on how wide the registers
// are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#include "adafactor/lanes/formats.hpp"
#include "adafactor/lanes/numbers.hpp"
#include "adafactor/order.hpp"

#include "adafactor/compiler/exact_begin.hpp"

namespace adafactor { inline namespace ADAFACTOR_LOOPS {

// Whether no run is longer than a block of columns.
inline constexpr bool kRunsAreBlocks = false;

namespace loop_detail {

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

// n numbers that are stored as S, as one group of T, and back.
template <class T, int n, class S>
ADAFACTOR_INLINE typename Register<T, n>::type read_converted(const S* from) {
  typename Register<S, n>::type stored;
  std::memcpy(&stored, from, sizeof stored);
  return convert_register<T, n, S>(stored);
}
template <class S, class T, int n>
ADAFACTOR_INLINE void write_converted(S* to, const Group<T, n>& group) {
  const auto stored = __builtin_convertvector(group.value, typename Register<S, n>::type);
  std::memcpy(to, &stored, sizeof stored);
}
#else
template <class T, int, class S>
ADAFACTOR_INLINE T read_converted(const S* from) {
  return static_cast<T>(*from);
}
template <class S, class T, int n>
ADAFACTOR_INLINE void write_converted(S* to, const Group<T, n>& group) {
  *to = static_cast<S>(group.value);
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
  } else {
    group.value = read_converted<T, n>(from);
  }
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
  } else {
    write_converted(to, group);
  }
}

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

// Copies fewer than sixteen elements, by as few copies as there are bits in their number.
template <class S>
ADAFACTOR_INLINE void copy_few(S* to, const S* from, int count) {
  int done = 0;
  const auto copy = [&](int n) ADAFACTOR_INLINE_LAMBDA {
    if (!(count & n)) return;
    std::memcpy(to + done, from + done, static_cast<std::size_t>(n) * sizeof(S));
    done += n;
  };
  copy(8);
  copy(4);
  copy(2);
  copy(1);
}

}  // namespace loop_detail

// The same numbers in double.
template <class T, int n>
ADAFACTOR_INLINE Lanes<double, n> widen(const Lanes<T, n>& a) {
  T stored[std::size_t{n}];
  loop_detail::store_group(stored, a.group);
  return {loop_detail::load_group<double, n>(stored)};
}

// Reads so many elements that are stored as S, and writes so many.
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
// Of fewer, as a run ends with: once a run, and in every loop it would take the compiler as long as the loop.
template <class T, class S>
ADAFACTOR_OWN_FRAME Lanes<T> load(const S* from, Part part) {
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
ADAFACTOR_OWN_FRAME void store(S* to, const Lanes<T>& lanes, Part part) {
  S whole[kLanes];
  store(whole, lanes, Full{});
  loop_detail::copy_few(to, whole, part.count);
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

// Calls body(i, amount) for i = 0, 16, 32, ... below n; the amount is Full, or Part at the end. Sums are made so.
template <class Body>
ADAFACTOR_INLINE void for_lanes(std::int64_t n, const Body& body) {
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) body(i, Full{});
  if (i < n) body(i, Part{static_cast<int>(n - i)});
}

// Calls use(i, amount, read(i, amount)) in this way; a GPU has to know the source that is read.
template <class Source, class Read, class Use>
ADAFACTOR_INLINE void for_lanes(std::int64_t n, const Read& read, const Use& use) {
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) use(i, Full{}, read(i, Full{}));
  const Part rest{static_cast<int>(n - i)};
  if (i < n) use(i, rest, read(i, rest));
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
// Calls use(i, amount, read(i, amount)) in this way; a GPU has to know the source that is read.
template <class Source, class Read, class Use>
ADAFACTOR_INLINE void for_each(std::int64_t n, const Read& read, const Use& use) {
  for_each(n, [&](std::int64_t i, auto amount) ADAFACTOR_INLINE_LAMBDA { use(i, amount, read(i, amount)); });
}

}}  // namespace adafactor::ADAFACTOR_LOOPS

#include "adafactor/compiler/exact_end.hpp"
