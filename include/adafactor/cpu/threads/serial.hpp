// No threads: the caller does everything.
#pragma once

#include "adafactor/cpu/threads/job.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI { namespace detail {

// What these threads are.
inline constexpr const char* kThreadsKind = "serial";

inline bool has_threads() { return false; }

inline int default_threads() { return 1; }

// Does nothing: there is nobody to wait for.
ADAFACTOR_FUNCTION void give_way() {}

inline int run_on_team(int, const Job& job) {
  job(0, Turn());
  return 1;
}

}}}  // namespace adafactor::ADAFACTOR_ABI::detail
