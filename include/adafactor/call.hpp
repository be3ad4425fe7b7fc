// What one call on a state hands in, and what it finds out.
#pragma once

#include <cstdint>

#include "adafactor/scalars.hpp"
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
  // Whether this is the update of an open window of accumulation, from what it has; then no gradient has data.
  bool completes = false;
};

// What one call found out about a leaf; NaN where it had no reason to compute it.
struct LeafReport {
  double grad_norm;    // of G after multiplier, loss scale and mean, before clipping
  double param_rms;    // of P before decay
  double update_rms;   // of U before clipping
  double clip_factor;  // what U was multiplied by
  double step_size;    // alpha
  bool nonfinite;      // G, or P, or the state, or a sum of their squares is not finite: nothing is done to the leaf
  bool at_floor;       // RMS(P) lies below epsilon_2, which stands in for it
};

// Where the reports of all leaves go, number by number.
struct ReportColumns {
  double* grad_norm;
  double* param_rms;
  double* update_rms;
  double* clip_factor;
  double* step_size;
  bool* nonfinite;
  bool* at_floor;
};

// What one call did. The numbers of each leaf are in the state's workspace until the next call.
struct Outcome {
  bool updated = false;
  bool skipped = false;
  std::int64_t nonfinite_leaf = -1;  // the first
  double global_grad_norm = 0;       // of all G together
  int threads = 0;
};

}  // namespace adafactor::inline ADAFACTOR_ABI
