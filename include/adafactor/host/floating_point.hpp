// The floating-point environment that the loops run in: whoever changed it elsewhere in the process changes no bit.
#pragma once

#include <cstdint>

#include "adafactor/compiler/abi.hpp"

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

namespace adafactor { inline namespace ADAFACTOR_ABI { namespace detail {

// Another library may have switched denormals off, or rounding to another mode, in any thread: bits would change. The
// loops run in the default environment, and the thread gets its own back.
class DefaultFloatingPoint {
 public:
#if defined(__SSE2__)
  DefaultFloatingPoint() : before_(_mm_getcsr()) { _mm_setcsr(0x1f80); }
  ~DefaultFloatingPoint() { _mm_setcsr(before_); }
#elif defined(__aarch64__) && defined(__GNUC__)
  DefaultFloatingPoint() {
    asm volatile("mrs %0, fpcr" : "=r"(before_));
    asm volatile("msr fpcr, %0" : : "r"(std::uint64_t{0}));
  }
  ~DefaultFloatingPoint() { asm volatile("msr fpcr, %0" : : "r"(before_)); }
#else
  DefaultFloatingPoint() = default;
#endif
  DefaultFloatingPoint(const DefaultFloatingPoint&) = delete;
  DefaultFloatingPoint& operator=(const DefaultFloatingPoint&) = delete;

 private:
#if defined(__SSE2__)
  unsigned before_;
#elif defined(__aarch64__) && defined(__GNUC__)
  std::uint64_t before_;
#endif
};

}}}  // namespace adafactor::ADAFACTOR_ABI::detail
