// The storage types: rounding to 16 bits against its definition, to nearest and by noise, and the tables.
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>

#include "adafactor/dtype.hpp"
#include "adafactor/lanes/formats.hpp"
#include "support/check.hpp"

namespace {

using adafactor::Bfloat16;
using adafactor::DType;
using adafactor::Float16;

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
      const Bfloat16 found = adafactor::round_to<adafactor::Bfloat16>(value);
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
    if (!std::isnan(wide) && adafactor::round_to<adafactor::Bfloat16>(wide).bits != bits) ++changed;
  }
  CHECK_EQ(changed, 0);
}

void single_values() {
  CHECK_EQ(adafactor::round_to<adafactor::Bfloat16>(1.0f).bits, 0x3f80);
  CHECK_EQ(adafactor::round_to<adafactor::Bfloat16>(-2.0f).bits, 0xc000);
  CHECK_EQ(adafactor::round_to<adafactor::Bfloat16>(-0.0f).bits, 0x8000);
  CHECK_EQ(adafactor::round_to<adafactor::Bfloat16>(std::numeric_limits<float>::infinity()).bits, 0x7f80);
  CHECK_EQ(adafactor::round_to<adafactor::Bfloat16>(std::numeric_limits<float>::max()).bits, 0x7f80);
  CHECK_EQ(adafactor::round_to<adafactor::Bfloat16>(std::numeric_limits<float>::denorm_min()).bits, 0);
}

// The value of a float16 by IEEE's definition; what would come after the largest finite one is 2^16, where Inf begins.
double value_of_float16(std::uint32_t bits) {
  const int exponent = static_cast<int>(bits >> 10 & 31);
  const auto fraction = static_cast<double>(bits & 1023);
  return exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
}

// Between any two neighbours: what is nearer to one, the middle, and what is nearer to the other.
void float16_is_rounded_to_nearest_even() {
  int wrong = 0;
  for (std::uint32_t below = 0; below < 0x7c00; ++below) {
    const double low = value_of_float16(below);
    const double high = value_of_float16(below + 1);
    const auto middle = static_cast<float>((low + high) / 2);
    const std::uint32_t even = below + (below & 1);
    const auto expect = [&](float value, std::uint32_t bits) {
      wrong += adafactor::round_to<adafactor::Float16>(value).bits != bits;
      wrong += adafactor::round_to<adafactor::Float16>(-value).bits != (bits | 0x8000);
    };
    expect(static_cast<float>(low), below);
    expect(std::nextafterf(middle, 0), below);
    expect(middle, even);
    expect(std::nextafterf(middle, 1e9f), below + 1);
  }
  CHECK_EQ(wrong, 0);
  CHECK_EQ(adafactor::round_to<adafactor::Float16>(1e9f).bits, 0x7c00);
  CHECK_EQ(adafactor::round_to<adafactor::Float16>(std::numeric_limits<float>::infinity()).bits, 0x7c00);
  CHECK_EQ(adafactor::round_to<adafactor::Float16>(std::bit_cast<float>(0x7f802000U)).bits, 0x7e01);
  CHECK_EQ(adafactor::round_to<adafactor::Float16>(std::bit_cast<float>(0xff800001U)).bits, 0xfe00);
}

void every_float16_is_a_float() {
  int wrong = 0;
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = adafactor::to_float(Float16{static_cast<std::uint16_t>(bits)});
    const std::uint32_t size = bits & 0x7fff;
    if (size > 0x7c00) {
      const std::uint32_t quiet = (bits & 0x8000) << 16 | 0x7fc00000 | (bits & 0x3ff) << 13;
      wrong += std::bit_cast<std::uint32_t>(value) != quiet;
      continue;
    }
    const double expected = size == 0x7c00 ? std::numeric_limits<double>::infinity() : value_of_float16(size);
    wrong += static_cast<double>(value) != (bits & 0x8000 ? -expected : expected);
    wrong += std::signbit(value) != ((bits & 0x8000) != 0);
    wrong += adafactor::round_to<adafactor::Float16>(value).bits != bits;
  }
  CHECK_EQ(wrong, 0);
}

