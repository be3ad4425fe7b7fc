// The storage types: bfloat16's rounding against its definition for every upper half of a float, and the tables.
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>

#include "adafactor/dtype.hpp"
#include "check.hpp"

namespace {

using adafactor::Bfloat16;
using adafactor::DType;

// The value of 16 bits as a double; what would come after the largest finite one is 2^128, where Inf begins to round.
double value_of(std::uint32_t upper) {
  const double value = std::bit_cast<float>(upper << 16);
  return std::isinf(value) ? std::copysign(0x1p128, value) : value;
}

// To nearest, ties to even, by its definition: of the two neighbours the nearer one, or the even one.
std::uint16_t rounded(float value) {
  const std::uint32_t below = std::bit_cast<std::uint32_t>(value) >> 16;
  if (std::isinf(value)) return static_cast<std::uint16_t>(below);
  const double to_below = std::fabs(static_cast<double>(value) - value_of(below));
  const double to_above = std::fabs(value_of(below + 1) - static_cast<double>(value));
  const bool up = to_above < to_below || (to_above == to_below && (below & 1) != 0);
  return static_cast<std::uint16_t>(up ? below + 1 : below);
}

void rounding_is_to_nearest_even() {
  int wrong = 0;
  int nans = 0;
  for (std::uint32_t upper = 0; upper < 0x10000; ++upper) {
    for (const std::uint32_t lower : {0x0000U, 0x0001U, 0x4000U, 0x7fffU, 0x8000U, 0x8001U, 0xc000U, 0xffffU}) {
      const auto value = std::bit_cast<float>(upper << 16 | lower);
      const Bfloat16 found = adafactor::to_bfloat16(value);
      if (std::isnan(value)) {
        ++nans;
        const bool quiet = (found.bits & 0x7fc0) == 0x7fc0;
        if (!quiet || (found.bits & 0x8000) != (upper & 0x8000)) ++wrong;
      } else if (found.bits != rounded(value)) {
        ++wrong;
      }
    }
  }
  CHECK_EQ(wrong, 0);
  CHECK_EQ(nans, 2 * (127 * 8 + 7));  // of each sign: 127 uppers with a set bit, and Inf's with a lower one
}

void what_has_16_bits_stays() {
  int changed = 0;
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const Bfloat16 value{static_cast<std::uint16_t>(bits)};
    const float wide = adafactor::to_float(value);
    if (std::bit_cast<std::uint32_t>(wide) != bits << 16) ++changed;
    if (!std::isnan(wide) && adafactor::to_bfloat16(wide).bits != bits) ++changed;
  }
  CHECK_EQ(changed, 0);
}

void single_values() {
  CHECK_EQ(adafactor::to_bfloat16(1.0f).bits, 0x3f80);
  CHECK_EQ(adafactor::to_bfloat16(-2.0f).bits, 0xc000);
  CHECK_EQ(adafactor::to_bfloat16(-0.0f).bits, 0x8000);
  CHECK_EQ(adafactor::to_bfloat16(std::numeric_limits<float>::infinity()).bits, 0x7f80);
  CHECK_EQ(adafactor::to_bfloat16(std::numeric_limits<float>::max()).bits, 0x7f80);
  CHECK_EQ(adafactor::to_bfloat16(std::numeric_limits<float>::denorm_min()).bits, 0);
}

void the_tables() {
  CHECK_EQ(adafactor::item_size(DType::float32), sizeof(float));
  CHECK_EQ(adafactor::item_size(DType::float64), sizeof(double));
  CHECK_EQ(adafactor::item_size(DType::bfloat16), sizeof(Bfloat16));
  CHECK_EQ(std::string(adafactor::name(DType::float32)), "float32");
  CHECK_EQ(std::string(adafactor::name(DType::float64)), "float64");
  CHECK_EQ(std::string(adafactor::name(DType::bfloat16)), "bfloat16");
  CHECK_EQ(adafactor::machine_epsilon(DType::float32), static_cast<double>(std::numeric_limits<float>::epsilon()));
  CHECK_EQ(adafactor::machine_epsilon(DType::float64), std::numeric_limits<double>::epsilon());
  const float one = adafactor::to_float({0x3f80});
  const float next = adafactor::to_float({0x3f81});
  CHECK_EQ(adafactor::machine_epsilon(DType::bfloat16), static_cast<double>(next - one));
}

}  // namespace

int main() {
  rounding_is_to_nearest_even();
  what_has_16_bits_stays();
  single_values();
  the_tables();
  return check::report();
}
