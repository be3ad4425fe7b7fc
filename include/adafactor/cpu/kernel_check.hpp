// What a program asks of its kernels before the first step: that their compiler kept to what is written.
#pragma once

#include "adafactor/cpu/kernels.hpp"
#include "adafactor/error.hpp"
#include "adafactor/host/floating_point.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI {

// The same kernels, unless they were compiled by flags, or a compiler, that change what sums, products and quotients
// are.
inline const KernelTable& checked_kernels(const KernelTable& kernels) {
  const detail::DefaultFloatingPoint environment;
  if (kernels.computes_as_written()) return kernels;
  throw Error(
      {.expected = "a compiler that keeps to IEEE 754 (adafactor promises the same bits everywhere, and finds NaN)",
       .found = "loops compiled with flags such as -ffast-math, or Clang's -ffp-contract=fast"});
}

}}  // namespace adafactor::ADAFACTOR_ABI
