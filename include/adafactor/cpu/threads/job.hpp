// What a team of threads is handed, whoever they are.
#pragma once

#include "adafactor/compiler/abi.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI { namespace detail {

// What each thread of a team calls once.
struct Job {
  void (*call)(const void*, int) = nullptr;
  const void* share = nullptr;
};

// Where a thread looks again and again for what another one does.
ADAFACTOR_FUNCTION void give_way();

}}}  // namespace adafactor::ADAFACTOR_ABI::detail
