// Every knob of the optimizer once: its name, default, range and one sentence. Python's Config takes its checks from
// here.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>

#include "adafactor/error.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI {

// The words of the knobs that choose, in the order of their texts in `visit_knobs`. `raise` in C++: `step` changes
// nothing and says so in its Outcome, as with `skip`; whoever calls it raises.
enum class RelativeStep : std::uint8_t { off, on, always };
enum class CountUpdates : std::uint8_t { state, leaf };
enum class EpsilonMode : std::uint8_t { add, clamp };
enum class MomentumDType : std::uint8_t { float32, bfloat16 };
enum class MomentumOn : std::uint8_t { scaled, update };
enum class MomentumUse : std::uint8_t { stored, exact };
enum class Factored : std::uint8_t { off, last_two, largest_two, leading_two_or_last_two };
enum class WeightDecayOn : std::uint8_t { learning_rate, step, none };
enum class EmaOn : std::uint8_t { update, call };
enum class OnNonfinite : std::uint8_t { raise, skip, propagate };
enum class Rounding : std::uint8_t { nearest, stochastic };

// The knobs of one row of leaves, a plain struct: set members, then `validate` (or make a Plan, which does it). What
// each means and may be stands in `visit_knobs`; an absent optional is Python's None. The defaults are those of the
// documentation of keras.optimizers.Adafactor where it has the knob.
struct Config {
  double learning_rate = 0.001;
  RelativeStep relative_step = RelativeStep::on;
  bool warmup_init = false;
  double beta_2_decay = -0.8;
  std::optional<double> beta_2_cap = {};
  std::int64_t step_offset = 0;
  CountUpdates count_updates = CountUpdates::state;
  std::optional<double> epsilon_1 = 1e-30;
  EpsilonMode epsilon_1_mode = EpsilonMode::add;
  double epsilon_2 = 1e-3;
  bool scale_parameter = true;
  std::optional<double> max_parameter_scale = {};
  std::optional<double> clip_threshold = 1.0;
  std::optional<double> beta_1 = {};
  MomentumDType momentum_dtype = MomentumDType::float32;
  MomentumOn momentum_on = MomentumOn::scaled;
  MomentumUse momentum_use = MomentumUse::stored;
  Factored factored = Factored::last_two;
  std::int64_t min_dim_size_to_factor = 0;
  bool maximize = false;
  std::optional<double> weight_decay = {};
  WeightDecayOn weight_decay_on = WeightDecayOn::learning_rate;
  std::optional<bool> weight_decay_first = {};
  std::optional<double> clipnorm = {};
  std::optional<double> global_clipnorm = {};
  std::optional<double> clipvalue = {};
  bool use_ema = false;
  double ema_momentum = 0.99;
  std::optional<std::int64_t> ema_overwrite_frequency = {};
  EmaOn ema_on = EmaOn::update;
  std::optional<double> loss_scale_factor = {};
  std::optional<std::int64_t> gradient_accumulation_steps = {};
  OnNonfinite on_nonfinite = OnNonfinite::raise;
  Rounding rounding = Rounding::nearest;
  std::int64_t seed = 0;

  friend bool operator==(const Config&, const Config&) = default;

  // rms(p) is taken of the decayed parameter.
  bool decays_first() const { return weight_decay_first.value_or(weight_decay_on != WeightDecayOn::step); }
};

// An interval of allowed numbers; an open end excludes its bound.
struct Interval {
  double low;
  double high;
  bool low_open = false;
  bool high_open = false;

  bool contains(double x) const {
    return std::isfinite(x) && (low_open ? x > low : x >= low) && (high_open ? x < high : x <= high);
  }
};

// The ranges that knobs have. Counts end at 2^53, up to which a double holds every whole number.
inline constexpr double kInfinity = std::numeric_limits<double>::infinity();
inline constexpr Interval kAtLeastZero{0, kInfinity};
inline constexpr Interval kAboveZero{0, kInfinity, true};
inline constexpr Interval kAtMostZero{-kInfinity, 0};
inline constexpr Interval kZeroToOne{0, 1};
inline constexpr Interval kZeroToBelowOne{0, 1, false, true};
inline constexpr Interval kCount{0, 0x1p53};
inline constexpr Interval kAtLeastOne{1, 0x1p53};
inline constexpr Interval kAtLeastTwo{2, 0x1p53};

// The words of a knob that chooses, in the order of its enumeration.
struct Choices {
  const char* words[4];
};

// What a knob without a range takes: true or false.
struct Either {};
inline constexpr Either kEither;

// Whether a knob may differ from leaf to leaf, or has one value for the whole call.
enum class Scope : std::uint8_t { leaf, call };

// A knob: its name, its member, which values that may have (an Interval, Choices, Either), and what it does. T is what
// the member holds, perhaps an optional.
template <class T, class Allowed>
struct Knob {
  const char* name;
  T Config::* member;
  Allowed allowed;
  const char* sentence;
  Scope scope = Scope::leaf;
};
template <class T, class Allowed>
Knob(const char*, T Config::*, Allowed, const char*, Scope = Scope::leaf) -> Knob<T, Allowed>;

