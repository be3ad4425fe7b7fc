// The storage types of arrays, and how one element of each is read and written. The loops compute in float or double;
// everything else is converted here, at the edge of a run.
#pragma once

#include <cstdint>
#include <cstring>

#include "adafactor/abi.hpp"

namespace adafactor::inline ADAFACTOR_ABI {

// How numbers are stored. Parameters and gradients are float32 or float64; bfloat16 is for the momentum of a state.
enum class DType : std::uint8_t { float32, float64, bfloat16 };

// Bytes of one element.
constexpr std::int64_t item_size(DType dtype) {
  switch (dtype) {
    case DType::float64:
      return 8;
    case DType::float32:
      return 4;
    case DType::bfloat16:
      return 2;
  }
  return 0;
}

// The type as NumPy calls it.
constexpr const char* name(DType dtype) {
  switch (dtype) {
    case DType::float64:
      return "float64";
    case DType::float32:
      return "float32";
    case DType::bfloat16:
      return "bfloat16";
  }
  return "unknown";
}

// The difference between 1 and the next number: what `epsilon_1 = None` stands for.
constexpr double machine_epsilon(DType dtype) {
  switch (dtype) {
    case DType::float64:
      return 0x1p-52;
    case DType::float32:
      return 0x1p-23;
    case DType::bfloat16:
      return 0x1p-7;
  }
  return 0;
}

// The upper half of a float32.
struct Bfloat16 {
  std::uint16_t bits;
};

// Exact: every bfloat16 is a float32.
inline float to_float(Bfloat16 value) {
  const std::uint32_t bits = static_cast<std::uint32_t>(value.bits) << 16;
  float result;
  std::memcpy(&result, &bits, sizeof result);
  return result;
}

// Rounds to nearest, ties to even, by integers alone: the same bits on every CPU. A NaN stays one, quiet.
inline Bfloat16 to_bfloat16(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  if ((bits & 0x7fffffffU) > 0x7f800000U) return {static_cast<std::uint16_t>((bits >> 16) | 0x40U)};
  return {static_cast<std::uint16_t>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16)};
}

}  // namespace adafactor::inline ADAFACTOR_ABI
