// Optimizer: the plan and the state of all leaves of a model as one object, for a C++ program that wants one.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "adafactor/cpu/kernels.hpp"
#include "adafactor/door/arguments.hpp"
#include "adafactor/state.hpp"
#include "adafactor/step/call.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI {

// What one call did, and the scalars in force: those of `config`, NaN where nothing was updated.
struct StepReport : Outcome {
  double learning_rate = 0;
  double beta_2 = 0;
  double rho = 0;
};

// door/session.hpp.
class Session;

namespace detail {

// The rows of knobs of a plan.
inline std::vector<Config> rows_of_knobs(const Config& config, const std::vector<Config>& overrides) {
  std::vector<Config> rows(1 + overrides.size());
  rows[0] = config;
  std::copy(overrides.begin(), overrides.end(), rows.begin() + 1);
  return rows;
}

}  // namespace detail

// Adafactor over parameters that the program owns. Everything that throws leaves parameters, gradients and state as
// they were. One call at a time; different objects may step in different threads.
//
// Source: Shazeer and Stern 2018, arXiv:1804.04235, algorithms 4 to 6; keras.optimizers.Adafactor.
//
// ```cpp
// #include <adafactor/adafactor.hpp>
// #include <iostream>
// #include <vector>
//
// int main() {
//   std::vector<float> w(512 * 512, 0.5f), b(512, 0.0f);     // the parameters
//   std::vector<float> gw(512 * 512, 0.25f), gb(512, -1.0f);  // their gradients
//
//   adafactor::Config config;  // Keras' defaults
//   config.learning_rate = 0.1;
//   adafactor::Optimizer optimizer{config,
//                                  {{{512, 512}, adafactor::DType::float32}, {{512}, adafactor::DType::float32}}};
//   optimizer.step({w.data(), b.data()}, {gw.data(), gb.data()});
//   std::cout << w[0] << ' ' << b[0] << ", " << optimizer.nbytes() << " bytes of state\n";
// }
// ```
// ```text
// 0.45 0.0001, 6144 bytes of state
// ```
class Optimizer {
 public:
  // `leaves` has the shape and dtype of each parameter: extents >= 0, at most 64 axes. A leaf whose
  // `knobs` is 0, the default, has those of `config`; one whose `knobs` is k those of `overrides[k - 1]`. Knobs that
  // concern the whole call (global_clipnorm, accumulation, loss scale, on_nonfinite, seed and those of the average) are
  // the same in all. Allocates nbytes() and writes to no parameter.
  //
  // Throws Error{knob, expected, found} for a knob out of its range, Error{leaf, expected, found} for a leaf.
  Optimizer(const Config& config, std::vector<LeafSpec> leaves, const std::vector<Config>& overrides = {});

  // A copy has moments and counters of its own. Throws Error{busy} while the other one steps.
  Optimizer(const Optimizer& other);
  Optimizer& operator=(const Optimizer& other) {
    if (this != &other) *this = Optimizer(other);
    return *this;
  }
  // What was moved from may be destroyed or assigned to, nothing else.
  Optimizer(Optimizer&&) noexcept;
  Optimizer& operator=(Optimizer&&) noexcept;
  ~Optimizer();

  // Updates the parameters in place: one step. One parameter and one gradient for each leaf, in the order of `leaves`,
  // of its shape and dtype; no memory that is written may be shared. A steady step allocates nothing.
  //
  // Throws Error{role, leaf, expected, found}, where role is "params" or "grads": kind `value` for another number of
  // arrays, another shape, a null pointer, arrays that share memory, no gradient at all; `type` for another dtype;
  // `buffer` for a parameter whose own elements share memory; `nonfinite` for NaN or Inf in a gradient or a
  // parameter where on_nonfinite is `raise`; `busy` while another thread is in here, or was when this process was
  // forked. Error{knob} for an option out of its range.
  StepReport step(std::initializer_list<ParameterArray> params, std::initializer_list<GradientArray> grads,
                  const StepOptions& options = {}) {
    return step(std::span<const ParameterArray>(params.begin(), params.size()),
                std::span<const GradientArray>(grads.begin(), grads.size()), options);
  }
  StepReport step(std::span<const ParameterArray> params, std::span<const GradientArray> grads,
                  const StepOptions& options = {});
  StepReport step(std::span<const TensorView> params, std::span<const TensorView> grads,
                  const StepOptions& options = {});