// Calls visit(knob) for every knob.
template <class Visitor>
void visit_knobs(Visitor&& visit) {
  visit(
      Knob{"learning_rate", &Config::learning_rate, kAtLeastZero, "size of a step, relative to the parameter's scale"});
  visit(Knob{"relative_step", &Config::relative_step, Choices{{"False", "True", "always"}},
             "caps the learning rate at 1/sqrt(t): when it is a number, never, or always"});
  visit(Knob{"warmup_init", &Config::warmup_init, kEither, "the learning rate is 1e-6 * t"});
  visit(Knob{"beta_2_decay", &Config::beta_2_decay, kAtMostZero, "beta2 = 1 - t^beta_2_decay"});
  visit(Knob{"beta_2_cap", &Config::beta_2_cap, kZeroToOne, "beta2 is at most this"});
  visit(Knob{"step_offset", &Config::step_offset, kCount, "in beta2, t is counted from here"});
  visit(Knob{"count_updates", &Config::count_updates, Choices{{"state", "leaf"}}, "whose updates t counts"});
  visit(
      Knob{"epsilon_1", &Config::epsilon_1, kAtLeastZero, "regularises the squared gradient; None: finfo(dtype).eps"});
  visit(Knob{"epsilon_1_mode", &Config::epsilon_1_mode, Choices{{"add", "clamp"}},
             "added to g^2, or a floor of the estimate"});
  visit(Knob{"epsilon_2", &Config::epsilon_2, kAtLeastZero, "floor of the parameter scale"});
  visit(Knob{"scale_parameter", &Config::scale_parameter, kEither, "the step is multiplied by max(epsilon_2, rms(p))"});
  visit(Knob{"max_parameter_scale", &Config::max_parameter_scale, kAboveZero, "ceiling of the parameter scale"});
  visit(Knob{"clip_threshold", &Config::clip_threshold, kAboveZero, "u is divided by max(1, rms(u) / clip_threshold)"});
  visit(Knob{"beta_1", &Config::beta_1, kZeroToBelowOne, "momentum; needs a buffer as large as the parameter"});
  visit(
      Knob{"momentum_dtype", &Config::momentum_dtype, Choices{{"float32", "bfloat16"}}, "how the momentum is stored"});
  visit(Knob{"momentum_on", &Config::momentum_on, Choices{{"scaled", "update"}}, "average of alpha * u, or of u"});
  visit(Knob{"momentum_use", &Config::momentum_use, Choices{{"stored", "exact"}},
             "step by the momentum after or before rounding"});
  visit(Knob{"factored", &Config::factored, Choices{{"False", "last_two", "largest_two", "leading_two_or_last_two"}},
             "which two axes of a leaf are factored"});
  visit(Knob{"min_dim_size_to_factor", &Config::min_dim_size_to_factor, kCount,
             "both factored axes must be at least this long"});
  visit(Knob{"maximize", &Config::maximize, kEither, "ascend instead of descend"});
  visit(Knob{"weight_decay", &Config::weight_decay, kAtLeastZero, "decoupled decay of the parameter"});
  visit(Knob{"weight_decay_on", &Config::weight_decay_on, Choices{{"learning_rate", "step", "none"}},
             "what multiplies the decay"});
  visit(Knob{"weight_decay_first", &Config::weight_decay_first, kEither, "rms(p) is that of the decayed parameter"});
  visit(Knob{"clipnorm", &Config::clipnorm, kAboveZero, "largest norm of the gradient of one leaf"});
  visit(Knob{"global_clipnorm", &Config::global_clipnorm, kAboveZero, "largest norm of all gradients together",
             Scope::call});
  visit(Knob{"clipvalue", &Config::clipvalue, kAboveZero, "largest absolute value of an element of the gradient"});
  visit(Knob{"use_ema", &Config::use_ema, kEither, "keep a moving average of the parameters", Scope::call});
  visit(Knob{"ema_momentum", &Config::ema_momentum, kZeroToOne, "decay of that average", Scope::call});
  visit(Knob{"ema_overwrite_frequency", &Config::ema_overwrite_frequency, kAtLeastOne,
             "every so many updates the average replaces the parameter", Scope::call});
  visit(Knob{"ema_on", &Config::ema_on, Choices{{"update", "call"}}, "the average moves on updates, or on every call",
             Scope::call});
  visit(Knob{"loss_scale_factor", &Config::loss_scale_factor, kAboveZero, "gradients are divided by it", Scope::call});
  visit(Knob{"gradient_accumulation_steps", &Config::gradient_accumulation_steps, kAtLeastTwo,
             "this many calls are averaged into one update", Scope::call});
  visit(Knob{"on_nonfinite", &Config::on_nonfinite, Choices{{"raise", "skip", "propagate"}},
             "what NaN or Inf in a gradient or a parameter does", Scope::call});
  visit(Knob{"rounding", &Config::rounding, Choices{{"nearest", "stochastic"}}, "how 16-bit parameters are rounded"});
  visit(Knob{"seed", &Config::seed, kCount, "of stochastic rounding", Scope::call});
}

