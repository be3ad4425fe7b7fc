// No threads: the caller does everything.
#pragma once

#include "adafactor/abi.hpp"

namespace adafactor::inline ADAFACTOR_ABI {

// What the threads of this build are.
inline constexpr const char* kThreadsKind = "serial";

namespace detail {

inline bool has_threads() { return false; }

inline int default_threads() { return 1; }

// There is nobody to wait for.
inline void give_way() {}

template <class Share>
int run_on_team(int, const Share& share) {
  share(0);
  return 1;
}

}  // namespace detail

}  // namespace adafactor::inline ADAFACTOR_ABI
