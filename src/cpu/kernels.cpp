// The loops for one instruction set. The build compiles this file once for each, with that instruction set's flags:
// ADAFACTOR_CPU_NAME is what people call it, ADAFACTOR_CPU_TABLE the one symbol that comes out.
//
// All else is in an anonymous namespace. An inline function or a template with external linkage that two of these
// objects hold is one symbol to the linker, which keeps either: a CPU would run instructions that it does not have, or
// lose those that it has. The standard headers come first, so that they stay outside; what they have is used only where
// it leaves no symbol behind.
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__ARM_NEON) && defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace {

#include "adafactor/kernel_table.hpp"

constexpr adafactor::KernelTable kTable = adafactor::make_kernel_table(ADAFACTOR_CPU_NAME);

}  // namespace

namespace adafactor::cpu {

extern const void* const ADAFACTOR_CPU_TABLE;
const void* const ADAFACTOR_CPU_TABLE = &kTable;

}  // namespace adafactor::cpu
