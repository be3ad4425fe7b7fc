// By which numbers a call treats its leaves: what the knobs say once, and what goes with the call and its counters.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "adafactor/config.hpp"
#include "adafactor/plan.hpp"
#include "adafactor/plan/counters.hpp"
#include "adafactor/step/call.hpp"
#include "adafactor/step/leaf.hpp"
#include "adafactor/step/scalars.hpp"

#include "adafactor/compiler/exact_begin.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI { namespace detail {

// What no call changes.
inline Rule rule_of(const LeafPlan& plan, const Config& config) {
  constexpr double none = std::numeric_limits<double>::infinity();
  Rule rule;
  rule.epsilon_1 = config.epsilon_1.value_or(machine_epsilon(plan.spec.dtype));
  rule.clamps = config.epsilon_1_mode == EpsilonMode::clamp;
  rule.epsilon_2 = config.epsilon_2;
  rule.max_parameter_scale = config.max_parameter_scale.value_or(none);
  rule.clip_threshold = config.clip_threshold.value_or(none);
  rule.scales_parameter = config.scale_parameter;
  rule.clipnorm = config.clipnorm.value_or(none);
  rule.clips_by_norm = config.clipnorm || config.global_clipnorm;
  rule.beta_1 = config.beta_1.value_or(0);
  rule.has_momentum = config.beta_1.has_value();
  rule.momentum_of_scaled = config.momentum_on == MomentumOn::scaled;
  rule.uses_exact_momentum = config.momentum_use == MomentumUse::exact;
  rule.momentum_is_bfloat16 = config.momentum_dtype == MomentumDType::bfloat16;
  rule.decays_by_step = config.weight_decay_on == WeightDecayOn::step;
  rule.decays_first = config.decays_first();
  rule.ema_momentum = config.ema_momentum;
  rule.rounds_by_noise = config.rounding == Rounding::stochastic && rounds(plan.spec.dtype);
  rule.noise.key = plan.noise_key;
  rule.noise.first = plan.first_element;
  return rule;
}

// What one call changes: which leaves it updates, and the numbers that go with counters and rates.
class CallRule {
 public:
  CallRule(const Plan& plan, const Counters& counters, const Call& call)
      : plan_(plan), counters_(counters), call_(call) {
    const Config& knobs = plan_.call();
    const auto every = knobs.gradient_accumulation_steps;
    updates_ = call.completes || !every || (counters.calls + 1) % *every == 0;
    counted_ = call.completes ? *every - counters.open_calls(every) : 1;
    mean_ = every ? 1 / static_cast<double>(call.completes ? counters.open_calls(every) : *every) : 1;
    averages_ = knobs.use_ema && (updates_ || knobs.ema_on == EmaOn::call);
    averages_early_ = every && knobs.ema_on == EmaOn::call;
    const auto overwrite = knobs.ema_overwrite_frequency;
    overwrites_ = averages_ && overwrite && (counters.updates + 1) % *overwrite == 0;
    multiplier_ = call.grad_multiplier / knobs.loss_scale_factor.value_or(1.0);
  }

  // Whether the call makes an update, or only adds its gradients up.
  bool updates() const { return updates_; }
  // Calls that this one counts for: itself, and those that its window has not had.
  std::int64_t counted() const { return counted_; }
  // What a sum over the window is multiplied by.
  double mean() const { return mean_; }

  void set(Rule& rule, const LeafPlan& plan, std::size_t index) {
    const Config& config = plan_.knobs_of(plan);
    const LeafCount& count = counters_.leaves[index];
    choose_action(rule, plan, index, call_.gradients[index].data != nullptr);
    const bool own = config.count_updates == CountUpdates::leaf;
    const Scalars scalars = scalars_of(plan, (own ? count.updates : counters_.updates) + 1);
    rule.beta_2 = scalars.beta_2;
    rule.one_minus_beta_2 = scalars.one_minus_beta_2;
    rule.rho = scalars.rho;
    rule.noise.update = static_cast<std::uint64_t>(count.updates + 1);
    rule.weight_decay = config.weight_decay.value_or(0);
    if (config.weight_decay_on == WeightDecayOn::learning_rate) rule.weight_decay *= scalars.learning_rate;
    const bool was_forgotten = averages_early_ && count.stopped;
    rule.averages = averages_ && (updates_ || !was_forgotten);
    rule.averages_early = averages_early_;
    rule.starts_average = counters_.updates == 0 || was_forgotten;
    rule.overwrites = overwrites_;
    rule.writes_difference = call_.output == Output::differences;
  }

  // What the call does to a leaf that has a gradient or has none.
  Action action_of(std::size_t index, bool is_given) const {
    if (!updates_) return is_given ? Action::accumulate : Action::keep;
    return is_given || (accumulates() && counters_.leaves[index].accumulated) ? Action::update : Action::keep;
  }

  // The same with what goes with it. Of a part of a leaf it may be known only when the parts have told each other.
  void choose_action(Rule& rule, const LeafPlan& plan, std::size_t index, bool is_given) const {
    const Config& config = plan_.knobs_of(plan);
    rule.action = action_of(index, is_given);
    rule.multiplier = config.maximize ? -multiplier_ : multiplier_;
    rule.accumulates = accumulates() && rule.action != Action::keep;
    // The verdict is of what has been added up so far; the update is made from its mean.
    rule.mean_factor = updates_ ? mean_ : 1;
    rule.report_scale = updates_ ? 1 : mean_;
    rule.clip_value = updates_ ? config.clipvalue.value_or(0) : 0;
  }

 private:
  bool accumulates() const { return plan_.call().gradient_accumulation_steps.has_value(); }

  // Neighbours mostly share their row of knobs and their count: a power is computed once for them.
  Scalars scalars_of(const LeafPlan& plan, std::int64_t t) {
    const Known key{plan.spec.knobs, plan.arithmetic, t};
    if (!(key == known_)) {
      known_ = key;
      known_scalars_ = make_scalars(plan_.knobs_of(plan), plan.arithmetic, t, call_.rates[plan.spec.knobs]);
    }
    return known_scalars_;
  }

  // What scalars depend on.
  struct Known {
    std::size_t row = 0;
    DType arithmetic = DType::float32;
    std::int64_t t = 0;  // none
    friend bool operator==(const Known&, const Known&) = default;
  };

  const Plan& plan_;
  const Counters& counters_;
  Call call_;
  Known known_;
  Scalars known_scalars_{};
  std::int64_t counted_;
  double mean_;
  double multiplier_;  // of the gradients, but for the sign of a leaf that is maximized
  bool updates_;
  bool averages_;
  bool averages_early_;
  bool overwrites_;
};

}}}  // namespace adafactor::ADAFACTOR_ABI::detail

#include "adafactor/compiler/exact_end.hpp"