  // Makes the update of an open window of accumulation, at the end of an epoch, from the calls that it has had: from
  // their mean. The others count as made, so that the next call begins a window. Without an open window nothing is
  // done, as `updated` says. Throws as `step`.
  StepReport complete_window(std::initializer_list<ParameterArray> params, const StepOptions& options = {}) {
    return complete_window(std::span<const ParameterArray>(params.begin(), params.size()), options);
  }
  StepReport complete_window(std::span<const ParameterArray> params, const StepOptions& options = {});

  // Forgets these calls; without an open window nothing is done. Throws Error{busy} while another thread is in here.
  void drop_window();

  // What the last call found out about a leaf: norms, scales and factors, NaN where it had no reason to compute them.
  // Throws Error where there is no such leaf, or was no call.
  LeafReport report(std::size_t leaf) const;

  // Updates made, and calls that counted: they differ under gradient accumulation; a call that was skipped or threw
  // counts in neither.
  std::int64_t iterations() const { return state_->counters.updates; }
  std::int64_t calls() const { return state_->counters.calls; }

  // Bytes of all arrays of the state.
  std::int64_t nbytes() const { return plan().state_nbytes(); }

  // One array of the state, valid as long as the optimizer: `row` is [slice][row], `col` [slice][column], all others
  // have the leaf's elements as [slice][row][column]. Empty where the leaf has no such array. Throws Error{type} where
  // its elements are no T: those of the leaf, or Bfloat16 for momentum_dtype = bfloat16.
  template <class T>
  std::span<const T> array(std::size_t leaf, StateKind kind) const {
    static_assert(Element<T>, "an array of the state has elements of float, double or adafactor::Bfloat16");
    const StateArray& array = state_array(leaf, kind, dtype_of<T>);
    if (!array.exists()) return {};
    return {reinterpret_cast<const T*>(state_->memory() + array.offset), static_cast<std::size_t>(array.count)};
  }

  const Plan& plan() const { return state_->plan(); }
  const State& state() const { return *state_; }

 private:
  const LeafPlan& leaf_plan(std::size_t leaf) const;
  // Throws unless the leaf has none, or has elements of this type.
  const StateArray& state_array(std::size_t leaf, StateKind kind, DType asked) const;
  template <class Params, class Grads>
  StepReport run(std::span<const Params> params, std::span<const Grads> grads, const StepOptions& options);
  // The call on what `session_` has taken.
  StepReport make_call(const StepOptions& options, bool completes);

  std::unique_ptr<State> state_;
  std::unique_ptr<Session> session_;
  bool stepped_ = false;
  bool updated_ = false;
};

}}  // namespace adafactor::ADAFACTOR_ABI

#if ADAFACTOR_DEFINES_STEP

#include "adafactor/cpu/step.hpp"
#include "adafactor/door/given.hpp"
#include "adafactor/door/nonfinite.hpp"
#include "adafactor/door/session.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI {

namespace detail {

inline std::unique_ptr<State> copy_of(State& state) {
  const Held held(state);
  return std::make_unique<State>(state);
}

}  // namespace detail

ADAFACTOR_FUNCTION Optimizer::Optimizer(const Config& config, std::vector<LeafSpec> leaves,
                                        const std::vector<Config>& overrides)
    : state_(std::make_unique<State>(
          std::make_shared<const Plan>(std::move(leaves), detail::rows_of_knobs(config, overrides)))),
      session_(std::make_unique<Session>(plan())) {}

ADAFACTOR_FUNCTION Optimizer::Optimizer(const Optimizer& other)
    : state_(detail::copy_of(*other.state_)), session_(std::make_unique<Session>(plan())) {}
ADAFACTOR_FUNCTION Optimizer::Optimizer(Optimizer&&) noexcept = default;
ADAFACTOR_FUNCTION Optimizer& Optimizer::operator=(Optimizer&&) noexcept = default;
ADAFACTOR_FUNCTION Optimizer::~Optimizer() = default;

