// The types of 16 bits as numbers: each has a format, and what it holds becomes a float and back.
#pragma once

#include <cstdint>

#include "adafactor/dtype.hpp"
#include "adafactor/lanes/formats.hpp"

#include "adafactor/compiler/exact_begin.hpp"

namespace adafactor { inline namespace ADAFACTOR_LOOPS {

namespace loop_detail {

template <>
struct Format<Bfloat16> : Bfloat16Format {};
template <>
struct Format<Float16> : Float16Format {};

template <class T>
inline constexpr bool kIsHalf = false;
template <>
inline constexpr bool kIsHalf<Bfloat16> = true;
template <>
inline constexpr bool kIsHalf<Float16> = true;

}  // namespace loop_detail

// The number that a half is; exact.
template <class Half>
  requires loop_detail::kIsHalf<Half>
inline float to_float(Half half) {
  return loop_detail::bits_as<float>(loop_detail::Format<Half>::template widen<float>(std::uint32_t{half.bits}));
}

// The nearest half, ties to even; a NaN stays one, quiet.
template <class Half>
  requires loop_detail::kIsHalf<Half>
inline Half to_half(float value) {
  const std::uint32_t bits =
      loop_detail::Format<Half>::template narrow<float>(loop_detail::bits_as<std::uint32_t>(value));
  return {static_cast<std::uint16_t>(bits)};
}
inline Bfloat16 to_bfloat16(float value) { return to_half<Bfloat16>(value); }

// One of the two neighbours of a number between them, the nearer one the more often; `noise` is 16 random bits.
template <class Half>
  requires loop_detail::kIsHalf<Half>
inline Half to_half(float value, std::uint16_t noise) {
  const std::uint32_t bits = loop_detail::Format<Half>::template narrow<float>(
      loop_detail::bits_as<std::uint32_t>(value), std::uint32_t{noise});
  return {static_cast<std::uint16_t>(bits)};
}

}}  // namespace adafactor::ADAFACTOR_LOOPS

#include "adafactor/compiler/exact_end.hpp"
