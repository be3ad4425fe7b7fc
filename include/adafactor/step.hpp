// The one orchestration of a step: the four phases over a plan. It serves the headers, every instruction set, Python
// and every device; it prepares the leaves, has a backend do the phases, and counts.
#pragma once

#include <cstddef>
#include <cstdint>

#include "adafactor/kernel_table.hpp"
#include "adafactor/scalars.hpp"
#include "adafactor/state.hpp"
#include "adafactor/tensor.hpp"

namespace adafactor::inline ADAFACTOR_ABI {

// What one call hands in. The arrays are in the plan's order of leaves and were checked; a gradient without data is
// absent. `outputs` may be `parameters`: then the step is in place.
struct Call {
  const TensorView* parameters = nullptr;
  const TensorView* gradients = nullptr;
  const TensorView* outputs = nullptr;
  const LearningRate* rates = nullptr;  // one for each row of knobs
  double grad_multiplier = 1;
  bool moved = true;  // false: all arrays lie where they lay in the last call on this state
};

// What one call found out about a leaf; NaN where it had no reason to compute it.
struct LeafReport {
  double grad_norm;    // of G after multiplier, loss scale and mean, before clipping
  double param_rms;    // of P before decay
  double update_rms;   // of U before clipping
  double clip_factor;  // what U was multiplied by
  double step_size;    // alpha
  bool nonfinite;      // G, or the sum of its squares, is not finite
};

// What one call did. The numbers of each leaf are in the state's workspace until the next call.
struct Outcome {
  bool updated = false;
  bool skipped = false;
  std::int64_t nonfinite_leaf = -1;  // the first
  double global_grad_norm = 0;       // of all G together
  int threads = 0;
};

// What the last call found out about a leaf, for as long as the state makes no other. `updated` is that call's outcome.
ADAFACTOR_FUNCTION LeafReport report(const State& state, std::size_t index, bool updated);

// The scalars that were in force in the last call: those of the first row of knobs, with `rate` for its learning rate.
// beta_2 and rho are NaN where nothing was updated.
ADAFACTOR_FUNCTION Scalars call_scalars(const State& state, const Outcome& outcome, LearningRate rate);

// One call on a state that the caller has acquired. A non-finite gradient changes nothing but the outcome (and the
// outputs, where they are other arrays: they get the parameters as they were), unless on_nonfinite is "propagate".
ADAFACTOR_FUNCTION Outcome step(State& state, const Call& call, const KernelTable& kernels);

}  // namespace adafactor::inline ADAFACTOR_ABI

#if ADAFACTOR_DEFINES_STEP

#include "adafactor/step_run.hpp"

#endif  // ADAFACTOR_DEFINES_STEP

#if ADAFACTOR_DEFINES_LOOPS

#include "adafactor/loops.hpp"

#endif  // ADAFACTOR_DEFINES_LOOPS
