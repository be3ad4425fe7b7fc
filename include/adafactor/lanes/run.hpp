// A run of elements that a loop reads once, from the first to the last, and how far ahead of it memory is asked for.
#pragma once

#include <cstddef>
#include <cstdint>

#include "adafactor/compiler/abi.hpp"

namespace adafactor { inline namespace ADAFACTOR_LOOPS {

// How far ahead, in bytes, a stream is asked for; 0 where the machine does better by itself. Intel's CPUs follow a
// stream to the end of its page and begin anew in the next one, which costs them up to a quarter of the time; AMD's do
// not, and would lose a tenth by being asked.
ADAFACTOR_INLINE std::ptrdiff_t bytes_ahead() {
#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))
  return __builtin_cpu_is("intel") ? 2048 : 0;
#else
  return 0;
#endif
}

// Elements stored as S. From an element to the one that is asked for before it is read there are `ahead` bytes; 0: none
// is. Nothing has to lie there.
template <class S>
struct Run {
  const S* at;
  std::ptrdiff_t ahead = 0;

  Run(const S* from, std::ptrdiff_t distance = 0) : at(from), ahead(distance) {}

  // Asks for what lies ahead of some elements, at most a block of them.
  ADAFACTOR_INLINE void ask([[maybe_unused]] std::int64_t first, [[maybe_unused]] std::int64_t count) const {
#if defined(__GNUC__)
    if (ahead == 0) return;
    constexpr std::int64_t line = 64 / static_cast<std::int64_t>(sizeof(S));
    const char* from = reinterpret_cast<const char*>(at + first) + ahead;
    for (std::int64_t i = 0; i < count; i += line) __builtin_prefetch(from + i * static_cast<std::int64_t>(sizeof(S)));
#endif
  }
};

}}  // namespace adafactor::ADAFACTOR_LOOPS