namespace detail {

// A range, and a number, for a message.
ADAFACTOR_FUNCTION std::string words(const Interval& range);
ADAFACTOR_FUNCTION std::string words(double value);

}  // namespace detail

// Throws Error{knob, expected, found} at the first knob that is out of its range or contradicts another.
ADAFACTOR_FUNCTION void validate(const Config& config);

}}  // namespace adafactor::ADAFACTOR_ABI

#if ADAFACTOR_DEFINES_STEP

#include <cstdio>
#include <string_view>

namespace adafactor { inline namespace ADAFACTOR_ABI {

namespace detail {

ADAFACTOR_RARE ADAFACTOR_FUNCTION std::string words(const Interval& range) {
  const bool below = range.low == -kInfinity;
  const bool above = range.high == kInfinity || range.high == 0x1p53;
  const char* kind = range.high == 0x1p53 ? "whole" : "finite";
  char text[80];
  if (!below && !above) {
    std::snprintf(text, sizeof text, "a number in %c%g, %g%c", range.low_open ? '(' : '[', range.low, range.high,
                  range.high_open ? ')' : ']');
  } else if (above) {
    std::snprintf(text, sizeof text, "a %s number %s %g", kind, range.low_open ? ">" : ">=", range.low);
  } else {
    std::snprintf(text, sizeof text, "a %s number %s %g", kind, range.high_open ? "<" : "<=", range.high);
  }
  return text;
}

ADAFACTOR_RARE ADAFACTOR_FUNCTION std::string words(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%g", value);
  return text;
}

struct RangeCheck {
  const Config& config;

  ADAFACTOR_RARE void refuse_outside(const char* name, double value, const Interval& range) const {
    if (range.contains(value)) return;
    // The two knobs whose sign other libraries turn round say which convention is meant.
    const bool decay = std::string_view(name) == "beta_2_decay";
    throw Error({.knob = name,
                 .expected = words(range) + (decay ? " (beta2 = 1 - t**beta_2_decay, so -0.8 and not 0.8)" : ""),
                 .found = words(value)});
  }
  template <class T>
  void operator()(const Knob<T, Interval>& knob) const {
    refuse_outside(knob.name, static_cast<double>(config.*knob.member), knob.allowed);
  }
  template <class T>
  void operator()(const Knob<std::optional<T>, Interval>& knob) const {
    if (const std::optional<T>& value = config.*knob.member)
      refuse_outside(knob.name, static_cast<double>(*value), knob.allowed);
  }
  template <class T, class Words>
  void operator()(const Knob<T, Words>&) const {}
};

ADAFACTOR_RARE inline void refuse_together(bool both, const char* first, const char* second, const char* why) {
  if (both) throw Error({.knob = first, .found = std::string("contradicts ") + second + ": " + why});
}

}  // namespace detail

ADAFACTOR_RARE ADAFACTOR_FUNCTION void validate(const Config& config) {
  visit_knobs(detail::RangeCheck{config});
  using detail::refuse_together;
  refuse_together(config.warmup_init && config.relative_step == RelativeStep::off, "warmup_init", "relative_step=False",
                  "the warm-up is a relative step");
  if (!config.beta_1) {
    const char* why = "without beta_1 there is no momentum";
    refuse_together(config.momentum_dtype != MomentumDType::float32, "momentum_dtype", "beta_1=None", why);
    refuse_together(config.momentum_on != MomentumOn::scaled, "momentum_on", "beta_1=None", why);
    refuse_together(config.momentum_use != MomentumUse::stored, "momentum_use", "beta_1=None", why);
  }
  refuse_together(config.clipnorm && config.global_clipnorm, "clipnorm", "global_clipnorm", "give one of the two");
  refuse_together(config.clipnorm && config.clipvalue, "clipnorm", "clipvalue", "give one of the two");
  refuse_together(config.global_clipnorm && config.clipvalue, "global_clipnorm", "clipvalue", "give one of the two");
  refuse_together(config.weight_decay_first.value_or(false) && config.weight_decay_on == WeightDecayOn::step,
                  "weight_decay_first=True", "weight_decay_on='step'",
                  "the step's size needs rms(p) before the decay can be known");
  refuse_together(config.max_parameter_scale && *config.max_parameter_scale < config.epsilon_2, "max_parameter_scale",
                  "epsilon_2", "the ceiling of the parameter scale lies below its floor");
}

}}  // namespace adafactor::ADAFACTOR_ABI

#endif  // ADAFACTOR_DEFINES_STEP
