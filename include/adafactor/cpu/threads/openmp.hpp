// The threads of OpenMP, which are shared with every other library of the process that uses the same runtime.
#pragma once

#if !defined(_OPENMP)
#error "ADAFACTOR_THREADS=openmp needs a compiler that has OpenMP on (-fopenmp)."
#endif

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>

#include "adafactor/compiler/abi.hpp"
#include "adafactor/cpu/threads/job.hpp"
#include "adafactor/host/cores.hpp"
#include "adafactor/host/fork.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI { namespace detail {

// What these threads are.
inline constexpr const char* kThreadsKind = "openmp";

// libgomp waits for ever in a forked process that opens a region of two threads.
inline bool has_threads() { return forks() == 0; }

// Whoever chooses a number for OpenMP in the process, chooses it for these; where nobody has, OpenMP knows the cores,
// and not what a control group is allowed of them.
inline int default_threads() {
  const int most = omp_get_max_threads();
  return most == omp_get_num_procs() && asked_threads() == 0 ? (std::min)(most, usable_cores()) : most;
}

// Starts up to `count` threads that are all there at once, ends them, and returns how many there were.
inline int count_startable(int count) {
  const auto most = static_cast<std::size_t>(count);
  const auto threads = std::make_unique<std::thread[]>(most);
  std::mutex gate;
  std::unique_lock closed(gate);
  std::size_t started = 0;
  try {
    for (; started < most; ++started) threads[started] = std::thread([&] { const std::lock_guard pass(gate); });
  } catch (const std::exception&) {
    // The team is then as large as it has become.
  }
  closed.unlock();
  for (std::size_t i = 0; i < started; ++i) threads[i].join();
  return static_cast<int>(started);
}

// A team of at most `threads` that can be had. libgomp ends the process where a thread does not start, so a team larger
// than any before is tried out, once: with twice as many, because a thread that was joined counts for a moment longer.
inline int possible_team(int threads) {
  static std::atomic<int> proven{1};
  static std::atomic<bool> is_limit{false};
  if (threads <= proven.load()) return threads;
  if (is_limit.load()) return proven.load();
  const int possible = 1 + count_startable(2 * (threads - 1)) / 2;
  if (possible < threads) is_limit = true;
  int before = proven.load();
  while (before < possible && !proven.compare_exchange_weak(before, possible)) {
  }
  return possible;
}

ADAFACTOR_FUNCTION void give_way() { std::this_thread::yield(); }

inline int run_on_team(int threads, const Job& job) {
  const int team = possible_team(threads);
  int used = 1;
#pragma omp parallel num_threads(team)
  {
    if (omp_get_thread_num() == 0) used = omp_get_num_threads();
    job(omp_get_thread_num(), Turn());  // not an `omp for`, which would wait at its own end and then at the region's
  }
  return used;
}

}}}  // namespace adafactor::ADAFACTOR_ABI::detail
