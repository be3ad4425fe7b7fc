// How often this process was forked off since the library was loaded. A child has none of its parent's threads but the
// one that forked, so whoever counts on another thread asks here first.
#pragma once

#include <atomic>

#include "adafactor/abi.hpp"

namespace adafactor::inline ADAFACTOR_ABI {

namespace detail {

ADAFACTOR_FUNCTION std::atomic<int>& forks();

}  // namespace detail

}  // namespace adafactor::inline ADAFACTOR_ABI

#if ADAFACTOR_DEFINES_STEP

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

namespace adafactor::inline ADAFACTOR_ABI {

namespace detail {

ADAFACTOR_FUNCTION std::atomic<int>& forks() {
  static std::atomic<int> count{0};
  return count;
}

#if defined(__unix__) || defined(__APPLE__)
// Set up when the library is loaded, so that no fork is missed.
inline const int fork_hook = pthread_atfork(nullptr, nullptr, [] { ++forks(); });
#endif

}  // namespace detail

}  // namespace adafactor::inline ADAFACTOR_ABI

#endif  // ADAFACTOR_DEFINES_STEP
