// Whole steps through the headers: against the plain update in long double, in place against into other arrays, and
// what is refused or left alone.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "adafactor/adafactor.hpp"
#include "adafactor/cpu/kernels.hpp"
#include "support/check.hpp"
#include "support/digest.hpp"
#include "support/plain_step.hpp"

namespace {

using adafactor::Config;
using adafactor::DType;
using adafactor::LeafSpec;
using adafactor::Plan;
using adafactor::State;
using adafactor::TensorView;
using Shape = std::vector<std::int64_t>;

plain::Numbers numbers_of(const void* data, DType dtype, std::int64_t count) {
  plain::Numbers result;
  for (std::int64_t i = 0; i < count; ++i) {
    if (dtype == DType::float64) {
      result.push_back(static_cast<const double*>(data)[i]);
    } else {
      result.push_back(static_cast<plain::Number>(static_cast<const float*>(data)[i]));
    }
  }
  return result;
}

plain::Numbers numbers_of(const TensorView& view, std::int64_t count) {
  return numbers_of(view.data, view.dtype, count);
}

// What a state holds of its only leaf; nothing where it has no such array.
plain::Numbers numbers_of(const State& state, adafactor::StateKind kind) {
  const adafactor::StateArray& array = state.plan().leaves()[0].state[static_cast<std::size_t>(kind)];
  if (!array.exists()) return {};
  return numbers_of(state.memory() + array.offset, array.dtype, array.count);
}

adafactor::Outcome step(State& state, const digest::Arrays& parameters, const digest::Arrays& gradients,
                        const digest::Arrays& outputs, bool moved = true) {
  const adafactor::LearningRate rate{state.plan().call().learning_rate, false};
  return adafactor::step(state, {parameters.views(), gradients.views(), outputs.views(), &rate, 1, moved},
                         adafactor::cpu_backend());
}

struct Setting {
  std::string name;
  Config config;
};

std::vector<Setting> settings() {
  std::vector<Setting> result;
  const auto add = [&](const char* name, const auto& change) {
    Config config;
    config.learning_rate = 0.05;
    change(config);
    adafactor::validate(config);
    result.push_back({name, config});
  };
  add("plain", [](Config&) {});
  add("no clipping", [](Config& c) { c.clip_threshold.reset(); });
  add("tight clipping", [](Config& c) { c.clip_threshold = 0.25; });
  add("a rate above 1/sqrt(t), and another decay", [](Config& c) {
    c.learning_rate = 10;
    c.beta_2_decay = -0.5;
  });
  add("unfactored", [](Config& c) { c.factored = adafactor::Factored::off; });
  add("momentum of the scaled update", [](Config& c) { c.beta_1 = 0.9; });
  add("momentum of the update", [](Config& c) {
    c.beta_1 = 0.8;
    c.momentum_on = adafactor::MomentumOn::update;
    c.weight_decay = 0.01;
  });
  add("average", [](Config& c) {
    c.use_ema = true;
    c.ema_momentum = 0.7;
    c.ema_overwrite_frequency = 3;
  });
  add("accumulation", [](Config& c) { c.gradient_accumulation_steps = 2; });
  add("clipnorm", [](Config& c) { c.clipnorm = 0.5; });
  add("global_clipnorm", [](Config& c) { c.global_clipnorm = 0.5; });
  add("clipvalue", [](Config& c) { c.clipvalue = 0.125; });
  add("decay on the learning rate", [](Config& c) { c.weight_decay = 0.5; });
  add("decay on nothing, second", [](Config& c) {
    c.weight_decay = 0.1;
    c.weight_decay_on = adafactor::WeightDecayOn::none;
    c.weight_decay_first = false;
  });
  add("decay on the step", [](Config& c) {
    c.weight_decay = 0.5;
    c.weight_decay_on = adafactor::WeightDecayOn::step;
  });
  add("clamp", [](Config& c) {
    c.epsilon_1 = 0.25;
    c.epsilon_1_mode = adafactor::EpsilonMode::clamp;
  });
  add("no scale", [](Config& c) {
    c.scale_parameter = false;
    c.clip_threshold.reset();
    c.maximize = true;
    c.loss_scale_factor = 4.0;
  });
  add("limits", [](Config& c) {
    c.max_parameter_scale = 0.25;
    c.clip_threshold = 0.5;
    c.beta_2_cap = 0.5;
    c.step_offset = 1;
    c.relative_step = adafactor::RelativeStep::always;
    c.learning_rate = 10;
  });
  return result;
}

// The largest difference, in units of the largest number.
void are_near(const std::string& name, const plain::Numbers& found, const plain::Numbers& expected, double tolerance) {
  CHECK_EQ(found.size(), expected.size());
  if (found.size() != expected.size()) return;
  plain::Number worst = 0;
  plain::Number largest = 0;
  for (std::size_t k = 0; k < found.size(); ++k) {
    const plain::Number difference = std::abs(found[k] - expected[k]);
    if (!(difference <= worst)) worst = difference;  // a NaN too
    largest = std::max(largest, std::abs(expected[k]));
  }
  const bool near = worst <= tolerance * largest;
  CHECK_EQ(name + (near ? "" : " differs by " + check::describe(static_cast<double>(worst / largest))), name);
}

// The tolerances, 1e-6 for float and 1e-13 for double, are a few dozen roundings, one or two for each operation of the
// five updates.
void agrees_with_the_plain_update(const Setting& setting, const Shape& shape, DType dtype) {
  const std::vector<LeafSpec> leaves{{shape, dtype}};
  State state(std::make_shared<const Plan>(leaves, std::vector{setting.config}));
  digest::Arrays parameters(leaves);
  digest::Arrays gradients(leaves);
  parameters.fill(3, {-2, 1, 0});
  const adafactor::LeafPlan& leaf = state.plan().leaves()[0];
  const std::int64_t count = parameters.count(0);
  plain::Leaf expected(setting.config, leaf.layout, numbers_of(parameters.views()[0], count));
  bool updated = false;
  for (std::uint64_t call = 0; call < 5; ++call) {
    gradients.fill(50 + call, {-3, 2, 0});
    updated = step(state, parameters, gradients, parameters).updated;
    expected.step(numbers_of(gradients.views()[0], count));
  }
  const double tolerance = dtype == DType::float64 ? 1e-13 : 1e-6;
  const std::string name = setting.name + " " + check::describe(shape) + " " + adafactor::name(dtype);
  are_near(name, numbers_of(parameters.views()[0], count), expected.p, tolerance);
  are_near(name + " row", numbers_of(state, adafactor::StateKind::row), expected.row, tolerance);
  are_near(name + " col", numbers_of(state, adafactor::StateKind::col), expected.col, tolerance);

  const adafactor::LeafReport report = adafactor::report(state, 0, updated);
  if (!updated) return;
  CHECK_NEAR(report.step_size, static_cast<double>(expected.alpha), tolerance * report.step_size);
  CHECK_NEAR(report.clip_factor, static_cast<double>(expected.clip_factor), 4 * tolerance);
  if (!setting.config.scale_parameter) return;
  CHECK_NEAR(report.update_rms, static_cast<double>(expected.update_rms), 4 * tolerance * report.update_rms);
  CHECK_NEAR(report.param_rms, static_cast<double>(expected.parameter_rms), 4 * tolerance * report.param_rms);
}

const std::vector<Shape> kShapes{{},      {1},     {7},      {700},    {1, 1},     {5, 3},
                                 {1, 40}, {40, 1}, {20, 33}, {64, 33}, {3, 4, 17}, {300, 530}};

void steps_agree_with_the_plain_update() {
  for (const Setting& setting : settings()) {
    for (const Shape& shape : kShapes) {
      for (const DType dtype : {DType::float32, DType::float64}) agrees_with_the_plain_update(setting, shape, dtype);
    }
  }
}

void other_arrays_get_the_same_bits_and_the_old_ones_stay() {
  const std::vector<LeafSpec> leaves{{{300, 30}, DType::float32}, {{11}, DType::float64}, {{0, 2}, DType::float32}};
  for (const Setting& setting : settings()) {
    const auto plan = std::make_shared<const Plan>(leaves, std::vector{setting.config});
    State in_place(plan);
    State apart(plan);
    digest::Arrays parameters(leaves);
    digest::Arrays gradients(leaves);
    digest::Arrays outputs(leaves);
    parameters.fill(3, {-2, 1, 0});
    gradients.fill(50, {-2, 1, 0});
    const std::uint64_t before = parameters.fold_into(0);
    const std::uint64_t gradients_before = gradients.fold_into(0);
    step(apart, parameters, gradients, outputs);
    CHECK_EQ(parameters.fold_into(0), before);
    step(in_place, parameters, gradients, parameters);
    CHECK_EQ(outputs.fold_into(0), parameters.fold_into(0));
    CHECK_EQ(gradients.fold_into(0), gradients_before);
    const auto nbytes = static_cast<std::size_t>(plan->state_nbytes());
    CHECK(std::memcmp(in_place.memory(), apart.memory(), nbytes) == 0);
  }
}

// What a state remembers of where they lie is as good as what it is told, a skipped call included.
void arrays_that_have_not_moved_are_found_again() {
  const std::vector<LeafSpec> leaves{{{300, 30}, DType::float32}, {{11}, DType::float64}, {{6, 8}, DType::float32}};
  for (const Setting& setting : settings()) {
    const auto plan = std::make_shared<const Plan>(leaves, std::vector{setting.config});
    State told(plan);
    State remembering(plan);
    digest::Arrays parameters[] = {digest::Arrays(leaves), digest::Arrays(leaves)};
    digest::Arrays gradients(leaves);
    for (digest::Arrays& each : parameters) each.fill(3, {-2, 1, 0});
    for (std::uint64_t call = 0; call < 6; ++call) {
      gradients.fill(50 + call, {-2, 1, 0});
      if (call == 3) static_cast<float*>(gradients.views()[2].data)[5] = std::numeric_limits<float>::infinity();
      const bool updated = step(told, parameters[0], gradients, parameters[0]).updated;
      CHECK_EQ(step(remembering, parameters[1], gradients, parameters[1], call == 0).updated, updated);
      CHECK_EQ(parameters[0].fold_into(0), parameters[1].fold_into(0));
    }
    CHECK(std::memcmp(told.memory(), remembering.memory(), static_cast<std::size_t>(plan->state_nbytes())) == 0);
  }
}

// Two leaves, the second with something in its gradient.
struct Pair {
  explicit Pair(const Config& config) : state(std::make_shared<const Plan>(leaves, std::vector{config})) {
    parameters.fill(3, {-2, 1, 0});
    gradients.fill(50, {-2, 1, 0});
  }

