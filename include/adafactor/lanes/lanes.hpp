// Sixteen numbers at a time: what a loop computes with, the registers of a CPU, or the threads of a GPU
// (ADAFACTOR_LANES_ARE_THREADS).
#pragma once

#include <cstdint>

#include "adafactor/lanes/run.hpp"
#if ADAFACTOR_LANES_ARE_THREADS
#include "adafactor/lanes/threads.hpp"
#else
#include "adafactor/lanes/registers.hpp"
#endif

namespace adafactor { inline namespace ADAFACTOR_LOOPS {

// The elements of a run from the i-th on, as numbers of T.
template <class T, class S, class Amount>
ADAFACTOR_INLINE auto load(const Run<S>& run, std::int64_t i, Amount amount) {
  return load<T>(run.at + i, amount);
}

}}  // namespace adafactor::ADAFACTOR_LOOPS
