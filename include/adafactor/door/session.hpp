// One call of an Optimizer: what the caller hands in is held against the plan and the memory before a phase sees it.
#pragma once

#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "adafactor/door/arguments.hpp"
#include "adafactor/door/memory.hpp"
#include "adafactor/door/view.hpp"
#include "adafactor/state.hpp"
#include "adafactor/step/call.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI { namespace detail {

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

// What the calls of one optimizer keep from one to the next, so that a steady step allocates nothing.
class Session {
 public:
  // What is handed in for a call, each piece checked, then what the arrays share. Throws what Optimizer::step says.
  template <class Params, class Grads>
  void take(const State& state, std::span<const Params> params, std::span<const Grads> grads,
            const StepOptions& options) {
    take_all(state.plan(), params, Role::params, parameters_);
    take_all(state.plan(), grads, Role::grads, gradients_);
    require_some_gradient();
    take_rest(state, options);
  }

  // Takes the parameters alone, for the update of an open window of accumulation.
  template <class Params>
  void take_window(const State& state, std::span<const Params> params, const StepOptions& options) {
    take_all(state.plan(), params, Role::params, parameters_);
    gradients_.assign(parameters_.size(), {});
    take_rest(state, options);
  }

  Call call(double grad_multiplier, bool completes) const {
    Call call{parameters_.data(), gradients_.data(), parameters_.data(), rates_.data(), grad_multiplier};
    call.completes = completes;
    return call;
  }

  // The learning rate of the first row of knobs.
  LearningRate first_rate() const { return rates_.front(); }

  // The gradient of a leaf, or its parameter.
  const TensorView& array(std::size_t leaf, bool of_gradient) const {
    return (of_gradient ? gradients_ : parameters_)[leaf];
  }

  // `of_gradient`: not of the parameter or the state. `found` says what is in the array, where anything is.
  [[noreturn]] static void refuse_nonfinite(std::int64_t leaf, bool of_gradient, std::string found) {
    if (found.empty()) {
      found = of_gradient ? "finite, but the sum of the squares of what the step uses overflows"
                          : "finite, but the sum of its squares overflows, or a moment in the state is not finite";
    }
    throw Error({.kind = ErrorKind::nonfinite,
                 .role = of_gradient ? "grads" : "params",
                 .leaf = leaf,
                 .expected = "finite values (nothing was changed; on_nonfinite can skip such a call or let it through)",
                 .found = found});
  }

 private:
  // The options, once the arrays are there, and whether those share memory.
  void take_rest(const State& state, const StepOptions& options) {
    take_options(state.plan(), options);
    memory_.refuse_shared(state, parameters_, gradients_, {});
  }

  template <class Array>
  void take_all(const Plan& plan, std::span<const Array> arrays, Role role, std::vector<TensorView>& views) {
    const std::vector<LeafPlan>& leaves = plan.leaves();
    if (arrays.size() != leaves.size()) {
      throw Error({.role = name(role),
                   .expected = counted(static_cast<std::int64_t>(leaves.size()), ", one for each leaf"),
                   .found = counted(static_cast<std::int64_t>(arrays.size()), " arrays")});
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

  void take_options(const Plan& plan, const StepOptions& options) {
    const auto refuse = [](const char* knob, const std::string& expected, const std::string& found) {
      throw Error({.knob = knob, .expected = expected, .found = found});
    };
    if (!std::isfinite(options.grad_multiplier)) {
      refuse("grad_multiplier", "a finite number", words(options.grad_multiplier));
    }
    const std::vector<Config>& knobs = plan.knobs();
    const std::span<const double> own = options.learning_rates;
    if (!own.empty() && options.learning_rate) refuse("learning_rates", "at most one of the two", "learning_rate too");
    if (!own.empty() && own.size() != knobs.size()) {
      refuse("learning_rates",
             counted(static_cast<std::int64_t>(knobs.size()), ", one for the config and one for each override"),
             counted(static_cast<std::int64_t>(own.size()), " numbers"));
    }
    const bool scheduled = options.learning_rate || !own.empty();
    rates_.resize(knobs.size());
    for (std::size_t row = 0; row < knobs.size(); ++row) {
      const double configured =
          options.learning_rate ? following(*options.learning_rate, knobs[row].learning_rate, knobs[0].learning_rate)
                                : knobs[row].learning_rate;
      rates_[row] = {own.empty() ? configured : own[row], scheduled};
      if (!kAtLeastZero.contains(rates_[row].value)) {
        refuse(own.empty() ? "learning_rate" : "learning_rates", words(kAtLeastZero), words(rates_[row].value));
      }
    }
  }

  // What a row of knobs makes of a rate for all rows.
  static double following(double rate, double own, double common) {
    if (own == common) return rate;
    if (common == 0) {
      throw Error({.knob = "learning_rate",
                   .expected = "learning_rates, one for each",
                   .found = "one for all, where the config has 0 and an override has not"});
    }
    return rate == common ? own : rate * (own / common);
  }

  std::vector<TensorView> parameters_;
  std::vector<TensorView> gradients_;
  std::vector<LearningRate> rates_;
  MemoryCheck memory_;
};

}}}  // namespace adafactor::ADAFACTOR_ABI::detail