  std::vector<std::byte> memory() { return {state.memory(), state.memory() + state.plan().state_nbytes()}; }

  std::vector<LeafSpec> leaves{{{20, 30}, DType::float32}, {{20, 30}, DType::float32}};
  State state;
  digest::Arrays parameters{leaves};
  digest::Arrays gradients{leaves};
  digest::Arrays outputs{leaves};
};

void a_gradient_that_is_not_finite_changes_nothing() {
  for (const Setting& setting : settings()) {
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), 1e30f}) {
      Pair pair(setting.config);
      const std::vector<std::byte> state_before = pair.memory();
      const std::uint64_t before = pair.parameters.fold_into(0);
      static_cast<float*>(pair.gradients.views()[1].data)[599] = bad;
      const adafactor::Outcome outcome = step(pair.state, pair.parameters, pair.gradients, pair.outputs);
      CHECK(outcome.skipped && !outcome.updated);
      CHECK_EQ(outcome.nonfinite_leaf, 1);
      CHECK(adafactor::report(pair.state, 1, false).nonfinite);
      CHECK(!adafactor::report(pair.state, 0, false).nonfinite);
      CHECK(pair.memory() == state_before);
      CHECK_EQ(pair.state.counters.calls, 0);
      CHECK_EQ(pair.outputs.fold_into(0), before);  // they get the parameters as they were
    }
  }
}

