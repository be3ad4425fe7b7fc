// A loop over a team of threads, by which the tests see that all of them come and each does its part.
#pragma once

#include <atomic>
#include <cstdint>

#include "adafactor/cpu/threads/threads.hpp"

// Calls body(i) for i in [first, last), each once, handed out one at a time to a team of `threads` threads; the caller
// alone does what is one call, and everything where there is no team. The body must not throw. Returns how many threads
// there were.
template <class Body>
int parallel_for(std::int64_t first, std::int64_t last, int threads, const Body& body) {
  if (first >= last) return 0;
  std::atomic<std::int64_t> next{first};
  return adafactor::on_team(last - first > 1 ? threads : 1, [&](int) {
    for (std::int64_t i = next++; i < last; i = next++) body(i);
  });
}
