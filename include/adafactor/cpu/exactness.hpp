// Whether the compiler kept to the arithmetic that is written down. Flags that say otherwise are refused or switched
// off where a compiler tells of them (abi.hpp, exact_begin.hpp); this finds out about those of compilers that do not.
#pragma once

#include "adafactor/compiler/abi.hpp"

#include "adafactor/compiler/exact_begin.hpp"

namespace adafactor { inline namespace ADAFACTOR_LOOPS {

namespace loop_detail {

// How many of the whole numbers to 64 come back when they are divided and multiplied by one number. Compilers that
// would divide by multiplying do so where there are several to divide.
template <class T>
int come_back(T divisor) {
  int count = 0;
  for (int k = 1; k <= 64; k += 4) {
    const T numbers[] = {static_cast<T>(k), static_cast<T>(k + 1), static_cast<T>(k + 2), static_cast<T>(k + 3)};
    const T quotients[] = {numbers[0] / divisor, numbers[1] / divisor, numbers[2] / divisor, numbers[3] / divisor};
    for (int i = 0; i < 4; ++i) count += quotients[i] * divisor == numbers[i];
  }
  return count;
}

// `unit` is the distance from 1 to the next number. Nothing of it can be computed before the program runs. It calls no
// function of the standard library, of which the program may have a copy that other flags compiled.
template <class T>
bool computes_as_written(T unit, int expected_to_come_back) {
  volatile T one_at_run_time = 1;
  const T one = one_at_run_time;
  const T zero = one - one;
  const T next = one + unit;
  const T large = 4 / unit;
  const T minus_zero = -1 * zero;
  const T infinity = one / zero;
  const T nan = infinity * zero;
  const bool rounds_products = next * next - (one + 2 * unit) == 0;
  const bool adds_in_order = (large + one) - large == 0;
  const bool divides = come_back(107 * one) == expected_to_come_back;
  const bool keeps_signs = one / minus_zero < 0 && one / (minus_zero + T{0}) > 0;
  const bool knows_nan = nan != nan && !(nan - nan == 0) && !(infinity - infinity == 0);
  return rounds_products && adds_in_order && divides && keeps_signs && knows_nan;
}

}  // namespace loop_detail

// Whether the loops, whose flags this is compiled with, compute what their source says.
inline bool loops_compute_as_written() {
  return loop_detail::computes_as_written<float>(0x1p-23f, 50) && loop_detail::computes_as_written<double>(0x1p-52, 39);
}

}}  // namespace adafactor::ADAFACTOR_LOOPS

#include "adafactor/compiler/exact_end.hpp"
