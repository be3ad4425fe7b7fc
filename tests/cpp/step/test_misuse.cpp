// What a step is not to be asked: phases twice, in another order, or of some leaves where all come first; anything
// after its end. Each is refused before anything is done, and the step goes on where it can.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "adafactor/adafactor.hpp"
#include "adafactor/parts.hpp"
#include "support/check.hpp"
#include "support/digest.hpp"
#include "support/parts.hpp"

namespace {

using adafactor::Config;
using adafactor::Error;
using adafactor::Indices;
using adafactor::kRest;
using adafactor::kSquares;
using adafactor::kSums;
using adafactor::kWholeCall;
using adafactor::LeafSpec;
using adafactor::Phase;
using adafactor::Step;

// A state of two leaves, or others, and the arrays of a call.
class Model {
 public:
  explicit Model(Config config = {}, std::vector<LeafSpec> leaves = {{{4, 4}}, {{4, 4}}})
      : leaves_(std::move(leaves)),
        state_(std::make_shared<const adafactor::Plan>(leaves_, std::vector{config})),
        parameters_(leaves_),
        gradients_(leaves_) {
    parameters_.fill(1, {-2, 1, 0});
    gradients_.fill(2, {-2, 1, 0});
  }

  adafactor::State& state() { return state_; }
  adafactor::Call call() const { return {parameters_.views(), gradients_.views(), parameters_.views(), &rate_}; }
  Step step() { return {state_, call(), adafactor::cpu_backend()}; }
  void set_parameter(std::size_t leaf, float number) { *static_cast<float*>(parameters_.views()[leaf].data) = number; }
  // What all bytes of the parameters and of the state come to.
  std::uint64_t digest() const {
    const auto floats = state_.plan().state_nbytes() / 4;
    return digest::fold(parameters_.fold_into(0), state_.memory(), floats, adafactor::DType::float32);
  }

