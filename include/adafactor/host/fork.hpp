// How often this process was forked off since the library was loaded. A child has none of its parent's threads but the
// one that forked, so whoever counts on another thread asks here first.
#pragma once

#include <atomic>

#include "adafactor/compiler/abi.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI { namespace detail {

ADAFACTOR_FUNCTION std::atomic<int>& forks();

}}}  // namespace adafactor::ADAFACTOR_ABI::detail

#if ADAFACTOR_DEFINES_STEP

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

namespace adafactor { inline namespace ADAFACTOR_ABI { namespace detail {

ADAFACTOR_FUNCTION std::atomic<int>& forks() {
  static std::atomic<int> count{0};
  return count;
}

#if defined(__unix__) || defined(__APPLE__)
// Set up when the library is loaded, so that no fork is missed.
inline const int fork_hook = pthread_atfork(nullptr, nullptr, [] { ++forks(); });
#endif

}}}  // namespace adafactor::ADAFACTOR_ABI::detail

#endif  // ADAFACTOR_DEFINES_STEP
