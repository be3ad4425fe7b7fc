// How far the leaves of a step have come: each goes through each phase once, in their order, and nobody goes on where
// all have to arrive first.
#pragma once

#include <cstdint>

#include "adafactor/compiler/abi.hpp"
#include "adafactor/error.hpp"
#include "adafactor/step/phase.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI { namespace detail {

// Throws Error where what is expected of the caller does not hold.
inline void refuse_unless(bool holds, const char* expected, const char* found) {
  if (!holds) throw Error({.expected = expected, .found = found});
}

// What has been run of a step. Leaves are counted and may come in any order: whoever runs one twice and another never
// is not found out.
class Course {
 public:
  explicit Course(std::int64_t leaves) : leaves_(leaves) {}

  // Throws Error unless so many leaves may go through these phases next. `looks_first`: nobody writes before all leaves
  // are measured.
  void admit(Phases phases, std::int64_t count, bool looks_first) const {
    refuse_unless(phases.first != Phase::means && phases.last != Phase::moments, "`means` along with `moments`",
                  "one without the other");
    refuse_unless(may_begin(phases.first, count), "the phases in their order", "some that were left out");
    refuse_unless(phases.last <= Phase::means || all_arrive(Phase::means, phases, count),
                  "all leaves through `means` before the verdict", "some that were left out");
    // The verdict comes once, whoever asks for it, and the phase after it counts.
    const Phase first = phases.first == Phase::verdict ? Phase::factors : phases.first;
    refuse_unless(first > phases.last || through(first) + count <= leaves_, "each leaf once through each phase",
                  "one that has been there");
    refuse_unless(!looks_first || phases.last < Phase::apply || all_arrive(Phase::rms, phases, count),
                  "all leaves through `rms` before one is written, in a call that looks at them first",
                  "some that were left out");
  }

  void advance(Phases phases, std::int64_t count) {
    for (Phase phase = phases.first; phase <= phases.last; phase = static_cast<Phase>(static_cast<int>(phase) + 1)) {
      through_[static_cast<int>(phase)] += count;
    }
    has_verdict_ = has_verdict_ || phases.contains(Phase::verdict);
  }

  bool has_verdict() const { return has_verdict_; }
  // Whether all leaves have been through a phase.
  bool has_ended(Phase phase) const { return through(phase) == leaves_ && (has_verdict_ || phase < Phase::verdict); }

 private:
  std::int64_t through(Phase phase) const { return through_[static_cast<int>(phase)]; }

  bool may_begin(Phase phase, std::int64_t count) const {
    if (phase <= Phase::verdict) return true;
    if (phase == Phase::factors) return has_verdict_;
    return through(static_cast<Phase>(static_cast<int>(phase) - 1)) >= through(phase) + count;
  }

  // Whether all leaves will have been through a phase when so many more have been through these.
  bool all_arrive(Phase phase, Phases phases, std::int64_t count) const {
    return through(phase) + (phases.contains(phase) ? count : 0) == leaves_;
  }

  std::int64_t leaves_;
  std::int64_t through_[static_cast<int>(Phase::apply) + 1] = {};  // leaves, of the verdict none
  bool has_verdict_ = false;
};

}}}  // namespace adafactor::ADAFACTOR_ABI::detail
