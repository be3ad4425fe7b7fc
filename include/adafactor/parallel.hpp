// The only file that knows about threads. With OpenMP where the compiler has it on, serial otherwise; which thread does
// what never shows in a result.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "adafactor/abi.hpp"
#include "adafactor/floating_point.hpp"

#if defined(_OPENMP)
#include <omp.h>
#endif

namespace adafactor::inline ADAFACTOR_ABI {

// What the threads of this build are.
inline constexpr const char* kThreadsKind =
#if defined(_OPENMP)
    "openmp";
#else
    "serial";
#endif

// More threads than this help nobody and fail to start on small machines.
inline constexpr int kMostThreads = 1024;

namespace detail {

// The number that set_num_threads was given; 0 stands for what the threads' library says.
inline std::atomic<int>& chosen_threads() {
  static std::atomic<int> chosen{0};
  return chosen;
}

}  // namespace detail

// Threads that a step may use. 0 goes back to the default: OMP_NUM_THREADS, or the number of processors.
inline void set_num_threads(int n) { detail::chosen_threads().store(std::clamp(n, 0, kMostThreads)); }

// Asked at every step, so that whoever limits OpenMP from outside is obeyed.
inline int get_num_threads() {
  const int chosen = detail::chosen_threads().load();
  if (chosen > 0) return chosen;
#if defined(_OPENMP)
  return std::clamp(omp_get_max_threads(), 1, kMostThreads);
#else
  return 1;
#endif
}

// Calls body(i) for i in [first, last), each once, handed out one at a time to a team of `threads` threads; the caller
// alone does what is one call. The body must not throw. Returns how many threads there were.
template <class Body>
int parallel_for(std::int64_t first, std::int64_t last, [[maybe_unused]] int threads, const Body& body) {
#if defined(_OPENMP)
  if (threads > 1 && last - first > 1) {
    int used = 1;
    // Handed out here and not by an `omp for`, which would wait at its own end and then again at the region's.
    std::atomic<std::int64_t> next{first};
#pragma omp parallel num_threads(threads)
    {
      const detail::DefaultFloatingPoint environment;
      if (omp_get_thread_num() == 0) used = omp_get_num_threads();
      for (std::int64_t i = next++; i < last; i = next++) body(i);
    }
    return used;
  }
#endif
  const detail::DefaultFloatingPoint environment;
  for (std::int64_t i = first; i < last; ++i) body(i);
  return first < last ? 1 : 0;
}

}  // namespace adafactor::inline ADAFACTOR_ABI