void a_leaf_without_a_gradient_is_left_alone() {
  Config config;
  config.beta_1 = 0.9;
  Pair pair(config);
  const plain::Numbers before = numbers_of(pair.parameters.views()[1], 600);
  std::vector<TensorView> gradients(pair.gradients.views(), pair.gradients.views() + 2);
  gradients[1] = {};
  const adafactor::LearningRate rate{0.1, false};
  const adafactor::Outcome outcome =
      adafactor::step(pair.state, {pair.parameters.views(), gradients.data(), pair.outputs.views(), &rate, 1},
                      adafactor::cpu_backend());
  CHECK(outcome.updated);
  CHECK(numbers_of(pair.outputs.views()[1], 600) == before);
  CHECK(numbers_of(pair.outputs.views()[0], 600) != numbers_of(pair.parameters.views()[0], 600));
  CHECK_EQ(pair.state.counters.leaves[0].updates, 1);
  CHECK_EQ(pair.state.counters.leaves[1].updates, 0);
  CHECK(std::isnan(adafactor::report(pair.state, 1, true).grad_norm));
}

// check_view: every way in which a view may not be what the plan says, and which of them the error names.
void views_are_held_against_the_plan() {
  const Plan plan(std::vector<LeafSpec>{{{3, 4}, DType::float32}}, std::vector{Config{}});
  float memory[12] = {};
  const Shape shape{3, 4};
  const Shape other{4, 3};
  const Shape huge{std::numeric_limits<std::int64_t>::max() / 4, 1};
  const Shape backwards{-4, -1};
  const TensorView good{memory, DType::float32, {}, 2, shape.data(), nullptr};
  const auto refused = [&](const TensorView& view, adafactor::ErrorKind kind, const std::string& words) {
    try {
      adafactor::check_view(view, plan.leaves()[0], adafactor::Role::grads, 7);
      CHECK_EQ(words, std::string("refused"));
    } catch (const adafactor::Error& error) {
      CHECK(error.kind() == kind);
      CHECK_EQ(error.role(), std::string("grads"));
      CHECK_EQ(error.leaf(), 7);
      CHECK_EQ(std::string(error.what()), "grads leaf 7: " + words);
    }
  };
  adafactor::check_view(good, plan.leaves()[0], adafactor::Role::grads, 7);
  TensorView view = good;
  view.strides = backwards.data();
  adafactor::check_view(view, plan.leaves()[0], adafactor::Role::grads, 7);
  view = good;
  view.dtype = DType::float64;
  refused(view, adafactor::ErrorKind::type, "dtype float64, expected float32, bfloat16 or float16");
  view = good;
  view.shape = other.data();
  refused(view, adafactor::ErrorKind::value, "shape (4, 3), expected (3, 4)");
  view.rank = 1;
  refused(view, adafactor::ErrorKind::value, "shape (4,), expected (3, 4)");
  view.rank = 0;
  refused(view, adafactor::ErrorKind::value, "shape (), expected (3, 4)");
  view = good;
  view.device.type = adafactor::DeviceType::cuda;
  refused(view, adafactor::ErrorKind::value, "an array on cuda:0, expected an array in the CPU's memory");
  view = good;
  view.strides = huge.data();
  refused(view, adafactor::ErrorKind::value,
          "a stride of " + std::to_string(huge[0]) + " elements, expected strides within 64 bits");
}

}  // namespace

int main() {
  steps_agree_with_the_plain_update();
  other_arrays_get_the_same_bits_and_the_old_ones_stay();
  arrays_that_have_not_moved_are_found_again();
  a_gradient_that_is_not_finite_changes_nothing();
  a_leaf_without_a_gradient_is_left_alone();
  views_are_held_against_the_plan();
  return check::report();
}