 private:
  std::vector<LeafSpec> leaves_;
  adafactor::State state_;
  digest::Arrays parameters_;
  digest::Arrays gradients_;
  adafactor::LearningRate rate_{0.1, false};
};

std::uint64_t digest_of_a_step(const Config& config = {}) {
  Model model(config);
  adafactor::step(model.state(), model.call(), adafactor::cpu_backend());
  return model.digest();
}

Config skipping() {
  Config config;
  config.on_nonfinite = adafactor::OnNonfinite::skip;
  return config;
}

void no_phase_comes_twice() {
  Model model;
  Step step = model.step();
  step.run(kSums);
  CHECK_THROWS(step.run(kSums), Error);
  CHECK_THROWS(step.run(kWholeCall), Error);
  step.run(kSquares, {1, 2});
  step.run(kSquares, {0, 1});
  CHECK_THROWS(step.run(kSquares), Error);
  step.run(kRest);
  CHECK_THROWS(step.run(kRest), Error);
  CHECK_THROWS(step.run(kRest, {0, 1}), Error);
  step.finish();
  CHECK_EQ(model.digest(), digest_of_a_step());
}

void no_phase_is_left_out() {
  Model model;
  Step step = model.step();
  CHECK_THROWS(step.run(kRest), Error);
  CHECK_THROWS(step.run({Phase::moments, Phase::moments}), Error);
  CHECK_THROWS(step.run({Phase::means, Phase::means}), Error);
  step.run(kSums, {1, 2});
  CHECK_THROWS(step.run(kSquares, {1, 2}), Error);                        // the verdict is of all leaves
  CHECK_THROWS(step.run({Phase::moments, Phase::apply}, {0, 1}), Error);  // of the other one nothing is known
  step.run(kSums, {0, 1});
  CHECK_THROWS(step.run({Phase::factors, Phase::rms}), Error);
  step.run({Phase::verdict, Phase::factors}, {0, 1});
  CHECK_THROWS(step.run({Phase::rms, Phase::rms}), Error);
  step.run({Phase::rms, Phase::rms}, {0, 1});
  step.run({Phase::factors, Phase::rms}, {1, 2});
  CHECK_THROWS(step.finish(), Error);
  step.run(kRest);
  step.finish();
  CHECK_EQ(model.digest(), digest_of_a_step());
}

// The first call looks at all leaves before it writes to one, and a NaN in any of them stops all.
void no_leaf_is_written_before_all_are_looked_at() {
  for (const bool is_spoilt : {true, false}) {
    Model model(skipping());
    if (is_spoilt) model.set_parameter(1, std::numeric_limits<float>::quiet_NaN());
    const std::uint64_t before = model.digest();
    Step step = model.step();
    step.run(kSums);
    CHECK_THROWS(step.run({Phase::verdict, Phase::apply}, {0, 1}), Error);
    CHECK_EQ(model.digest(), before);
    step.run(kSquares, {0, 1});
    CHECK_THROWS(step.run(kRest, {0, 1}), Error);
    step.run(kSquares, {1, 2});
    step.run(kRest, {0, 1});
    step.run(kRest, {1, 2});
    CHECK_EQ(step.finish().skipped, is_spoilt);
    CHECK_EQ(model.digest() == before, is_spoilt);
    if (!is_spoilt) CHECK_EQ(model.digest(), digest_of_a_step(skipping()));
  }
}

// Afterwards a call goes leaf by leaf, and one that is not finite is left alone, whichever leaves come after it.
void a_leaf_that_is_left_alone_leaves_the_others_alone() {
  const auto second_step = [](bool leaf_by_leaf) {
    Model model(skipping(), std::vector<LeafSpec>(3, LeafSpec{{4, 4}}));
    adafactor::step(model.state(), model.call(), adafactor::cpu_backend());
    model.set_parameter(1, std::numeric_limits<float>::infinity());
    Step step = model.step();
    step.run(kSums);
    for (std::int64_t leaf = 0; leaf < 3 && leaf_by_leaf; ++leaf) {
      step.run({Phase::verdict, Phase::apply}, {leaf, leaf + 1});
    }
    if (!leaf_by_leaf) step.run({Phase::verdict, Phase::apply});
    const adafactor::Outcome outcome = step.finish();
    CHECK(outcome.updated && !outcome.skipped);
    CHECK_EQ(model.state().counters.leaves[2].updates, 2);
    return model.digest();
  };
  CHECK_EQ(second_step(true), second_step(false));
}

void what_has_finished_does_nothing_more() {
  Model model;
  Step step = model.step();
  step.run(kWholeCall);
  step.finish();
  CHECK_THROWS(step.finish(), Error);
  CHECK_THROWS(step.run(kRest), Error);
  CHECK_EQ(model.state().counters.calls, 1);
  CHECK_EQ(model.state().counters.leaves[0].updates, 1);
  CHECK_EQ(model.digest(), digest_of_a_step());
}

// A part of which others have no gradient: who is told so once is told so again.
void what_was_refused_does_nothing_more() {
  LeafSpec part{{2, 4}};
  part.global_shape = {4, 4};
  part.offset = {0, 0};
  part.split = {1, 0};
  Model model({}, {part});
  const std::uint64_t before = model.digest();
  Step step = model.step();
  step.run(kSums);
  step.sums(0)[2] = 2;  // parts, of which one has a gradient
  CHECK_EQ(CHECK_THROWS(step.run(kSquares), Error),
           std::string("grads leaf 0: one in 1 of 2 parts, expected a gradient in all parts or in none"));
  const std::string words = "one that has finished, or was refused, expected a step that can go on";
  CHECK_EQ(CHECK_THROWS(step.run(kSquares), Error), words);
  CHECK_EQ(CHECK_THROWS(step.sums(0), Error), words);
  CHECK_EQ(CHECK_THROWS(step.squares(0), Error), words);
  CHECK_EQ(CHECK_THROWS(step.finish(), Error), words);
  CHECK_EQ(model.digest(), before);
  CHECK_EQ(model.state().counters.calls, 0);
}

// Numbers of parts are handed out once all leaves have them.
void parts_wait_for_all_leaves() {
  LeafSpec part{{2, 4}};
  part.global_shape = {4, 4};
  part.offset = {0, 0};
  part.split = {1, 0};
  Model model({}, {part, part});
  Step step = model.step();
  step.run(kSums, {0, 1});
  CHECK_THROWS(step.sums(0), Error);
  step.run(kSums, {1, 2});
  CHECK(!step.sums(0).empty());
  step.run(kSquares, {1, 2});
  CHECK_THROWS(step.squares(0), Error);
  step.run(kSquares, {0, 1});
  CHECK(!step.squares(0).empty());
  step.run(kRest);
  CHECK(step.finish().updated);
}

}  // namespace

int main() {
  no_phase_comes_twice();
  no_phase_is_left_out();
  no_leaf_is_written_before_all_are_looked_at();
  a_leaf_that_is_left_alone_leaves_the_others_alone();
  what_has_finished_does_nothing_more();
  what_was_refused_does_nothing_more();
  parts_wait_for_all_leaves();
  return check::report();
}
