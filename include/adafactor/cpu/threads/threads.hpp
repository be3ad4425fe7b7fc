// A team of threads. Who they are is the matter of one file beside this, chosen here; which thread does what never
// shows in a result.
#pragma once

#include <atomic>
#include <cstdint>

#include "adafactor/compiler/abi.hpp"
#include "adafactor/cpu/threads/job.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI {

// More threads than this help nobody and fail to start on small machines.
inline constexpr int kMostThreads = 1024;

// Threads that a step may use. 0 goes back to the default: OMP_NUM_THREADS, or the number of processors.
ADAFACTOR_FUNCTION void set_num_threads(int n);

// Asked at every step, so that whoever limits OpenMP from outside is obeyed. 1 where there can be no threads: in a
// serial build, and with OpenMP in a forked process.
ADAFACTOR_FUNCTION int get_num_threads();

// What the threads are: openmp, pool or serial.
ADAFACTOR_FUNCTION const char* threads_kind();

namespace detail {

// Has each thread of a team do the job, in the default floating-point environment.
ADAFACTOR_FUNCTION int on_team(int threads, const Job& job);

// Stands between two looks at what another thread does, and leaves the core to its other thread where it has two.
inline void pause() {
#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))
  __builtin_ia32_pause();
#endif
}

}  // namespace detail

// Calls share(number) on each thread of a team of at most `threads`, numbered from 0, the caller; a number is mostly
// the same thread as in the call before. There may be fewer, so what is to be done must not depend on how many they
// are. `share` must not throw. Returns how many threads there were.
template <class Share>
int on_team(int threads, const Share& share) {
  return detail::on_team(threads,
                         {[](const void* work, int number) { (*static_cast<const Share*>(work))(number); }, &share});
}

}}  // namespace adafactor::ADAFACTOR_ABI

#if ADAFACTOR_DEFINES_THREADS

#include <algorithm>

#include "adafactor/host/floating_point.hpp"

// The preprocessor compares numbers, not words.
#define ADAFACTOR_NUMBER_OF_openmp 1
#define ADAFACTOR_NUMBER_OF_pool 2
#define ADAFACTOR_NUMBER_OF_serial 3
#define ADAFACTOR_JOIN_NUMBER(kind) ADAFACTOR_NUMBER_OF_##kind
#define ADAFACTOR_NUMBER(kind) ADAFACTOR_JOIN_NUMBER(kind)

#if ADAFACTOR_NUMBER(ADAFACTOR_THREADS) == 1
#include "adafactor/cpu/threads/openmp.hpp"
#elif ADAFACTOR_NUMBER(ADAFACTOR_THREADS) == 2
#include "adafactor/cpu/threads/pool.hpp"
#elif ADAFACTOR_NUMBER(ADAFACTOR_THREADS) == 3
#include "adafactor/cpu/threads/serial.hpp"
#else
#error "ADAFACTOR_THREADS is one of openmp, pool and serial."
#endif

namespace adafactor { inline namespace ADAFACTOR_ABI {

namespace detail {

// The number that set_num_threads was given; 0 stands for the default.
inline std::atomic<int>& chosen_threads() {
  static std::atomic<int> chosen{0};
  return chosen;
}

ADAFACTOR_FUNCTION int on_team(int threads, const Job& job) {
  const auto share = [&](int number) {
    const DefaultFloatingPoint environment;
    job.call(job.share, number);
  };
  if (threads > 1 && has_threads()) return run_on_team(threads, share);
  share(0);
  return 1;
}

}  // namespace detail

ADAFACTOR_FUNCTION void set_num_threads(int n) { detail::chosen_threads().store(std::clamp(n, 0, kMostThreads)); }

ADAFACTOR_FUNCTION int get_num_threads() {
  if (!detail::has_threads()) return 1;
  const int chosen = detail::chosen_threads().load();
  return chosen > 0 ? chosen : std::clamp(detail::default_threads(), 1, kMostThreads);
}

ADAFACTOR_FUNCTION const char* threads_kind() { return detail::kThreadsKind; }

}}  // namespace adafactor::ADAFACTOR_ABI

#endif  // ADAFACTOR_DEFINES_THREADS
