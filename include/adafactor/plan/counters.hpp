// What a state counts: calls and updates, of all leaves and of each.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "adafactor/compiler/abi.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI {

// Counters of one leaf.
struct LeafCount {
  std::int64_t updates = 0;
  bool accumulated = false;  // got a gradient in the running window of accumulation
  bool stopped = false;      // its last update found NaN or Inf in it, and left it alone
};

// All that a state counts; the counters of the leaves lie in memory of somebody's.
struct Counters {
  std::int64_t updates = 0;     // made
  std::int64_t calls = 0;       // that counted
  std::int64_t skips = 0;       // calls in a row, the last among them, that were skipped
  std::span<LeafCount> leaves;  // in the plan's order

  // Calls of the window of accumulation that is open, where `every` of them make an update; 0 where none is.
  std::int64_t open_calls(std::optional<std::int64_t> every) const { return every ? calls % *every : 0; }
};

}}  // namespace adafactor::ADAFACTOR_ABI
