// Optimizer: the same bits as State and step however the arrays are named, the options of a call, what is refused with
// everything as it was, copies, counters and the arrays of the state.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <numeric>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "adafactor/adafactor.hpp"
#include "support/check.hpp"
#include "support/digest.hpp"

namespace {

using adafactor::Config;
using adafactor::DType;
using adafactor::ErrorKind;
using adafactor::GradientArray;
using adafactor::LeafSpec;
using adafactor::MatrixView;
using adafactor::Optimizer;
using adafactor::ParameterArray;
using adafactor::StateKind;
using adafactor::StepOptions;
using adafactor::TensorView;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// What may stand for an array: the compiler refuses the rest.
static_assert(std::is_convertible_v<float*, ParameterArray> && std::is_convertible_v<double*, ParameterArray>);
static_assert(std::is_convertible_v<const float*, GradientArray> && std::is_convertible_v<double*, GradientArray>);
static_assert(std::is_convertible_v<std::nullptr_t, GradientArray>);
static_assert(std::is_convertible_v<MatrixView<const float>, GradientArray>);
static_assert(!std::is_constructible_v<ParameterArray, const float*>);
static_assert(!std::is_constructible_v<ParameterArray, MatrixView<const float>>);
static_assert(!std::is_constructible_v<ParameterArray, int*> && !std::is_constructible_v<GradientArray, int*>);
static_assert(!std::is_constructible_v<ParameterArray, void*>);

// Two float32 leaves with numbers that depend on a seed alone.
struct Model {
  explicit Model(std::uint64_t seed = 0) {
    fill(w, seed + 1);
    fill(b, seed + 2);
    fill(gw, seed + 3);
    fill(gb, seed + 4);
  }

  static void fill(std::vector<float>& values, std::uint64_t seed) {
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = digest::number<float>(seed, i, {-3, 1, 0});
  }

  adafactor::StepReport step(Optimizer& optimizer, const StepOptions& options = {}) {
    return optimizer.step({w.data(), b.data()}, {gw.data(), gb.data()}, options);
  }

  std::vector<float> w = std::vector<float>(20 * 33), b = std::vector<float>(33);
  std::vector<float> gw = std::vector<float>(20 * 33), gb = std::vector<float>(33);
};

const std::vector<LeafSpec> kLeaves{{{20, 33}, DType::float32}, {{33}, DType::float32}};

std::vector<std::byte> memory_of(const Optimizer& optimizer) {
  const std::byte* memory = optimizer.state().memory();
  return {memory, memory + optimizer.nbytes()};
}

Config config_of(double learning_rate) {
  Config config;
  config.learning_rate = learning_rate;
  return config;
}

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
    const adafactor::Outcome expected = adafactor::step(
        state, {cores.views(), gradients.views(), cores.views(), &rate, 1}, adafactor::compiled_kernels());
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

// Calls that are refused, and the words of each.
class Refusals {
 public:
  Refusals() { model_.step(optimizer_); }

  template <class Call>
  void expect(const Call& call, ErrorKind kind, const std::string& words) {
    const Model before = model_;
    const std::vector<std::byte> state = memory_of(optimizer_);
    try {
      call(optimizer_, model_);
      CHECK_EQ(words, std::string("refused"));
    } catch (const adafactor::Error& error) {
      CHECK_EQ(std::string(error.what()), words);
      CHECK_EQ(error.kind(), kind);
    }
    CHECK(std::memcmp(before.w.data(), model_.w.data(), before.w.size() * sizeof(float)) == 0);
    CHECK(before.b == model_.b && before.gb == model_.gb);
    CHECK(memory_of(optimizer_) == state);
    CHECK_EQ(optimizer_.calls(), 1);
    Optimizer again = optimizer_;
    Model good = model_;
    CHECK(good.step(again).updated);
  }

