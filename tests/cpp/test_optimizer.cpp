// Optimizer: the same bits as State and step however the arrays are named, the options of a call, copies, counters and
// the arrays of the state. What it refuses: test_refusals.cpp.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "adafactor/adafactor.hpp"
#include "support/check.hpp"
#include "support/digest.hpp"
#include "support/models.hpp"

namespace {

using adafactor::Config;
using adafactor::DType;
using adafactor::GradientArray;
using adafactor::LeafSpec;
using adafactor::MatrixView;
using adafactor::Optimizer;
using adafactor::ParameterArray;
using adafactor::StateKind;
using models::config_of;
using models::kLeaves;
using models::memory_of;
using models::Model;

// What may stand for an array: the compiler refuses the rest.
static_assert(std::is_convertible_v<float*, ParameterArray> && std::is_convertible_v<double*, ParameterArray>);
static_assert(std::is_convertible_v<const float*, GradientArray> && std::is_convertible_v<double*, GradientArray>);
static_assert(std::is_convertible_v<std::nullptr_t, GradientArray>);
static_assert(std::is_convertible_v<MatrixView<const float>, GradientArray>);
static_assert(!std::is_constructible_v<ParameterArray, const float*>);
static_assert(!std::is_constructible_v<ParameterArray, MatrixView<const float>>);
static_assert(!std::is_constructible_v<ParameterArray, int*> && !std::is_constructible_v<GradientArray, int*>);
static_assert(!std::is_constructible_v<ParameterArray, void*>);

void a_step_is_that_of_the_core() {
  const std::vector<LeafSpec> leaves{{{30, 50}, DType::float32}, {{3, 4, 5}, DType::float64}, {{}, DType::float32}};
  Config config = config_of(0.05);
  config.beta_1 = 0.9;
  config.use_ema = true;
  Optimizer optimizer{config, leaves};
  adafactor::State state(std::make_shared<const adafactor::Plan>(leaves, std::vector{config}));
  digest::Arrays ours(leaves);
  digest::Arrays cores(leaves);
  digest::Arrays gradients(leaves);
  ours.fill(1, {-2, 2, 0});
  cores.fill(1, {-2, 2, 0});
  const adafactor::LearningRate rate{0.05, false};
  for (std::uint64_t call = 0; call < 5; ++call) {
    gradients.fill(10 + call, {-3, 2, 0});
    const adafactor::Outcome expected =
        adafactor::step(state, {cores.views(), gradients.views(), cores.views(), &rate, 1}, adafactor::cpu_backend());
    const adafactor::StepReport report = optimizer.step(std::span(ours.views(), 3), std::span(gradients.views(), 3));
    CHECK(report.updated && !report.skipped);
    CHECK_EQ(report.global_grad_norm, expected.global_grad_norm);
    CHECK_EQ(optimizer.report(1).update_rms, adafactor::report(state, 1, true).update_rms);
  }
  CHECK_EQ(ours.fold_into(0), cores.fold_into(0));
  CHECK(std::memcmp(optimizer.state().memory(), state.memory(), static_cast<std::size_t>(optimizer.nbytes())) == 0);
  CHECK_EQ(optimizer.nbytes(), optimizer.plan().state_nbytes());
}

// A pointer, a matrix with a gap after each row, one stored by columns, and spans of each: one result.
void arrays_may_be_named_in_any_way() {
  Model pointers;
  Optimizer by_pointer{config_of(0.05), kLeaves};
  pointers.step(by_pointer);

  Model model;
  std::vector<float> padded(20 * 40, -7.0f);
  std::vector<float> by_columns(33 * 20);
  for (std::size_t i = 0; i < 20; ++i) {
    for (std::size_t j = 0; j < 33; ++j) {
      padded[i * 40 + j] = model.w[i * 33 + j];
      by_columns[j * 20 + i] = model.gw[i * 33 + j];
    }
  }
  const MatrixView<float> w{padded.data(), 2, {20, 33}, {40, 1}};
  const MatrixView<const float> gw{by_columns.data(), 2, {20, 33}, {1, 20}};
  Optimizer by_view{config_of(0.05), kLeaves};
  by_view.step({w, model.b.data()}, {gw, model.gb.data()});
  CHECK(memory_of(by_view) == memory_of(by_pointer));
  CHECK(model.b == pointers.b);
  for (std::size_t i = 0; i < 20; ++i) {
    CHECK(std::equal(padded.begin() + static_cast<std::ptrdiff_t>(i * 40),
                     padded.begin() + static_cast<std::ptrdiff_t>(i * 40 + 33),
                     pointers.w.begin() + static_cast<std::ptrdiff_t>(i * 33)));
    for (std::size_t j = 33; j < 40; ++j) CHECK_EQ(padded[i * 40 + j], -7.0f);
  }

  Model third;
  const std::vector<ParameterArray> params{third.w.data(), third.b.data()};
  const std::vector<GradientArray> grads{third.gw.data(), third.gb.data()};
  Optimizer by_span{config_of(0.05), kLeaves};
  by_span.step(params, grads);
  CHECK(third.w == pointers.w && third.b == pointers.b);
}

void options_hold_for_one_call() {
  Model expected;
  Model found;
  Optimizer configured{config_of(0.25), kLeaves};
  Optimizer asked{config_of(0.001), kLeaves};
  for (float& x : expected.gw) x *= 4;
  for (float& x : expected.gb) x *= 4;
  expected.step(configured);
  const adafactor::StepReport report = found.step(asked, {.learning_rate = 0.25, .grad_multiplier = 4});
  CHECK(found.w == expected.w && found.b == expected.b);
  CHECK_EQ(report.learning_rate, 0.25);
  CHECK_EQ(report.rho, 0.25);
  CHECK_EQ(report.beta_2, 0.0);
  CHECK_EQ(found.step(asked).learning_rate, 0.001);
  // A rate of a caller is a schedule's: 1/sqrt(t) does not cap it.
  CHECK_EQ(found.step(asked, {.learning_rate = 2}).rho, 2.0);
}

void overrides_are_knobs_of_single_leaves() {
  Config decayed = config_of(0.05);
  decayed.weight_decay = 0.5;
  std::vector<LeafSpec> leaves = kLeaves;
  leaves[1].knobs = 1;
  Optimizer both{config_of(0.05), leaves, {decayed}};
  Optimizer neither{config_of(0.05), kLeaves};
  Model with;
  Model without;
  with.step(both);
  without.step(neither);
  CHECK(with.w == without.w);
  CHECK(with.b != without.b);

  const std::vector<double> rates{0.0, 0.125};
  Model before;
  Model after;
  Optimizer rated{config_of(0.05), leaves, {config_of(0.05)}};
  after.step(rated, {.learning_rates = rates});
  CHECK(after.w == before.w);
  CHECK(after.b != before.b);
  CHECK_EQ(rated.report(1).step_size, 0.125 * std::max(1e-3, rated.report(1).param_rms));
}

// A frozen leaf stays frozen, and one that is slower stays so much slower.
void one_rate_keeps_the_ratios_of_the_rows() {
  std::vector<LeafSpec> leaves = kLeaves;
  leaves[0].knobs = 1;
  leaves[1].knobs = 2;
  Optimizer optimizer{config_of(0.5), leaves, {config_of(0), config_of(0.125)}};
  Model before;
  Model model;
  model.step(optimizer, {.learning_rate = 2});
  CHECK(model.w == before.w);
  CHECK_EQ(optimizer.report(1).step_size, 0.5 * std::max(1e-3, optimizer.report(1).param_rms));
  model.step(optimizer, {.learning_rate = 0.5});
  CHECK_EQ(optimizer.report(1).step_size, 0.125 * std::max(1e-3, optimizer.report(1).param_rms));
  Optimizer without{config_of(0), leaves, {config_of(0), config_of(0.125)}};
  CHECK_EQ(CHECK_THROWS(model.step(without, {.learning_rate = 2}), adafactor::Error),
           std::string("learning_rate: one for all, where the config has 0 and an override has not, expected "
                       "learning_rates, one for each"));
}

// Two calls of a window of four are a window of two; or they have never been.
void an_open_window_is_completed_or_dropped() {
  const auto windows_of = [](std::int64_t steps) {
    Config config = config_of(0.05);
    config.gradient_accumulation_steps = steps;
    return config;
  };
  Model model;
  Model expected;
  Optimizer optimizer{windows_of(4), kLeaves};
  Optimizer twin{windows_of(2), kLeaves};
  for (int call = 0; call < 2; ++call) {
    CHECK(!model.step(optimizer).updated);
    expected.step(twin);
  }
  const adafactor::StepReport report = optimizer.complete_window({model.w.data(), model.b.data()});
  CHECK(report.updated);
  CHECK_EQ(report.rho, 0.05);
  CHECK(model.w == expected.w && model.b == expected.b);
  CHECK(memory_of(optimizer) == memory_of(twin));
  CHECK_EQ(optimizer.calls(), 4);
  CHECK_EQ(optimizer.iterations(), 1);
  CHECK(!optimizer.complete_window({model.w.data(), model.b.data()}).updated);
  const std::vector<std::byte> before = memory_of(optimizer);
  model.step(optimizer);
  optimizer.drop_window();
  optimizer.drop_window();
  CHECK(memory_of(optimizer) == before);
  CHECK_EQ(optimizer.calls(), 4);
}

void a_leaf_that_begins_at_zero_is_at_its_floor() {
  Optimizer optimizer{config_of(0.05), kLeaves};
  Model model;
  model.b.assign(33, 0.0f);
  model.step(optimizer);
  CHECK(optimizer.report(1).at_floor && !optimizer.report(0).at_floor);
}

void an_absent_gradient_leaves_its_leaf_alone() {
  Optimizer optimizer{config_of(0.05), kLeaves};
  Model model;
  const Model before = model;
  CHECK(optimizer.step({model.w.data(), model.b.data()}, {model.gw.data(), nullptr}).updated);
  CHECK(model.w != before.w);
  CHECK(model.b == before.b);
  CHECK_EQ(optimizer.state().counters.leaves[1].updates, 0);
}

void a_copy_goes_its_own_way() {
  Model model;
  Optimizer first{config_of(0.05), kLeaves};
  model.step(first);
  Optimizer second = first;
  for (float& x : model.gw) x *= 2;
  Model fork = model;
  model.step(first);
  CHECK(memory_of(first) != memory_of(second));
  CHECK_EQ(second.iterations(), 1);
  fork.step(second);
  CHECK(memory_of(first) == memory_of(second));
  CHECK(fork.w == model.w);

  Optimizer third{Config{}, {}};
  third = first;
  CHECK(memory_of(third) == memory_of(first));
  CHECK_EQ(third.iterations(), 2);
  std::vector<Optimizer> many;
  many.push_back(std::move(third));
  many.push_back(first);
  model.step(many[0]);
  fork.step(many[1]);
  CHECK(model.w == fork.w);
}

void counters_tell_calls_from_updates() {
  Config config = config_of(0.05);
  config.gradient_accumulation_steps = 3;
  Optimizer optimizer{config, kLeaves};
  Model model;
  const Model before = model;
  CHECK(!model.step(optimizer).updated);
  CHECK(!model.step(optimizer).updated);
  CHECK(model.w == before.w);
  CHECK_EQ(optimizer.calls(), 2);
  CHECK_EQ(optimizer.iterations(), 0);
  CHECK(model.step(optimizer).updated);
  CHECK(model.w != before.w);
  CHECK_EQ(optimizer.calls(), 3);
  CHECK_EQ(optimizer.iterations(), 1);
}

// In the first update beta2 is 0, so the moments are the means of g^2 (and epsilon_1, which is nothing to them).
void arrays_of_the_state_can_be_read() {
  Config config = config_of(0.05);
  config.beta_1 = 0.9;
  config.momentum_dtype = adafactor::MomentumDType::bfloat16;
  Optimizer optimizer{config, {{{2, 3}, DType::float32}, {{2}, DType::float64}}};
  float w[6] = {1, 1, 1, 1, 1, 1};
  const float gw[6] = {1, 2, 3, 4, 5, 6};
  double b[2] = {};
  const double gb[2] = {3, -4};
  optimizer.step({w, b}, {gw, gb});
  const auto row = optimizer.array<float>(0, StateKind::row);
  const auto col = optimizer.array<float>(0, StateKind::col);
  CHECK_EQ(row.size(), 2);
  CHECK_EQ(col.size(), 3);
  CHECK_NEAR(row[0], 14.0 / 3, 1e-6);  // a rounding to float
  CHECK_NEAR(row[1], 77.0 / 3, 4e-6);
  CHECK_EQ(col[2], 22.5f);
  CHECK(optimizer.array<float>(0, StateKind::full).empty());
  CHECK_EQ(optimizer.array<double>(1, StateKind::full)[1], 16.0);
  CHECK_EQ(optimizer.array<adafactor::Bfloat16>(0, StateKind::momentum).size(), 6);
  CHECK_EQ(CHECK_THROWS(optimizer.array<double>(0, StateKind::row), adafactor::Error),
           std::string("row leaf 0: dtype float64, expected float32"));
  CHECK_EQ(CHECK_THROWS(optimizer.array<float>(2, StateKind::row), adafactor::Error),
           std::string("2, expected a leaf below 2"));
}

void a_report_needs_a_step() {
  Optimizer optimizer{config_of(0.05), kLeaves};
  CHECK_EQ(CHECK_THROWS(optimizer.report(0), adafactor::Error), std::string("none, expected a step before its report"));
  Model model;
  model.step(optimizer);
  CHECK(optimizer.report(0).grad_norm > 0);
  CHECK_THROWS(optimizer.report(2), adafactor::Error);
}

void leaves_without_elements_and_no_leaves_at_all() {
  Optimizer none{Config{}, {}};
  CHECK(none.step({}, {}).updated);
  CHECK_EQ(none.nbytes(), 0);
  std::vector<float> nothing;
  Optimizer empty{Config{}, {{{0, 4}, DType::float32}}};
  CHECK(empty.step({nothing.data()}, {nothing.data()}).updated);
  CHECK_EQ(empty.state().counters.leaves[0].updates, 1);
}

}  // namespace

int main() {
  a_step_is_that_of_the_core();
  arrays_may_be_named_in_any_way();
  options_hold_for_one_call();
  overrides_are_knobs_of_single_leaves();
  one_rate_keeps_the_ratios_of_the_rows();
  an_open_window_is_completed_or_dropped();
  a_leaf_that_begins_at_zero_is_at_its_floor();
  an_absent_gradient_leaves_its_leaf_alone();
  a_copy_goes_its_own_way();
  counters_tell_calls_from_updates();
  arrays_of_the_state_can_be_read();
  a_report_needs_a_step();
  leaves_without_elements_and_no_leaves_at_all();
  return check::report();
}
