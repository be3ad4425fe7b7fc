// A run of elements that a loop reads once, from the first to the last, and how far ahead of it memory is asked for.
#pragma once

#include <cstddef>
#include <cstdint>

#include "adafactor/compiler/abi.hpp"

namespace adafactor { inline namespace ADAFACTOR_LOOPS {

// Whether each cache line of a stream is worth asking for before a loop comes to it: Intel's CPUs follow a stream to
// the end of its page and begin anew in the next one, which costs them up to a quarter of the time. AMD's lose a tenth
// by it.
ADAFACTOR_INLINE bool asks_for_lines() {
#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__)) && !ADAFACTOR_LANES_ARE_THREADS
  return __builtin_cpu_is("intel");
#else
  return false;
#endif
}

// How far ahead that is, in bytes; 0: nowhere.
ADAFACTOR_INLINE std::ptrdiff_t bytes_ahead() { return asks_for_lines() ? 2048 : 0; }

// Elements stored as S. From an element to the place that is asked for before it is read there are `ahead` bytes; 0:
// none is. Nothing has to lie there.
template <class S>
struct Run {
  const S* at;
  std::ptrdiff_t ahead = 0;

  ADAFACTOR_INLINE Run(const S* from, std::ptrdiff_t distance = 0) : at(from), ahead(distance) {}

  // What is left of it from an element on.
  ADAFACTOR_INLINE Run from(std::int64_t first) const { return {at + first, ahead}; }

  // Asks for what lies ahead of some elements, at most a block of them.
  ADAFACTOR_INLINE void ask(std::int64_t first, std::int64_t count) const {
    if (ahead == 0) return;
    asks_for_lines() ? ask_for_lines(first, count) : ask_for_page(first, count);
  }

  // Asks for each of their cache lines.
  ADAFACTOR_INLINE void ask_for_lines([[maybe_unused]] std::int64_t first, [[maybe_unused]] std::int64_t count) const {
#if defined(__GNUC__) && !ADAFACTOR_LANES_ARE_THREADS
    const std::uintptr_t end = place_of(first + count);
    for (std::uintptr_t line = place_of(first); line < end; line += 64) {
      __builtin_prefetch(reinterpret_cast<const void*>(line));
    }
#endif
  }

  // Asks for the page that begins among them, the only one, since no block is longer than a page.
  ADAFACTOR_INLINE void ask_for_page([[maybe_unused]] std::int64_t first, [[maybe_unused]] std::int64_t count) const {
#if defined(__GNUC__) && !ADAFACTOR_LANES_ARE_THREADS
    const std::uintptr_t page = (place_of(first + count) - 1) & ~std::uintptr_t{4095};
    if (page >= place_of(first)) __builtin_prefetch(reinterpret_cast<const void*>(page));
#endif
  }

 private:
  ADAFACTOR_INLINE std::uintptr_t place_of(std::int64_t element) const {
    return reinterpret_cast<std::uintptr_t>(at) + static_cast<std::uintptr_t>(ahead) +
           static_cast<std::uintptr_t>(element) * sizeof(S);
  }
};

// Asks for what lies ahead of some elements in whatever a function of lanes reads, if it says so.
template <class Function>
ADAFACTOR_INLINE void ask_for(const Function& function, std::int64_t first, std::int64_t count) {
  if constexpr (requires { function.ask(first, count); }) function.ask(first, count);
}

}}  // namespace adafactor::ADAFACTOR_LOOPS
