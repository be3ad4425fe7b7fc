// Optimizer: the plan and the state of all leaves of a model as one object, for a C++ program that wants one.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "adafactor/arguments.hpp"
#include "adafactor/kernel_table.hpp"
#include "adafactor/memory_check.hpp"
#include "adafactor/step.hpp"
#include "adafactor/walk.hpp"

namespace adafactor::inline ADAFACTOR_ABI {

// What may differ from call to call.
struct StepOptions {
  // Instead of the configured learning rate, a finite number >= 0, relative to the scale of the parameter: how a
  // schedule drives the step. No cap at 1/sqrt(t), unless relative_step is `always`. Default: the configured one.
  std::optional<double> learning_rate = {};
  // The same with one number for `config` and one for each of the overrides; at most one of the two.
  std::span<const double> learning_rates = {};
  // Every gradient is multiplied by it before anything else is done; finite.
  double grad_multiplier = 1;
};

// What one call did, and the scalars in force: those of `config`, NaN where nothing was updated.
struct StepReport : Outcome {
  double learning_rate = 0;
  double beta_2 = 0;
  double rho = 0;
};

namespace detail {

// Holds a state for one call or one copy.
class Held {
 public:
  explicit Held(State& state) : state_(state) {
    if (state.try_acquire()) return;
    if (state.torn()) {
      throw Error({.kind = ErrorKind::busy,
                   .expected = "a fork between its calls",
                   .found = "the optimizer is torn by a fork during a call"});
    }
    throw Error({.kind = ErrorKind::busy, .expected = "one call at a time", .found = "the optimizer is in use"});
  }
  ~Held() { state_.release(); }
  Held(const Held&) = delete;
  Held& operator=(const Held&) = delete;

