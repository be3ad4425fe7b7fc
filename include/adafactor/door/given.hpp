// What a program hands to a call of an Optimizer, as a session takes it: arrays by pointers, matrices or views, and
// what may differ from call to call.
#pragma once

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "adafactor/door/arguments.hpp"
#include "adafactor/door/session.hpp"
#include "adafactor/error.hpp"
#include "adafactor/plan.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI { namespace detail {

// Whether a view that was taken, with the plan's shape, is that of this array.
inline bool is_of(const TensorView& view, const TensorView& array) {
  if (view.data != array.data || view.dtype != array.dtype || view.rank != array.rank) return false;
  if (view.device != array.device || !view.strides != !array.strides) return false;
  if (view.shape != array.shape && !std::equal(view.shape, view.shape + view.rank, array.shape)) return false;
  return !view.strides || std::equal(view.strides, view.strides + view.rank, array.strides);
}

// Makes a view that of an array of the caller's, with strides of its own; says whether it was another.
ADAFACTOR_FUNCTION bool renew(TensorView& view, TensorView array, const LeafPlan& leaf, std::int64_t index, Role role,
                              std::int64_t* strides);

// The arrays of one call. One without data is absent where it is a gradient, and has none of its elements elsewhere.
template <class Params, class Grads>
class Given {
 public:
  Given(const Plan& plan, std::span<const Params> params, std::span<const Grads> grads)
      : plan_(plan), params_(params), grads_(grads) {
    require_one_each(params.size(), Role::params);
    require_one_each(grads.size(), Role::grads);
  }

  bool operator()(Purpose purpose, std::size_t leaf, TensorView& view, std::int64_t* strides) const {
    if (purpose != Purpose::gradient) return take(view, Parameter(params_[leaf]), leaf, Role::params, strides);
    const Gradient gradient(grads_[leaf]);
    if (!gradient.is_plainly(view) && gradient.absent()) return std::exchange(view, {}).data != nullptr;
    return take(view, gradient, leaf, Role::grads, strides);
  }

 private:
  using Parameter = std::conditional_t<std::same_as<Params, TensorView>, ParameterArray, const Params&>;
  using Gradient = std::conditional_t<std::same_as<Grads, TensorView>, GradientArray, const Grads&>;

  bool take(TensorView& view, const Argument& array, std::size_t leaf, Role role, std::int64_t* strides) const {
    if (view.data && array.is_plainly(view)) return false;
    const LeafPlan& plan = plan_.leaves()[leaf];
    return renew(view, array.view(plan), plan, static_cast<std::int64_t>(leaf), role, strides);
  }

  void require_one_each(std::size_t count, Role role) const {
    if (count == plan_.leaves().size()) return;
    throw Error({.role = name(role),
                 .expected = counted(static_cast<std::int64_t>(plan_.leaves().size()), ", one for each leaf"),
                 .found = counted(static_cast<std::int64_t>(count), " arrays")});
  }

  const Plan& plan_;
  std::span<const Params> params_;
  std::span<const Grads> grads_;
};

// The learning rates that the options of a call say, one for each row of knobs. Throws Error{knob} where they cannot
// be.
ADAFACTOR_FUNCTION void set_rates(std::vector<LearningRate>& rates, const Plan& plan, const StepOptions& options);

}}}  // namespace adafactor::ADAFACTOR_ABI::detail

#if ADAFACTOR_DEFINES_STEP

namespace adafactor { inline namespace ADAFACTOR_ABI { namespace detail {

ADAFACTOR_FUNCTION bool renew(TensorView& view, TensorView array, const LeafPlan& leaf, std::int64_t index, Role role,
                              std::int64_t* strides) {
  static std::byte nothing{};
  const auto refuse = [&](const char* expected, const char* found) {
    throw Error({.role = name(role), .leaf = index, .expected = expected, .found = found});
  };
  if (array.rank > 0 && !array.shape) refuse("a shape", "a view without one");
  if (!array.data) {
    check_view(array, leaf, role, index);
    // A leaf without elements may lie nowhere, and has a gradient all the same.
    if (leaf.layout.size() > 0) {
      refuse(role == Role::grads ? "its elements, or nullptr itself where there is none" : "its elements",
             "a null pointer");
    }
    array.data = &nothing;
  }
  if (is_of(view, array)) return false;
  view = array;
  if (array.strides && array.rank <= static_cast<int>(leaf.spec.shape.size())) {
    std::copy_n(array.strides, array.rank, strides);
    view.strides = strides;
  }
  return true;
}

// What a row of knobs makes of a rate for all rows.
inline double following(double rate, double own, double common) {
  if (own == common) return rate;
  if (common == 0) {
    throw Error({.knob = "learning_rate",
                 .expected = "learning_rates, one for each",
                 .found = "one for all, where the config has 0 and an override has not"});
  }
  return rate == common ? own : rate * (own / common);
}

ADAFACTOR_EACH_CALL ADAFACTOR_FUNCTION void set_rates(std::vector<LearningRate>& rates, const Plan& plan,
                                                      const StepOptions& options) {
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
  rates.resize(knobs.size());
  for (std::size_t row = 0; row < knobs.size(); ++row) {
    const double configured = knobs[row].learning_rate;
    LearningRate& rate = rates[row];
    rate = {configured, options.learning_rate || !own.empty()};
    if (options.learning_rate) rate.value = following(*options.learning_rate, configured, knobs[0].learning_rate);
    if (!own.empty()) rate.value = own[row];
    if (!kAtLeastZero.contains(rate.value)) {
      refuse(own.empty() ? "learning_rate" : "learning_rates", words(kAtLeastZero), words(rate.value));
    }
  }
}

}}}  // namespace adafactor::ADAFACTOR_ABI::detail

#endif  // ADAFACTOR_DEFINES_STEP
