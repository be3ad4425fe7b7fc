// The one orchestration of a step: the four phases over a plan. It serves the headers, every instruction set, Python
// and every device; it prepares the leaves, has a backend do the phases, and counts.
#pragma once

#include <cstddef>
#include <cstdint>

#include "adafactor/call.hpp"
#include "adafactor/kernel_table.hpp"
#include "adafactor/scalars.hpp"
#include "adafactor/state.hpp"

namespace adafactor::inline ADAFACTOR_ABI {

// What the last call found out about a leaf, for as long as the state makes no other. `updated` is that call's outcome.
ADAFACTOR_FUNCTION LeafReport report(const State& state, std::size_t index, bool updated);

// The same of all leaves, into arrays that have a place for each.
ADAFACTOR_FUNCTION void report_all(const State& state, bool updated, const ReportColumns& columns);

// The scalars that were in force in the last call: those of the first row of knobs, with `rate` for its learning rate.
// beta_2 and rho are NaN where nothing was updated.
ADAFACTOR_FUNCTION Scalars call_scalars(const State& state, const Outcome& outcome, LearningRate rate);

// One call on a state that the caller has acquired. A non-finite gradient changes nothing but the outcome (and the
// outputs, where they are other arrays: they get the parameters as they were), unless on_nonfinite is "propagate". So
// does a non-finite parameter in the first update, and in one after another that has found it and left its leaf alone.
ADAFACTOR_FUNCTION Outcome step(State& state, const Call& call, const KernelTable& kernels);

}  // namespace adafactor::inline ADAFACTOR_ABI

#if ADAFACTOR_DEFINES_STEP

#include "adafactor/step_run.hpp"

#endif  // ADAFACTOR_DEFINES_STEP

#if ADAFACTOR_DEFINES_LOOPS

#include "adafactor/loops.hpp"

#endif  // ADAFACTOR_DEFINES_LOOPS