 private:
  State& state_;
};

// One element of an array.
inline double number_at(const std::byte* element, DType dtype) {
  double number = 0;
  const auto read = [&](auto storage) {
    number = load<double>(reinterpret_cast<const typename decltype(storage)::type*>(element), One{});
  };
  if (dtype == DType::float64) {
    with_storage<double>(dtype, read);
  } else {
    with_storage<float>(dtype, read);
  }
  return number;
}

// "1 NaN and 0 Inf of 32 values"; element by element, for a message alone.
inline std::string nonfinite_text(const TensorView& view) {
  std::int64_t buffer[kMaxRank];
  const std::int64_t* strides = strides_of(view, buffer);
  Axis axes[kMaxRank];
  std::int64_t size = 1;
  for (int axis = 0; axis < view.rank; ++axis) {
    axes[axis] = {view.shape[axis], strides[axis]};
    size *= view.shape[axis];
  }
  std::int64_t nan = 0;
  std::int64_t infinite = 0;
  for (std::int64_t i = 0; i < size; ++i) {
    const auto* element =
        static_cast<const std::byte*>(view.data) + offset_along(axes, view.rank, i) * item_size(view.dtype);
    const double value = number_at(element, view.dtype);
    nan += std::isnan(value);
    infinite += std::isinf(value);
  }
  if (nan == 0 && infinite == 0) return "finite, but the sum of the squares of what the step uses overflows";
  return std::to_string(nan) + " NaN and " + std::to_string(infinite) + " Inf of " + std::to_string(size) + " values";
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
  Optimizer(const Config& config, std::vector<LeafSpec> leaves, const std::vector<Config>& overrides = {})
      : state_(std::make_unique<State>(std::make_shared<const Plan>(std::move(leaves), rows(config, overrides)))) {}

  // A copy has moments and counters of its own. Throws Error{busy} while the other one steps.
  Optimizer(const Optimizer& other) : state_(copy_of(*other.state_)) {}
  Optimizer& operator=(const Optimizer& other) {
    if (this != &other) *this = Optimizer(other);
    return *this;
  }
  // What was moved from may be destroyed or assigned to, nothing else.
  Optimizer(Optimizer&&) noexcept = default;
  Optimizer& operator=(Optimizer&&) noexcept = default;
  ~Optimizer() = default;

  // Updates the parameters in place: one step. One parameter and one gradient for each leaf, in the order of `leaves`,
  // of its shape and dtype; no memory that is written may be shared. A steady step allocates nothing.
  //
  // Throws Error{role, leaf, expected, found}, where role is "params" or "grads": kind `value` for another number of
  // arrays, another shape, a null pointer, arrays that share memory, no gradient at all; `type` for another dtype;
  // `buffer` for a parameter whose own elements share memory; `nonfinite` for NaN or Inf in a gradient where
  // on_nonfinite is `raise`; `busy` while another thread is in here, or was when this process was forked. Error{knob}
  // for an option out of its range.
  StepReport step(std::initializer_list<ParameterArray> params, std::initializer_list<GradientArray> grads,
                  const StepOptions& options = {}) {
    return run(std::span<const ParameterArray>(params.begin(), params.size()),
               std::span<const GradientArray>(grads.begin(), grads.size()), options);
  }
  StepReport step(std::span<const ParameterArray> params, std::span<const GradientArray> grads,
                  const StepOptions& options = {}) {
    return run(params, grads, options);
  }
  StepReport step(std::span<const TensorView> params, std::span<const TensorView> grads,
                  const StepOptions& options = {}) {
    return run(params, grads, options);
  }

  // What the last call found out about a leaf: norms, scales and factors, NaN where it had no reason to compute them.
  // Throws Error where there is no such leaf, or was no call.
  LeafReport report(std::size_t leaf) const {
    leaf_plan(leaf);
    if (!stepped_) throw Error({.expected = "a step before its report", .found = "none"});
    return adafactor::report(*state_, leaf, updated_);
  }

  // Updates made, and calls that counted: they differ under gradient accumulation; a call that was skipped or threw
  // counts in neither.
  std::int64_t iterations() const { return state_->updates; }
  std::int64_t calls() const { return state_->calls; }

  // Bytes of all arrays of the state.
  std::int64_t nbytes() const { return plan().state_nbytes(); }

  // One array of the state, valid as long as the optimizer: `row` is [slice][row], `col` [slice][column], all others
  // have the leaf's elements as [slice][row][column]. Empty where the leaf has no such array. Throws Error{type} where
  // its elements are no T: those of the leaf, or Bfloat16 for momentum_dtype = bfloat16.
  template <class T>
  std::span<const T> array(std::size_t leaf, StateKind kind) const {
    const StateArray& array = leaf_plan(leaf).state[static_cast<std::size_t>(kind)];
    if (!array.exists()) return {};
    static_assert(Element<T>, "an array of the state has elements of float, double or adafactor::Bfloat16");
    constexpr DType asked = dtype_of<T>;
    if (array.dtype != asked) {
      throw Error({.kind = ErrorKind::type,
                   .role = kStateKindNames[static_cast<std::size_t>(kind)],
                   .leaf = static_cast<std::int64_t>(leaf),
                   .expected = name(array.dtype),
                   .found = std::string("dtype ") + name(asked)});
    }
    return {reinterpret_cast<const T*>(state_->memory() + array.offset), static_cast<std::size_t>(array.count)};
  }

  const Plan& plan() const { return state_->plan(); }
  const State& state() const { return *state_; }

 private:
  static std::vector<Config> rows(const Config& config, const std::vector<Config>& overrides) {
    std::vector<Config> rows{config};
    rows.insert(rows.end(), overrides.begin(), overrides.end());
    return rows;
  }

  static std::unique_ptr<State> copy_of(State& state) {
    const detail::Held held(state);
    return std::make_unique<State>(state);
  }

  const LeafPlan& leaf_plan(std::size_t leaf) const {
    const std::vector<LeafPlan>& leaves = plan().leaves();
    if (leaf >= leaves.size()) {
      throw Error({.expected = "a leaf below " + std::to_string(leaves.size()), .found = std::to_string(leaf)});
    }
    return leaves[leaf];
  }

  template <class Params, class Grads>
  StepReport run(std::span<const Params> params, std::span<const Grads> grads, const StepOptions& options) {
    const detail::Held held(*state_);
    take_all(params, Role::params, parameters_);
    take_all(grads, Role::grads, gradients_);
    require_some_gradient();
    take_options(options);
    memory_.check(*state_, parameters_, gradients_, {});
    const Call call{parameters_.data(), gradients_.data(), parameters_.data(), rates_.data(), options.grad_multiplier};
    StepReport report{adafactor::step(*state_, call, compiled_kernels())};
    stepped_ = true;
    updated_ = report.updated;
    if (report.skipped && plan().call().on_nonfinite == OnNonfinite::raise) refuse_nonfinite(report.nonfinite_leaf);
    const Scalars scalars = call_scalars(*state_, report, rates_.front());
    report.learning_rate = scalars.learning_rate;
    report.beta_2 = scalars.beta_2;
    report.rho = scalars.rho;
    return report;
  }

  template <class Array>
  void take_all(std::span<const Array> arrays, Role role, std::vector<TensorView>& views) {
    const std::vector<LeafPlan>& leaves = plan().leaves();
    if (arrays.size() != leaves.size()) {
      throw Error({.role = name(role),
                   .expected = std::to_string(leaves.size()) + ", one for each leaf",
                   .found = std::to_string(arrays.size()) + " arrays"});
    }
    using Taken = std::conditional_t<std::same_as<Array, TensorView>, GradientArray, Array>;
    views.resize(leaves.size());
    for (std::size_t i = 0; i < leaves.size(); ++i) {
      const Taken& array = arrays[i];
      const bool may_be_absent = role == Role::grads;
      views[i] = may_be_absent && array.absent() ? TensorView{} : checked(array.view(leaves[i]), leaves[i], role, i);
    }
  }

  static TensorView checked(TensorView view, const LeafPlan& leaf, Role role, std::size_t index) {
    static std::byte nothing{};
    const auto refuse = [&](const char* expected, const char* found) {
      throw Error({.role = name(role), .leaf = static_cast<std::int64_t>(index), .expected = expected, .found = found});
    };
    if (view.rank > 0 && !view.shape) refuse("a shape", "a view without one");
    check_view(view, leaf, role, static_cast<std::int64_t>(index));
    if (view.data) return view;
    // A leaf without elements may lie nowhere, and has a gradient all the same.
    if (leaf.layout.size() > 0) {
      refuse(role == Role::grads ? "its elements, or nullptr itself where there is none" : "its elements",
             "a null pointer");
    }
    view.data = &nothing;
    return view;
  }

  void require_some_gradient() const {
    for (const TensorView& gradient : gradients_) {
      if (gradient.data) return;
    }
    if (!gradients_.empty()) throw Error({.role = "grads", .expected = "at least one", .found = "every one is absent"});
  }

  void take_options(const StepOptions& options) {
    const auto refuse = [](const char* knob, const std::string& expected, const std::string& found) {
      throw Error({.knob = knob, .expected = expected, .found = found});
    };
    if (!std::isfinite(options.grad_multiplier)) {
      refuse("grad_multiplier", "a finite number", detail::words(options.grad_multiplier));
    }
    const std::vector<Config>& knobs = plan().knobs();
    const std::span<const double> own = options.learning_rates;
    if (!own.empty() && options.learning_rate) refuse("learning_rates", "at most one of the two", "learning_rate too");
    if (!own.empty() && own.size() != knobs.size()) {
      refuse("learning_rates", std::to_string(knobs.size()) + ", one for the config and one for each override",
             std::to_string(own.size()) + " numbers");
    }
    const bool scheduled = options.learning_rate || !own.empty();
    rates_.resize(knobs.size());
    for (std::size_t row = 0; row < knobs.size(); ++row) {
      const double configured = options.learning_rate.value_or(knobs[row].learning_rate);
      rates_[row] = {own.empty() ? configured : own[row], scheduled};
      if (!kAtLeastZero.contains(rates_[row].value)) {
        refuse(own.empty() ? "learning_rate" : "learning_rates", detail::words(kAtLeastZero),
               detail::words(rates_[row].value));
      }
    }
  }

  [[noreturn]] void refuse_nonfinite(std::int64_t leaf) const {
    const TensorView& gradient = gradients_[static_cast<std::size_t>(leaf)];
    std::string found = "not finite";
    if (gradient.data) {
      found = detail::nonfinite_text(gradient);
    }
    throw Error({.kind = ErrorKind::nonfinite,
                 .role = "grads",
                 .leaf = leaf,
                 .expected = "finite values (nothing was changed; on_nonfinite can skip such a call or let it through)",
                 .found = found});
  }

  std::unique_ptr<State> state_;
  bool stepped_ = false;
  bool updated_ = false;
  // Kept from call to call, so that a steady step allocates nothing.
  std::vector<TensorView> parameters_;
  std::vector<TensorView> gradients_;
  std::vector<LearningRate> rates_;
  MemoryCheck memory_;
};

}  // namespace adafactor::inline ADAFACTOR_ABI
