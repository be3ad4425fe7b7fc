// How a call is carried out: prepares the leaves, has a backend do the phases, and counts.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>

#include "adafactor/host/pages.hpp"
#include "adafactor/state.hpp"
#include "adafactor/step/backend.hpp"
#include "adafactor/step/call.hpp"
#include "adafactor/step/scalars.hpp"
#include "adafactor/step/walks.hpp"
#include "adafactor/step/workspace.hpp"

#include "adafactor/compiler/exact_begin.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI {

// The scratch of the state's steps; made at the first.
inline Workspace& workspace_of(State& state) {
  if (!state.scratch) state.scratch = std::make_unique<Workspace>(state.plan(), state.memory());
  return static_cast<Workspace&>(*state.scratch);
}

namespace detail {

// One call on a state: which leaves it updates and by which numbers, and what it counts.
class Step {
 public:
  Step(State& state, const Call& call)
      : state_(state), plan_(state.plan()), workspace_(workspace_of(state)), call_(call) {
    const auto every = plan_.call().gradient_accumulation_steps;
    updates_ = call.completes || !every || (state.calls + 1) % *every == 0;
    counted_ = call.completes ? *every - state.open_calls() : 1;
    mean_ = every ? 1 / static_cast<double>(call.completes ? state.open_calls() : *every) : 1;
    const auto overwrite = plan_.call().ema_overwrite_frequency;
    averages_ = plan_.call().use_ema && (updates_ || plan_.call().ema_on == EmaOn::call);
    averages_early_ = every && plan_.call().ema_on == EmaOn::call;
    overwrites_ = averages_ && overwrite && (state.updates + 1) % *overwrite == 0;
    multiplier_ = call.grad_multiplier / plan_.call().loss_scale_factor.value_or(1.0);
  }

  bool updates() const { return updates_; }

  // The norm of all G together; an accumulating call has the sum so far, and reports its part of the mean.
  double global_grad_norm() const { return (updates_ ? 1 : mean_) * workspace_.verdict.norm(); }

  void prepare_leaves() {
    workspace_.verdict = {};
    workspace_.threads = 0;
    was_stopped_ = false;
    Axis* axes = workspace_.axes.data();
    for (std::size_t i = 0; i < workspace_.leaves.size(); ++i) {
      const LeafPlan& plan = plan_.leaves()[i];
      Leaf& leaf = workspace_.leaves[i];
      if (call_.moved) axes = place_arrays(leaf, plan, i, axes);
      choose_action(leaf, plan, i);
      set_rule(leaf, plan, i);
    }
  }

  // At first, and after an update that had to leave a leaf alone, nothing is written before every leaf was measured.
  // That reads the arrays once more, but NaN and Inf in a parameter are nearly always there from the beginning.
  void update(Backend& backend) {
    if (looks_at_parameters()) {
      backend.measure();
      if (any_leaf([](const Leaf& leaf) { return leaf.stopped; })) workspace_.verdict.finite = false;
      if (!goes_on()) return;
      prepare_leaves();
    }
    backend.update();
  }

  void accumulate(Backend& backend) {
    backend.accumulate();
    // The parameters stay, but their average may move, and the caller may want them in another place.
    if (!goes_on()) return;
    for (std::size_t i = 0; i < workspace_.leaves.size(); ++i) {
      Leaf& leaf = workspace_.leaves[i];
      state_.counts[i].accumulated = state_.counts[i].accumulated || leaf.action == Action::accumulate;
      leaf.action = Action::keep;
    }
    backend.keep();
  }

  bool goes_on() const { return adafactor::goes_on(plan_, workspace_); }

  void count() {
    state_.skips = 0;
    state_.calls += counted_;
    if (!updates_) return;
    ++state_.updates;
    for (std::size_t i = 0; i < workspace_.leaves.size(); ++i) {
      const Leaf& leaf = workspace_.leaves[i];
      LeafCount& count = state_.counts[i];
      if (leaf.action == Action::update) ++count.updates;
      if (leaf.stopped) forget(leaf);
      if (leaf.in_verdict) count.stopped = leaf.stopped;
      count.accumulated = false;
    }
  }

  // A call that is skipped: the parameters as they were, where the caller wants them in another place.
  void pass_through(Backend& backend) {
    ++state_.skips;
    for (Leaf& leaf : workspace_.leaves) {
      leaf.action = Action::keep;
      leaf.averages = false;
    }
    backend.keep();
  }

  std::int64_t first_nonfinite() const {
    for (std::size_t i = 0; i < workspace_.leaves.size(); ++i) {
      const Leaf& leaf = workspace_.leaves[i];
      if (leaf.in_verdict && is_nonfinite(leaf)) return static_cast<std::int64_t>(i);
    }
    return -1;
  }

 private:
  template <class Condition>
  bool any_leaf(const Condition& condition) const {
    return std::any_of(workspace_.leaves.begin(), workspace_.leaves.end(), condition);
  }

  bool looks_at_parameters() const {
    if (plan_.call().on_nonfinite == OnNonfinite::propagate) return false;
    if (state_.updates > 0 && !was_stopped_) return false;
    return any_leaf([](const Leaf& leaf) { return leaf.measures(); });
  }