// How often of all 65536 kinds of noise a number becomes `bits`.
template <class Half>
int count_of(float value, std::uint32_t bits) {
  int count = 0;
  for (std::uint32_t noise = 0; noise < 0x10000; ++noise) {
    count += adafactor::round_to<Half>(value, static_cast<std::uint16_t>(noise)).bits == bits;
  }
  return count;
}

void noise_rounds_up_as_often_as_the_rest_is_of_a_unit() {
  for (const std::uint32_t upper : {0x3f80U, 0x0000U, 0xc123U, 0x7f7eU}) {
    for (const std::uint32_t lower : {0x0000U, 0x0001U, 0x1234U, 0x8000U, 0xffffU}) {
      const auto value = std::bit_cast<float>(upper << 16 | lower);
      CHECK_EQ(count_of<Bfloat16>(value, upper + 1), static_cast<int>(lower));
      CHECK_EQ(count_of<Bfloat16>(value, upper), 0x10000 - static_cast<int>(lower));
    }
  }
  // From 1 on the unit of a float16 is 2^-10; 1 + 3/8 of it, then numbers below the normal ones, whose unit is 2^-24.
  CHECK_EQ(count_of<Float16>(1 + 0x3p-13f, 0x3c01), 0x6000);
  CHECK_EQ(count_of<Float16>(-1 - 0x3p-13f, 0xbc01), 0x6000);
  CHECK_EQ(count_of<Float16>(0x1.4p-22f, 5), 0x10000);
  CHECK_EQ(count_of<Float16>(0x1.6p-22f, 6), 0x8000);
  CHECK_EQ(count_of<Float16>(0x1p-26f, 1), 0x4000);
  CHECK_EQ(count_of<Float16>(-0x1p-26f, 0x8001), 0x4000);
  CHECK_EQ(count_of<Float16>(0x1p-40f, 1), 1);  // 2^-16 of a unit is the least; no noise loses it altogether
}

void noise_makes_no_finite_number_infinite() {
  CHECK_EQ(count_of<Bfloat16>(std::bit_cast<float>(0x7f7f7fffU), 0x7f80), 0);
  CHECK_EQ(count_of<Float16>(65519.0f, 0x7c00), 0);
  CHECK_EQ(count_of<Float16>(65519.0f, 0x7bff), 0x10000);
  const float infinity = std::numeric_limits<float>::infinity();
  CHECK_EQ(count_of<Bfloat16>(infinity, 0x7f80), 0x10000);
  CHECK_EQ(count_of<Float16>(-infinity, 0xfc00), 0x10000);
  CHECK_EQ(count_of<Float16>(1e9f, 0x7c00), 0x10000);
  CHECK_EQ(count_of<Bfloat16>(std::bit_cast<float>(0x7f800001U), 0x7fc0), 0x10000);
  CHECK_EQ(count_of<Float16>(std::bit_cast<float>(0x7f800001U), 0x7e00), 0x10000);
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
  const float one = adafactor::to_float(Bfloat16{0x3f80});
  CHECK_EQ(adafactor::machine_epsilon(DType::bfloat16),
           static_cast<double>(adafactor::to_float(Bfloat16{0x3f81}) - one));
  CHECK_EQ(adafactor::item_size(DType::float16), sizeof(Float16));
  CHECK_EQ(std::string(adafactor::name(DType::float16)), "float16");
  CHECK_EQ(adafactor::machine_epsilon(DType::float16),
           static_cast<double>(adafactor::to_float(Float16{0x3c01}) - adafactor::to_float(Float16{0x3c00})));
}

void which_gradients_go_with_which_parameters() {
  for (const DType parameter : adafactor::kDTypes) {
    for (const DType gradient : adafactor::kDTypes) {
      const bool both_double = parameter == DType::float64 && gradient == DType::float64;
      const bool neither = parameter != DType::float64 && gradient != DType::float64;
      CHECK_EQ(adafactor::takes_gradient(parameter, gradient), both_double || neither);
    }
  }
}

}  // namespace

int main() {
  rounding_is_to_nearest_even();
  what_has_16_bits_stays();
  single_values();
  float16_is_rounded_to_nearest_even();
  every_float16_is_a_float();
  noise_rounds_up_as_often_as_the_rest_is_of_a_unit();
  noise_makes_no_finite_number_infinite();
  the_tables();
  which_gradients_go_with_which_parameters();
  return check::report();
}
