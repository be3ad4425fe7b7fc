// The knobs: the limits of every range from both sides, the contradictions, and what an Error says of them.
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "adafactor/config.hpp"
#include "support/check.hpp"

namespace {

using adafactor::Config;
using adafactor::Error;
using adafactor::ErrorKind;

// The error that validate() throws; fails the check where it throws none.
Error error_of(const Config& config, const std::string& what) {
  try {
    adafactor::validate(config);
  } catch (const Error& error) {
    return error;
  }
  CHECK_EQ(what, std::string("an Error"));
  return Error({});
}

bool valid(const Config& config) {
  try {
    adafactor::validate(config);
    return true;
  } catch (const Error&) {
    return false;
  }
}

template <class T>
T step_towards(T value, double direction) {
  if constexpr (std::is_integral_v<T>) {
    return static_cast<T>(value + (direction > 0 ? 2 : -1));  // 2^53 + 1 is no double
  } else {
    return std::nextafter(value, direction);
  }
}

// Tries each limit of a knob's range, the numbers next to it, and what is no number.
struct TryLimits {
  std::vector<std::string> names;

  template <class T, class Member>
  void try_range(const char* name, Member member, const adafactor::Interval& range) const {
    const auto with = [&](T value) {
      Config config;
      config.epsilon_2 = 0;  // so that no ceiling of the parameter scale lies below it
      config.*member = value;
      return config;
    };
    const auto accepts = [&](T value, bool wanted) {
      const std::string text = std::string(name) + " = " + std::to_string(value);
      CHECK_EQ(text + (valid(with(value)) ? " valid" : " invalid"), text + (wanted ? " valid" : " invalid"));
      if (wanted) return;
      const Error error = error_of(with(value), text);
      CHECK(error.kind() == ErrorKind::value);
      CHECK_EQ(error.knob(), std::string(name));
      CHECK_EQ(error.leaf(), -1);
      CHECK(error.role().empty() && !error.expected().empty() && !error.found().empty());
    };
    if (std::isfinite(range.low)) {
      const auto low = static_cast<T>(range.low);
      accepts(low, !range.low_open);
      accepts(step_towards(low, -adafactor::kInfinity), false);
      accepts(step_towards(low, adafactor::kInfinity), true);
    } else {
      accepts(static_cast<T>(-1e15), true);
    }
    if (std::isfinite(range.high)) {
      const auto high = static_cast<T>(range.high);
      accepts(high, !range.high_open);
      accepts(step_towards(high, adafactor::kInfinity), false);
      if (std::isfinite(range.low)) accepts(static_cast<T>(high / 2 + static_cast<T>(range.low) / 2), true);
    } else {
      accepts(static_cast<T>(1e15), true);
    }
    if constexpr (std::is_floating_point_v<T>) {
      accepts(std::numeric_limits<T>::quiet_NaN(), false);
      accepts(std::numeric_limits<T>::infinity(), false);
      accepts(-std::numeric_limits<T>::infinity(), false);
    }
  }

