// One call on a state: what it hands in, what it finds out, and the functions that make it.
#pragma once

#include <cstdint>
#include <string>

#include "adafactor/plan/counters.hpp"
#include "adafactor/step/leaf.hpp"
#include "adafactor/step/scalars.hpp"
#include "adafactor/tensor.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI {

// plan.hpp.
class Plan;

// state.hpp.
class Stepper;

// state.hpp.
class State;

// step/backend.hpp.
class Backend;

// What a call writes to its outputs: the new parameters, or what is to be added to the old ones, which stay. An update
// from which somebody else's rule goes on is a difference; then outputs may be the gradients, and have their type:
// where one is absent, and its leaf stays, no difference is written.
enum class Output : std::uint8_t { parameters, differences };

// What one call hands in. The arrays are in the plan's order of leaves and were checked; a gradient without data is
// absent. `outputs` may be `parameters`: then the step is in place.
struct Call {
  const TensorView* parameters = nullptr;
  const TensorView* gradients = nullptr;
  const TensorView* outputs = nullptr;
  const LearningRate* rates = nullptr;  // one for each row of knobs
  double grad_multiplier = 1;
  bool moved = true;  // false: all arrays lie where they lay in the last call, those of the state too
  // Whether this is the update of an open window of accumulation, from what it has; then no gradient has data.
  bool completes = false;
  // The arrays of the state, which the call brings along; null: the memory of the State that is stepped.
  const StateSlots* state = nullptr;
  Output output = Output::parameters;
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

// What the steps of a state allocate, once: on the CPU, the same for any number of threads, or with a backend.
ADAFACTOR_FUNCTION std::int64_t scratch_nbytes(const Plan& plan);
ADAFACTOR_FUNCTION std::int64_t scratch_nbytes(const Plan& plan, const Backend& backend);

// What the last call found out about a leaf, for as long as there is no other. `updated` is that call's outcome.
ADAFACTOR_FUNCTION LeafReport report(const Stepper& stepper, std::size_t index, bool updated);

// Writes the reports of all leaves into arrays that have a place for each.
ADAFACTOR_FUNCTION void report_all(const Stepper& stepper, bool updated, const ReportColumns& columns);

// The scalars that were in force in the last call: those of the first row of knobs, with `rate` for its learning rate.
// beta_2 and rho are NaN where nothing was updated.
ADAFACTOR_FUNCTION Scalars call_scalars(const Plan& plan, const Counters& counters, const Outcome& outcome,
                                        LearningRate rate);

// One call, on a state that the caller has acquired. A non-finite gradient changes nothing but the outcome (and the
// outputs, where they are other arrays: they get the parameters as they were), unless on_nonfinite is "propagate". So
// does a non-finite parameter in the first update, and in one after another that has found it and left its leaf alone.
//
// Throws Error, before anything is done, where the call wants differences and a knob needs the new parameters, or a
// leaf that is updated has no output for its own; and where leaves of the plan are parts of larger ones: those are
// stepped by Step (step/step.hpp).
ADAFACTOR_FUNCTION Outcome step(State& state, const Call& call, const Backend& backend);

// The same on arrays that the call brings along, and on counters of somebody's. Throws Error, too, where the call
// brings none, unless all arrays lie where they lay in the last one.
ADAFACTOR_FUNCTION Outcome step(Stepper& stepper, Counters& counters, const Call& call, const Backend& backend);

// "1 NaN and 0 Inf of 32 values" of an array, or nothing where all are finite.
ADAFACTOR_FUNCTION std::string nonfinite_text(const TensorView& view);

}}  // namespace adafactor::ADAFACTOR_ABI