// What all ways of naming arrays share.
template <class Params, class Grads>
StepReport Optimizer::run(std::span<const Params> params, std::span<const Grads> grads, const StepOptions& options) {
  const Held held(*state_);
  session_->take(true, detail::Given(plan(), params, grads));
  if (!params.empty() && !session_->has_gradient()) {
    throw Error({.role = "grads", .expected = "at least one", .found = "every one is absent"});
  }
  return make_call(options, false);
}

ADAFACTOR_FUNCTION StepReport Optimizer::make_call(const StepOptions& options, bool completes) {
  detail::set_rates(session_->rates(), plan(), options);
  session_->refuse_shared(*state_);
  if (completes && state_->open_calls() == 0) return {};
  StepReport report{session_->make_call(options.grad_multiplier, completes, nullptr, [&](const Call& call) {
    return adafactor::step(*state_, call, cpu_backend());
  })};
  stepped_ = true;
  updated_ = report.updated;
  if (report.skipped && plan().call().on_nonfinite == OnNonfinite::raise) {
    const auto leaf = static_cast<std::size_t>(report.nonfinite_leaf);
    const TensorView& array = session_->array(leaf, role_of_nonfinite(*state_, leaf));
    refuse_nonfinite(*state_, leaf, array.data ? nonfinite_text(array) : std::string());
  }
  const Scalars scalars = call_scalars(plan(), state_->counters, report, session_->rates().front());
  report.learning_rate = scalars.learning_rate;
  report.beta_2 = scalars.beta_2;
  report.rho = scalars.rho;
  return report;
}

ADAFACTOR_FUNCTION StepReport Optimizer::step(std::span<const ParameterArray> params,
                                              std::span<const GradientArray> grads, const StepOptions& options) {
  return run(params, grads, options);
}

ADAFACTOR_FUNCTION StepReport Optimizer::step(std::span<const TensorView> params, std::span<const TensorView> grads,
                                              const StepOptions& options) {
  return run(params, grads, options);
}

ADAFACTOR_FUNCTION StepReport Optimizer::complete_window(std::span<const ParameterArray> params,
                                                         const StepOptions& options) {
  const Held held(*state_);
  const std::vector<GradientArray> none(params.size(), nullptr);
  session_->take(true, detail::Given(plan(), params, std::span<const GradientArray>(none)));
  return make_call(options, true);
}

ADAFACTOR_FUNCTION void Optimizer::drop_window() {
  const Held held(*state_);
  state_->drop_window();
}

ADAFACTOR_FUNCTION LeafReport Optimizer::report(std::size_t leaf) const {
  leaf_plan(leaf);
  if (!stepped_) throw Error({.expected = "a step before its report", .found = "none"});
  return adafactor::report(*state_, leaf, updated_);
}

ADAFACTOR_FUNCTION const LeafPlan& Optimizer::leaf_plan(std::size_t leaf) const {
  const std::vector<LeafPlan>& leaves = plan().leaves();
  if (leaf >= leaves.size()) {
    throw Error({.expected = "a leaf below " + std::to_string(leaves.size()), .found = std::to_string(leaf)});
  }
  return leaves[leaf];
}

ADAFACTOR_FUNCTION const StateArray& Optimizer::state_array(std::size_t leaf, StateKind kind, DType asked) const {
  const StateArray& array = leaf_plan(leaf).state[static_cast<std::size_t>(kind)];
  if (array.exists() && array.dtype != asked) {
    throw Error({.kind = ErrorKind::type,
                 .role = kStateKindNames[static_cast<std::size_t>(kind)],
                 .leaf = static_cast<std::int64_t>(leaf),
                 .expected = name(array.dtype),
                 .found = std::string("dtype ") + name(asked)});
  }
  return array;
}

}}  // namespace adafactor::ADAFACTOR_ABI

#endif  // ADAFACTOR_DEFINES_STEP

#if ADAFACTOR_DEFINES_LOOPS

#include "adafactor/cpu/table.hpp"

#endif  // ADAFACTOR_DEFINES_LOOPS
