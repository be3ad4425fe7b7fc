// The storage types of arrays. The loops compute in float (of the formats of 16 bits too) or double.
#pragma once

#include <cstdint>

#include "adafactor/compiler/abi.hpp"

namespace adafactor { inline namespace ADAFACTOR_DATA {

// The upper half of a float32: 8 bits of exponent, 7 of fraction.
struct Bfloat16 {
  std::uint16_t bits;
};

// IEEE's half precision: 5 bits of exponent, 10 of fraction; the largest number is 65504.
struct Float16 {
  std::uint16_t bits;
};

// How numbers are stored.
enum class DType : std::uint8_t { float32, float64, bfloat16, float16 };

// All of them.
inline constexpr DType kDTypes[] = {DType::float32, DType::float64, DType::bfloat16, DType::float16};

// Bytes of one element.
ADAFACTOR_ALWAYS_INLINE constexpr std::int64_t item_size(DType dtype) {
  switch (dtype) {
    case DType::float64:
      return 8;
    case DType::float32:
      return 4;
    case DType::bfloat16:
    case DType::float16:
      return 2;
  }
  return 0;
}

// The type as NumPy calls it.
ADAFACTOR_ALWAYS_INLINE constexpr const char* name(DType dtype) {
  switch (dtype) {
    case DType::float64:
      return "float64";
    case DType::float32:
      return "float32";
    case DType::bfloat16:
      return "bfloat16";
    case DType::float16:
      return "float16";
  }
  return "unknown";
}

// What a leaf of parameters stored so is computed in, and its state kept in but for small momentum.
ADAFACTOR_ALWAYS_INLINE constexpr DType arithmetic_of(DType dtype) {
  return dtype == DType::float64 ? DType::float64 : DType::float32;
}

// Whether a leaf of parameters of one type takes gradients of another: what is computed in float32 goes together in any
// pairing.
ADAFACTOR_ALWAYS_INLINE constexpr bool takes_gradient(DType parameter, DType gradient) {
  return arithmetic_of(parameter) == arithmetic_of(gradient);
}

// The types of those gradients, for a message.
ADAFACTOR_ALWAYS_INLINE constexpr const char* gradients_of(DType parameter) {
  return parameter == DType::float64 ? "float64" : "float32, bfloat16 or float16";
}

// The difference between 1 and the next number: what `epsilon_1 = None` stands for.
ADAFACTOR_ALWAYS_INLINE constexpr double machine_epsilon(DType dtype) {
  switch (dtype) {
    case DType::float64:
      return 0x1p-52;
    case DType::float32:
      return 0x1p-23;
    case DType::bfloat16:
      return 0x1p-7;
    case DType::float16:
      return 0x1p-10;
  }
  return 0;
}

}}  // namespace adafactor::ADAFACTOR_DATA