  // Forgets what the calls of the window have gathered of a leaf that its update left alone, and an average that has
  // moved on these calls, and may have taken NaN: it begins again when the leaf is updated.
  void forget(const Leaf& leaf) const {
    const std::int64_t size = leaf.size() * item_size(leaf.arithmetic);
    for (void* array : {leaf.after.accumulator, averages_early_ ? leaf.after.average : nullptr}) {
      if (array) std::memset(array, 0, static_cast<std::size_t>(size));
    }
  }

  // Walks are costly beside the step of a small leaf, so that none is made twice or in vain. Returns the next leaf's
  // axes.
  Axis* place_arrays(Leaf& leaf, const LeafPlan& plan, std::size_t index, Axis* axes) const {
    const TensorView& parameter = call_.parameters[index];
    const TensorView& output = call_.outputs[index];
    const TensorView& gradient = call_.gradients[index];
    const auto room = static_cast<std::int64_t>(std::max<std::size_t>(plan.spec.shape.size(), 1));
    leaf.parameter = make_walk(parameter, plan.layout, axes);
    const bool in_place = output.data == parameter.data && output.strides == parameter.strides;
    leaf.parameter_out = in_place ? leaf.parameter : make_walk(output, plan.layout, axes + room);
    if (plan.moves_factors()) {
      std::byte* place = workspace_.moments() + plan.col_factor;
      leaf.col_factor = place + bytes_apart(place, output.data);
    }
    leaf.gradient = gradient.data ? make_walk(gradient, plan.layout, axes + 2 * room) : Walk{};
    if (leaf.rounds_by_noise) {
      const TensorView in_order{nullptr, plan.spec.dtype, {}, parameter.rank, plan.spec.shape.data(), nullptr};
      leaf.elements = make_walk(in_order, plan.layout, axes + 3 * room);
    }
    return axes + 4 * room;
  }

  void choose_action(Leaf& leaf, const LeafPlan& plan, std::size_t index) {
    const bool present = call_.gradients[index].data != nullptr;
    const bool window = plan_.call().gradient_accumulation_steps.has_value();
    leaf.action = Action::keep;
    if (!updates_) {
      if (present) leaf.action = Action::accumulate;
    } else if (present || (window && state_.counts[index].accumulated)) {
      leaf.action = Action::update;
    }
    leaf.in_verdict = leaf.action != Action::keep;
    was_stopped_ = was_stopped_ || state_.counts[index].stopped;
    leaf.stopped = false;
    leaf.gradient_squares = 0;
    const Config& config = plan_.knobs_of(plan);
    leaf.multiplier = config.maximize ? -multiplier_ : multiplier_;
    leaf.accumulates = window && leaf.action != Action::keep;
    // The verdict is of what has been added up so far; the update is made from its mean.
    leaf.mean_factor = updates_ ? mean_ : 1;
    leaf.report_scale = updates_ ? 1 : mean_;
    leaf.clip_value = updates_ ? config.clipvalue.value_or(0) : 0;
  }

  // Neighbours mostly share their row of knobs and their count: a power is computed once for them.
  Scalars scalars_of(const LeafPlan& plan, std::int64_t t) {
    const Known key{plan.spec.knobs, plan.arithmetic, t};
    if (!(key == known_)) {
      known_ = key;
      known_scalars_ = make_scalars(plan_.knobs_of(plan), plan.arithmetic, t, call_.rates[plan.spec.knobs]);
    }
    return known_scalars_;
  }

  void set_rule(Leaf& leaf, const LeafPlan& plan, std::size_t index) {
    const Config& config = plan_.knobs_of(plan);
    const bool own = config.count_updates == CountUpdates::leaf;
    const std::int64_t t = (own ? state_.counts[index].updates : state_.updates) + 1;
    const Scalars scalars = scalars_of(plan, t);
    leaf.beta_2 = scalars.beta_2;
    leaf.one_minus_beta_2 = scalars.one_minus_beta_2;
    leaf.rho = scalars.rho;
    leaf.norm_factor = 1;
    leaf.wide = false;
    leaf.clip_factor = 1;
    leaf.noise.update = static_cast<std::uint64_t>(state_.counts[index].updates + 1);
    leaf.weight_decay = config.weight_decay.value_or(0);
    if (config.weight_decay_on == WeightDecayOn::learning_rate) leaf.weight_decay *= scalars.learning_rate;
    const bool was_forgotten = averages_early_ && state_.counts[index].stopped;
    leaf.averages = averages_ && (updates_ || !was_forgotten);
    leaf.starts_average = state_.updates == 0 || was_forgotten;
    leaf.overwrites = overwrites_;
  }

  // What scalars depend on.
  struct Known {
    std::size_t row = 0;
    DType arithmetic = DType::float32;
    std::int64_t t = 0;  // none
    friend bool operator==(const Known&, const Known&) = default;
  };

  State& state_;
  const Plan& plan_;
  Workspace& workspace_;
  const Call& call_;
  Known known_;
  Scalars known_scalars_{};
  std::int64_t counted_;  // calls: this one, and those that its window has not had
  double mean_;           // what a sum over the window is multiplied by
  double multiplier_;     // of the gradients, but for the sign of a leaf that is maximized
  bool updates_;
  bool averages_;
  bool averages_early_;  // also on calls that only accumulate
  bool overwrites_;
  bool was_stopped_ = false;  // some leaf, by the last update that looked at it
};

}  // namespace detail

}}  // namespace adafactor::ADAFACTOR_ABI

#include "adafactor/compiler/exact_end.hpp"
