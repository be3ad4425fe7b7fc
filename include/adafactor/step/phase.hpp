// The parts of a step, in their order.
#pragma once

#include <cstdint>

#include "adafactor/compiler/abi.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI {

// The parts of a step; `means` is the end of `moments` where tiles cut a slice. `verdict` comes once: whether the call
// is skipped, and the norm of all gradients. Each of the others is done leaf by leaf, and a decision follows it.
enum class Phase : std::uint8_t { moments, means, verdict, factors, rms, apply };

// A contiguous part of the phases, both ends included. `means` goes with `moments`: tiles leave each other their sums
// in a buffer that the waves of leaves take turns with.
struct Phases {
  Phase first = Phase::moments;
  Phase last = Phase::apply;

  bool contains(Phase phase) const { return first <= phase && phase <= last; }
};

// A whole call. What a leaf does in it, update, accumulate or keep its parameter, is in its rule.
inline constexpr Phases kWholeCall{};

// The three parts of a call between which parts of leaves add up what they have found. Only the last one writes
// something of the caller's, or of the state.
inline constexpr Phases kSums{Phase::moments, Phase::means};
inline constexpr Phases kSquares{Phase::verdict, Phase::rms};
inline constexpr Phases kRest{Phase::apply, Phase::apply};

}}  // namespace adafactor::ADAFACTOR_ABI
