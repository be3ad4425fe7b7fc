// The loops of every phase, as this file's flags compile them: what a table of kernels is made of.
#pragma once

#include "adafactor/exactness.hpp"
#include "adafactor/kernel_table.hpp"
#include "adafactor/phases/apply.hpp"
#include "adafactor/phases/factors.hpp"
#include "adafactor/phases/moments.hpp"
#include "adafactor/phases/rms.hpp"

namespace adafactor::inline ADAFACTOR_LOOPS {

// The functions of the phases for T, as the including file's flags compile them.
template <class T>
constexpr Kernels make_kernels() {
  return {moments_of_tile<T>, means_of_tile<T>, new_moments_of_tile<T>,
          rms_of_tile<T>,     apply_to_tile<T>, accumulate_tile<T>};
}

// The same of both arithmetics, under the name of an instruction set.
constexpr KernelTable make_kernel_table(const char* isa) {
  return {isa, make_kernels<float>(), make_kernels<double>(), loops_compute_as_written};
}

}  // namespace adafactor::inline ADAFACTOR_LOOPS

#if ADAFACTOR_DEFINES_LOOPS

#include "adafactor/kernel_check.hpp"

#define ADAFACTOR_STRING(text) #text
#define ADAFACTOR_EXPAND_STRING(text) ADAFACTOR_STRING(text)

namespace adafactor::inline ADAFACTOR_ABI {

ADAFACTOR_FUNCTION const KernelTable& compiled_kernels() {
  static constexpr KernelTable table = make_kernel_table(ADAFACTOR_EXPAND_STRING(ADAFACTOR_ISA_TAG));
  static const KernelTable& checked = checked_kernels(table);
  return checked;
}

}  // namespace adafactor::inline ADAFACTOR_ABI
#endif
