// The only file that knows about threads. With OpenMP where the compiler has it on, serial otherwise; which thread does
// what never shows in a result.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "adafactor/abi.hpp"

#if defined(_OPENMP)
#include <omp.h>
#endif
#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace adafactor::inline ADAFACTOR_ABI {

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

// Calls body(i) for i in [first, last), each once, handed out one at a time to at most `threads` threads. The body must
// not throw. Returns how many threads there were.
template <class Body>
int parallel_for(std::int64_t first, std::int64_t last, int threads, const Body& body) {
  const int wanted = static_cast<int>(std::min<std::int64_t>(threads, last - first));
#if defined(_OPENMP)
  if (wanted > 1) {
    int used = 1;
#pragma omp parallel num_threads(wanted)
    {
      const detail::DefaultFloatingPoint environment;
#pragma omp master
      used = omp_get_num_threads();
#pragma omp for schedule(dynamic, 1)
      for (std::int64_t i = first; i < last; ++i) body(i);
    }
    return used;
  }
#endif
  const detail::DefaultFloatingPoint environment;
  for (std::int64_t i = first; i < last; ++i) body(i);
  return wanted > 0 ? 1 : 0;
}

}  // namespace adafactor::inline ADAFACTOR_ABI