  template <class T>
  void operator()(const adafactor::Knob<T, adafactor::Interval>& knob) {
    names.push_back(knob.name);
    try_range<T>(knob.name, knob.member, knob.allowed);
  }
  template <class T>
  void operator()(const adafactor::Knob<std::optional<T>, adafactor::Interval>& knob) {
    names.push_back(knob.name);
    try_range<T>(knob.name, knob.member, knob.allowed);
    Config config;
    config.*knob.member = std::nullopt;
    CHECK(valid(config));
  }
  template <class T>
  void operator()(const adafactor::Knob<T, adafactor::Choices>& knob) {
    names.push_back(knob.name);
    CHECK(knob.allowed.words[0] != nullptr && knob.allowed.words[1] != nullptr);
  }
  template <class T>
  void operator()(const adafactor::Knob<T, adafactor::Either>& knob) {
    names.push_back(knob.name);
  }
};

void every_knob_keeps_its_range() {
  TryLimits limits;
  adafactor::visit_knobs(limits);
  const std::vector<std::string> expected{"learning_rate",
                                          "relative_step",
                                          "warmup_init",
                                          "beta_2_decay",
                                          "beta_2_cap",
                                          "step_offset",
                                          "count_updates",
                                          "epsilon_1",
                                          "epsilon_1_mode",
                                          "epsilon_2",
                                          "scale_parameter",
                                          "max_parameter_scale",
                                          "clip_threshold",
                                          "beta_1",
                                          "momentum_dtype",
                                          "momentum_on",
                                          "momentum_use",
                                          "factored",
                                          "min_dim_size_to_factor",
                                          "maximize",
                                          "weight_decay",
                                          "weight_decay_on",
                                          "weight_decay_first",
                                          "clipnorm",
                                          "global_clipnorm",
                                          "clipvalue",
                                          "use_ema",
                                          "ema_momentum",
                                          "ema_overwrite_frequency",
                                          "ema_on",
                                          "loss_scale_factor",
                                          "gradient_accumulation_steps",
                                          "on_nonfinite",
                                          "rounding",
                                          "seed"};
  CHECK_EQ(limits.names, expected);
}

void the_defaults_are_valid_and_keras_documented_ones() {
  const Config config;
  CHECK(valid(config));
  CHECK_EQ(config.learning_rate, 0.001);
  CHECK_EQ(config.beta_2_decay, -0.8);
  CHECK_EQ(config.epsilon_1.value(), 1e-30);
  CHECK_EQ(config.epsilon_2, 1e-3);
  CHECK_EQ(config.clip_threshold.value(), 1.0);
  CHECK(config.relative_step == adafactor::RelativeStep::on);
  CHECK(config == Config{});
}

// Sets one knob after another and expects the error to name the first of the two that contradict each other.
template <class Change>
void contradiction(const char* first, const char* second, const Change& change) {
  Config config;
  change(config);
  const Error error = error_of(config, std::string(first) + " with " + second);
  CHECK_EQ(error.knob(), std::string(first));
  CHECK(error.found().find(std::string("contradicts ") + second) == 0);
  CHECK_EQ(std::string(error.what()), error.knob() + ": " + error.found());
}

void contradictions_are_refused() {
  contradiction("warmup_init", "relative_step=False", [](Config& config) {
    config.warmup_init = true;
    config.relative_step = adafactor::RelativeStep::off;
  });
  contradiction("momentum_dtype", "beta_1=None",
                [](Config& config) { config.momentum_dtype = adafactor::MomentumDType::bfloat16; });
  contradiction("momentum_on", "beta_1=None",
                [](Config& config) { config.momentum_on = adafactor::MomentumOn::update; });
  contradiction("momentum_use", "beta_1=None",
                [](Config& config) { config.momentum_use = adafactor::MomentumUse::exact; });
  contradiction("clipnorm", "global_clipnorm", [](Config& config) { config.clipnorm = config.global_clipnorm = 1.0; });
  contradiction("clipnorm", "clipvalue", [](Config& config) { config.clipnorm = config.clipvalue = 1.0; });
  contradiction("global_clipnorm", "clipvalue",
                [](Config& config) { config.global_clipnorm = config.clipvalue = 1.0; });
  contradiction("weight_decay_first=True", "weight_decay_on='step'", [](Config& config) {
    config.weight_decay_first = true;
    config.weight_decay_on = adafactor::WeightDecayOn::step;
  });
  contradiction("max_parameter_scale", "epsilon_2", [](Config& config) {
    config.max_parameter_scale = 0.5;
    config.epsilon_2 = 0.75;
  });
}

void what_looks_like_a_contradiction_and_is_none_is_accepted() {
  Config config;
  config.beta_1 = 0.9;
  config.momentum_dtype = adafactor::MomentumDType::bfloat16;
  config.momentum_on = adafactor::MomentumOn::update;
  config.momentum_use = adafactor::MomentumUse::exact;
  config.weight_decay_on = adafactor::WeightDecayOn::step;
  config.weight_decay_first = false;
  config.max_parameter_scale = config.epsilon_2;
  config.clipvalue = 1.0;
  CHECK(valid(config));
  config = {};
  config.warmup_init = true;
  config.relative_step = adafactor::RelativeStep::always;
  CHECK(valid(config));
}

void the_decay_comes_first_unless_it_needs_the_step() {
  Config config;
  CHECK(config.decays_first());
  config.weight_decay_on = adafactor::WeightDecayOn::none;
  CHECK(config.decays_first());
  config.weight_decay_first = false;
  CHECK(!config.decays_first());
  config.weight_decay_first.reset();
  config.weight_decay_on = adafactor::WeightDecayOn::step;
  CHECK(!config.decays_first());
}

void an_error_says_what_was_expected_and_found() {
  Config config;
  config.beta_2_decay = 0.8;
  CHECK_EQ(CHECK_THROWS(adafactor::validate(config), Error),
           "beta_2_decay: 0.8, expected a finite number <= 0 (beta2 = 1 - t**beta_2_decay, so -0.8 and not 0.8)");
  config = {};
  config.beta_1 = 1.0;
  CHECK_EQ(CHECK_THROWS(adafactor::validate(config), Error), "beta_1: 1, expected a number in [0, 1)");
  config = {};
  config.clipnorm = 0.0;
  CHECK_EQ(CHECK_THROWS(adafactor::validate(config), Error), "clipnorm: 0, expected a finite number > 0");
}

}  // namespace

int main() {
  every_knob_keeps_its_range();
  the_defaults_are_valid_and_keras_documented_ones();
  contradictions_are_refused();
  what_looks_like_a_contradiction_and_is_none_is_accepted();
  the_decay_comes_first_unless_it_needs_the_step();
  an_error_says_what_was_expected_and_found();
  return check::report();
}
