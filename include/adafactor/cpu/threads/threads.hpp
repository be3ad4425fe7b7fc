// A team of threads. Who they are is the matter of one file beside this, chosen here; which thread does what never
// shows in a result.
#pragma once

#include <atomic>
#include <cstdint>
#include <type_traits>

#include "adafactor/compiler/abi.hpp"
#include "adafactor/cpu/threads/job.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI {

// More threads than this help nobody and fail to start on small machines.
inline constexpr int kMostThreads = 1024;

// Threads that a step may use. 0 goes back to the default: OMP_NUM_THREADS, which launchers set for everybody, or the
// cores that the process may use.
ADAFACTOR_FUNCTION void set_num_threads(int n);

// Asked at every step, so that whoever limits threads from outside is obeyed. 1 where there can be none: in a serial
// build, and with OpenMP in a forked process.
ADAFACTOR_FUNCTION int get_num_threads();

// What else limits the threads of a step by default, asked at every step; 0: nothing does. For a process that has
// limits of its own, as Python has in the runtimes of other libraries.
ADAFACTOR_FUNCTION void set_thread_limit(int (*limit)());

// What the threads are: openmp, pool or serial.
ADAFACTOR_FUNCTION const char* threads_kind();

namespace detail {

// Has each thread of a team do the job.
ADAFACTOR_FUNCTION int on_team(int threads, const Job& job);

}  // namespace detail

// Calls share(number, turn), or share(number) in one turn, on each thread of a team of at most `threads`, numbered from
// 0, the caller; a number is mostly the same thread as in the call before. There may be fewer, so what is to be done
// must not depend on how many they are. `share` must not throw. Returns when the caller's share is done and nobody is
// in a turn, with how many threads there were.
template <class Share>
int on_team(int threads, const Share& share) {
  const auto call = [](const void* work, int number, Turn& turn) {
    const Share& one = *static_cast<const Share*>(work);
    if constexpr (std::is_invocable_v<const Share&, int, Turn&>) {
      one(number, turn);
    } else if (turn.begin()) {
      one(number);
      turn.end();
    }
  };
  return detail::on_team(threads, {call, &share});
}

}}  // namespace adafactor::ADAFACTOR_ABI

#if ADAFACTOR_DEFINES_THREADS

#include <algorithm>

#include "adafactor/host/cores.hpp"

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

inline std::atomic<int (*)()>& thread_limit() {
  static std::atomic<int (*)()> limit{nullptr};
  return limit;
}

ADAFACTOR_FUNCTION int on_team(int threads, const Job& job) {
  if (threads > 1 && has_threads()) return run_on_team(threads, job);
  job(0, Turn());
  return 1;
}

}  // namespace detail

ADAFACTOR_FUNCTION void set_num_threads(int n) { detail::chosen_threads().store(std::clamp(n, 0, kMostThreads)); }

ADAFACTOR_FUNCTION int get_num_threads() {
  if (!detail::has_threads()) return 1;
  if (const int chosen = detail::chosen_threads().load(); chosen > 0) return chosen;
  int (*const limit)() = detail::thread_limit().load();
  const int most = limit ? limit() : 0;
  return std::clamp(detail::default_threads(), 1, most > 0 ? (std::min)(most, kMostThreads) : kMostThreads);
}

ADAFACTOR_FUNCTION void set_thread_limit(int (*limit)()) { detail::thread_limit() = limit; }

ADAFACTOR_FUNCTION const char* threads_kind() { return detail::kThreadsKind; }

}}  // namespace adafactor::ADAFACTOR_ABI

#endif  // ADAFACTOR_DEFINES_THREADS
