// What Optimizer refuses, in which words, and with everything as it was: arrays, options, knobs, numbers that are not
// finite, a second call at the same time.
#include <cmath>
#include <cstddef>
#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "adafactor/adafactor.hpp"
#include "support/check.hpp"
#include "support/models.hpp"

namespace {

using adafactor::Config;
using adafactor::DType;
using adafactor::ErrorKind;
using adafactor::LeafSpec;
using adafactor::MatrixView;
using adafactor::Optimizer;
using adafactor::StateKind;
using adafactor::StepOptions;
using adafactor::TensorView;
using models::config_of;
using models::kLeaves;
using models::memory_of;
using models::Model;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

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
      R"(; nothing was changed; on_nonfinite="skip" skips such a call, "propagate" lets it through)";
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
      R"(; nothing was changed; on_nonfinite="skip" skips such a call, "propagate" lets it through)";
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
  CHECK_EQ(optimizer.state().counters.leaves[0].updates, 2);
  CHECK_EQ(optimizer.state().counters.leaves[1].updates, 1);
  CHECK_EQ(CHECK_THROWS(model.step(optimizer), adafactor::Error),
           "params leaf 1: 1 NaN and 0 Inf of 33 values" + advice);
  Optimizer copy = optimizer;
  CHECK_THROWS(model.step(copy), adafactor::Error);

  model.b[5] = moved;
  CHECK(model.step(optimizer).updated && !optimizer.report(1).nonfinite);
}

// As another thread in the middle of a call would hold it.
void one_call_at_a_time() {
  Model model;
  Optimizer optimizer{config_of(0.05), kLeaves};
  auto& state = const_cast<adafactor::State&>(optimizer.state());
  CHECK(state.try_acquire());
  CHECK_EQ(CHECK_THROWS(model.step(optimizer), adafactor::Error),
           std::string("state in use: another call, from a thread or from inside this one, runs on it"));
  CHECK_THROWS(Optimizer(optimizer), adafactor::Error);
  state.release();
  CHECK(model.step(optimizer).updated);
}

}  // namespace

int main() {
  what_arrays_are_refused();
  what_options_and_knobs_are_refused();
  a_gradient_that_is_not_finite_is_refused();
  a_gradient_that_is_not_finite_is_skipped_where_asked();
  a_parameter_that_is_not_finite_is_refused_at_first_and_left_alone_later();
  one_call_at_a_time();
  return check::report();
}