 private:
  Optimizer optimizer_{config_of(0.05), kLeaves};
  Model model_;
};

void what_arrays_are_refused() {
  Refusals refusals;
  const auto expect = [&](const auto& call, ErrorKind kind, const char* words) { refusals.expect(call, kind, words); };
  expect([](Optimizer& o, Model& m) { o.step({m.w.data()}, {m.gw.data(), m.gb.data()}); }, ErrorKind::value,
         "params: 1 arrays, expected 2, one for each leaf");
  expect([](Optimizer& o, Model& m) { o.step({m.w.data(), m.b.data()}, {}); }, ErrorKind::value,
         "grads: 0 arrays, expected 2, one for each leaf");
  expect([](Optimizer& o, Model& m) { o.step({m.w.data(), static_cast<float*>(nullptr)}, {m.gw.data(), m.gb.data()}); },
         ErrorKind::value, "params leaf 1: a null pointer, expected its elements");
  expect([](Optimizer& o,
            Model& m) { o.step({m.w.data(), m.b.data()}, {m.gw.data(), static_cast<const float*>(nullptr)}); },
         ErrorKind::value,
         "grads leaf 1: a null pointer, expected its elements, or nullptr itself where there is none");
  expect([](Optimizer& o, Model& m) { o.step({m.w.data(), m.b.data()}, {nullptr, nullptr}); }, ErrorKind::value,
         "grads: every one is absent, expected at least one");
  expect(
      [](Optimizer& o, Model& m) {
        std::vector<double> wide(33);
        o.step({m.w.data(), m.b.data()}, {m.gw.data(), wide.data()});
      },
      ErrorKind::type, "grads leaf 1: dtype float64, expected float32, bfloat16 or float16");
  expect(
      [](Optimizer& o, Model& m) {
        o.step({MatrixView<float>{m.w.data(), 2, {33, 20}, {20, 1}}, m.b.data()}, {m.gw.data(), m.gb.data()});
      },
      ErrorKind::value, "params leaf 0: shape (33, 20), expected (20, 33) as in the state");
  expect(
      [](Optimizer& o, Model& m) {
        const TensorView shapeless{m.w.data(), DType::float32, {}, 2, nullptr, nullptr};
        o.step({shapeless, m.b.data()}, {m.gw.data(), m.gb.data()});
      },
      ErrorKind::value, "params leaf 0: a view without one, expected a shape");
  expect(
      [](Optimizer& o, Model& m) {
        o.step({MatrixView<float>{m.w.data(), 2, {20, 33}, {0, 1}}, m.b.data()}, {m.gw.data(), m.gb.data()});
      },
      ErrorKind::buffer,
      "params leaf 0: some elements share memory, expected an array whose elements each have memory of their own");
  expect([](Optimizer& o, Model& m) { o.step({m.w.data(), m.w.data() + 600}, {m.gw.data(), m.gb.data()}); },
         ErrorKind::value, "params leaf 0: shares memory with params leaf 1, expected memory of its own");
  expect([](Optimizer& o, Model& m) { o.step({m.w.data(), m.b.data()}, {m.w.data(), m.gb.data()}); }, ErrorKind::value,
         "params leaf 0: shares memory with grads leaf 0, expected memory of its own");
  expect(
      [](Optimizer& o, Model& m) {
        const float* row = o.array<float>(0, StateKind::row).data();
        o.step({m.w.data(), m.b.data()}, {m.gw.data(), MatrixView<const float>{row, 1, {33, 0}, {1, 0}}});
      },
      ErrorKind::value, "grads leaf 1: shares memory with the state, expected memory of its own");
}

void what_options_and_knobs_are_refused() {
  Refusals refusals;
  const std::vector<double> three(3, 0.1);
  const std::vector<double> negative{-0.5};
  const auto expect = [&](const StepOptions& options, const char* words) {
    refusals.expect([&](Optimizer& o, Model& m) { m.step(o, options); }, ErrorKind::value, words);
  };
  expect({.learning_rate = -1}, "learning_rate: -1, expected a finite number >= 0");
  expect({.learning_rate = std::numeric_limits<double>::infinity()},
         "learning_rate: inf, expected a finite number >= 0");
  expect({.learning_rates = three},
         "learning_rates: 3 numbers, expected 1, one for the config and one for each override");
  expect({.learning_rates = negative}, "learning_rates: -0.5, expected a finite number >= 0");
  expect({.learning_rate = 0.1, .learning_rates = negative},
         "learning_rates: learning_rate too, expected at most one of the two");
  expect({.grad_multiplier = std::numeric_limits<double>::quiet_NaN()},
         "grad_multiplier: nan, expected a finite number");

  const auto made = [](const Config& config, const std::vector<LeafSpec>& leaves) { return Optimizer{config, leaves}; };
  CHECK_EQ(CHECK_THROWS(made(config_of(-1), kLeaves), adafactor::Error),
           std::string("learning_rate: -1, expected a finite number >= 0"));
  CHECK_EQ(CHECK_THROWS(made({}, {{{3}}, {{4, -1}}}), adafactor::Error),
           std::string("leaf 1: extent -1, expected extents >= 0"));
  CHECK_EQ(CHECK_THROWS(made({}, {{{3}, DType::float32, 1}}), adafactor::Error),
           std::string("leaf 0: expected the index of a row of knobs"));
}

void a_gradient_that_is_not_finite_is_refused() {
  Refusals refusals;
  const std::string advice =
      ", expected finite values (nothing was changed; on_nonfinite can skip such a call or let it through)";
  refusals.expect(
      [](Optimizer& o, Model& m) {
        std::vector<float> bad(33, kNan);
        bad[3] = -std::numeric_limits<float>::infinity();
        bad[4] = 0;
        o.step({m.w.data(), m.b.data()}, {m.gw.data(), bad.data()});
      },
      ErrorKind::nonfinite, "grads leaf 1: 31 NaN and 1 Inf of 33 values" + advice);
  refusals.expect(
      [](Optimizer& o, Model& m) {
        // By columns, so that the count has to follow the strides.
        std::vector<float> bad(33 * 20, 1.0f);
        bad.back() = kNan;
        o.step({m.w.data(), m.b.data()}, {MatrixView<const float>{bad.data(), 2, {20, 33}, {1, 20}}, m.gb.data()});
      },
      ErrorKind::nonfinite, "grads leaf 0: 1 NaN and 0 Inf of 660 values" + advice);
  refusals.expect(
      [](Optimizer& o, Model& m) {
        const std::vector<float> large(33, 1e30f);
        o.step({m.w.data(), m.b.data()}, {m.gw.data(), large.data()});
      },
      ErrorKind::nonfinite,
      "grads leaf 1: finite, but the sum of the squares of what the step uses overflows" + advice);
}

void a_gradient_that_is_not_finite_is_skipped_where_asked() {
  Config config = config_of(0.05);
  config.on_nonfinite = adafactor::OnNonfinite::skip;
  Optimizer optimizer{config, kLeaves};
  Model model;
  model.gb[7] = kNan;
  const Model before = model;
  const adafactor::StepReport report = model.step(optimizer);
  CHECK(report.skipped && !report.updated);
  CHECK_EQ(report.nonfinite_leaf, 1);
  CHECK(optimizer.report(1).nonfinite && !optimizer.report(0).nonfinite);
  CHECK(std::isnan(report.rho) && std::isnan(report.beta_2));
  CHECK(model.w == before.w && model.b == before.b);
  CHECK_EQ(optimizer.calls(), 0);
}

void a_parameter_that_is_not_finite_is_refused_at_first_and_left_alone_later() {
  const std::string advice =
      ", expected finite values (nothing was changed; on_nonfinite can skip such a call or let it through)";
  Optimizer optimizer{config_of(0.05), kLeaves};
  Model model;
  const float good = std::exchange(model.b[5], kNan);
  const std::vector<float> before = model.w;
  CHECK_EQ(CHECK_THROWS(model.step(optimizer), adafactor::Error),
           "params leaf 1: 1 NaN and 0 Inf of 33 values" + advice);
  CHECK(model.w == before && optimizer.calls() == 0);

  model.b[5] = good;
  model.step(optimizer);
  const float moved = std::exchange(model.b[5], kNan);
  std::vector<float> left = model.b;
  CHECK(model.step(optimizer).updated);
  CHECK(std::memcmp(model.b.data(), left.data(), sizeof(float) * left.size()) == 0);
  CHECK(optimizer.report(1).nonfinite && !optimizer.report(0).nonfinite);
  CHECK_EQ(optimizer.state().counts[0].updates, 2);
  CHECK_EQ(optimizer.state().counts[1].updates, 1);
  CHECK_EQ(CHECK_THROWS(model.step(optimizer), adafactor::Error),
           "params leaf 1: 1 NaN and 0 Inf of 33 values" + advice);
  Optimizer copy = optimizer;
  CHECK_THROWS(model.step(copy), adafactor::Error);

  model.b[5] = moved;
  CHECK(model.step(optimizer).updated && !optimizer.report(1).nonfinite);
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
  CHECK_EQ(optimizer.state().counts[1].updates, 0);
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

// As another thread in the middle of a call would hold it.
void one_call_at_a_time() {
  Model model;
  Optimizer optimizer{config_of(0.05), kLeaves};
  auto& state = const_cast<adafactor::State&>(optimizer.state());
  CHECK(state.try_acquire());
  CHECK_EQ(CHECK_THROWS(model.step(optimizer), adafactor::Error),
           std::string("the optimizer is in use, expected one call at a time"));
  CHECK_THROWS(Optimizer(optimizer), adafactor::Error);
  state.release();
  CHECK(model.step(optimizer).updated);
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
  CHECK_EQ(empty.state().counts[0].updates, 1);
}

}  // namespace

int main() {
  a_step_is_that_of_the_core();
  arrays_may_be_named_in_any_way();
  options_hold_for_one_call();
  overrides_are_knobs_of_single_leaves();
  one_rate_keeps_the_ratios_of_the_rows();
  an_open_window_is_completed_or_dropped();
  what_arrays_are_refused();
  what_options_and_knobs_are_refused();
  a_gradient_that_is_not_finite_is_refused();
  a_gradient_that_is_not_finite_is_skipped_where_asked();
  a_parameter_that_is_not_finite_is_refused_at_first_and_left_alone_later();
  a_leaf_that_begins_at_zero_is_at_its_floor();
  an_absent_gradient_leaves_its_leaf_alone();
  a_copy_goes_its_own_way();
  one_call_at_a_time();
  counters_tell_calls_from_updates();
  arrays_of_the_state_can_be_read();
  a_report_needs_a_step();
  leaves_without_elements_and_no_leaves_at_all();
  return check::report();
}
