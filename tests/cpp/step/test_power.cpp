// t^decay against numbers worked out to sixty digits, against the long double of the C library, and against itself.
#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "adafactor/step/power.hpp"
#include "support/check.hpp"

namespace {

using adafactor::whole_number_power;

struct Known {
  std::int64_t base;
  double exponent;
  double power;
};

// Correctly rounded: computed in decimal with sixty digits from the exact binary exponent.
void known_powers_are_correctly_rounded() {
  const std::vector<Known> known{
      {2, -0.8, 0x1.2611186bae674p-1},          {3, -0.8, 0x1.a935a16704c72p-2},
      {10, -0.8, 0x1.44960c576b375p-3},         {1000, -0.8, 0x1.04e74cc73ee86p-8},
      {123456789, -0.8, 0x1.6926750f33fbap-22}, {2, -0.5, 0x1.6a09e667f3bcdp-1},
      {7, -0.65, 0x1.210f0f0d8c71fp-2},         {9007199254740992, -0.8, 0x1.8406003b2ae51p-43},
      {3, -2.0, 0x1.c71c71c71c71cp-4},          {1000000000000037, -0.8, 0x1.19799812de977p-40},
      {5, -0.001, 0x1.ff2d37a8d94a5p-1},        {10, -290.0, 0x1.8f2b061aea072p-964},
  };
  for (const auto& [base, exponent, power] : known) CHECK_EQ(whole_number_power(base, exponent), power);
}

void exact_powers_are_exact() {
  CHECK_EQ(whole_number_power(4, -0.5), 0.5);
  CHECK_EQ(whole_number_power(9, -0.5), 1.0 / 3);
  CHECK_EQ(whole_number_power(1000000, -0.5), 0.001);
  CHECK_EQ(whole_number_power(3, -1), 1.0 / 3);
  for (int k = 1; k <= 53; ++k) {
    CHECK_EQ(whole_number_power(std::int64_t{1} << k, -1), std::ldexp(1.0, -k));
    CHECK_EQ(whole_number_power(std::int64_t{1} << k, -2), std::ldexp(1.0, -2 * k));
  }
  for (const double exponent : {0.0, -0.8, -1.0, -300.0}) CHECK_EQ(whole_number_power(1, exponent), 1.0);
  for (const std::int64_t base : {2, 3, 1000}) CHECK_EQ(whole_number_power(base, 0), 1.0);
}

void what_is_too_small_is_zero() {
  CHECK_EQ(whole_number_power(10, -300), 0.0);
  CHECK_EQ(whole_number_power(2, -1e300), 0.0);
  CHECK_EQ(whole_number_power(2, -1000), 0.0);
  CHECK(whole_number_power(2, -990) > 0);
}

void it_falls_with_the_base() {
  double last = 1;
  for (std::int64_t t = 2; t < 3000; ++t) {
    const double power = whole_number_power(t, -0.8);
    CHECK(power < last && power > 0);
    last = power;
  }
}

// The library's own error is below a unit of 64 bits, a two-thousandth of a unit of 53.
void it_agrees_with_long_double() {
#if LDBL_MANT_DIG >= 64
  double worst = 0;
  for (const double exponent : {-0.8, -0.5, -0.65, -1.0, -0.999, -0.1, -1e-3, -1e-9, -2.5, -10.0}) {
    for (std::int64_t t = 2; t < (std::int64_t{1} << 53); t = t * 9 / 8 + 1) {
      const double found = whole_number_power(t, exponent);
      const long double expected = std::pow(static_cast<long double>(t), static_cast<long double>(exponent));
      if (expected < 1e-290L) continue;
      const double unit = std::nextafter(found, 2.0) - found;
      worst = std::max(worst, static_cast<double>(std::fabs(expected - static_cast<long double>(found))) / unit);
    }
  }
  CHECK(worst < 0.502);
#else
  CHECK(true);
#endif
}

}  // namespace

int main() {
  known_powers_are_correctly_rounded();
  exact_powers_are_exact();
  what_is_too_small_is_zero();
  it_falls_with_the_base();
  it_agrees_with_long_double();
  return check::report();
}
