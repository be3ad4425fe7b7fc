// Memory that is given: a call that brings the arrays of the state and the counters, and scratch that somebody else
// owns, give every digest, in place and from one set of arrays to another; nothing beside them is touched, and nothing
// is read of what was there before.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "adafactor/adafactor.hpp"
#include "adafactor/step/step.hpp"
#include "support/check.hpp"
#include "support/digest.hpp"
#include "support/guarded.hpp"

namespace {

using adafactor::Counters;
using adafactor::LeafCount;
using adafactor::Plan;
using adafactor::StateArray;
using adafactor::StateArrays;
using adafactor::StateKind;
using adafactor::StateSlots;
using guarded::Memory;

// The arrays of a state, each in memory of its own.
class Arrays {
 public:
  explicit Arrays(const Plan& plan) : plan_(&plan) {
    for (const adafactor::LeafPlan& leaf : plan.leaves()) {
      for (const StateArray& array : leaf.state) memory_.emplace_back(array.exists() ? array.nbytes() : 0);
    }
  }

  Memory& at(std::size_t leaf, StateKind kind) {
    return memory_[leaf * adafactor::kStateKinds + static_cast<std::size_t>(kind)];
  }
  StateArrays of(std::size_t leaf) {
    const auto array = [&](StateKind kind) {
      const bool exists = plan_->leaves()[leaf].state[static_cast<std::size_t>(kind)].exists();
      return exists ? at(leaf, kind).data() : nullptr;
    };
    return {array(StateKind::row),      array(StateKind::col),     array(StateKind::full),
            array(StateKind::momentum), array(StateKind::average), array(StateKind::accumulator)};
  }
  void fill(std::byte value) {
    for (Memory& memory : memory_) memory.fill(value);
  }
  bool are_intact() const {
    return std::ranges::all_of(memory_, [](const Memory& memory) { return memory.is_intact(); });
  }

 private:
  const Plan* plan_;
  std::vector<Memory> memory_;
};

// A stepper whose calls bring the state along: in place, or from one set of arrays to the other and back.
class Given {
 public:
  Given(const digest::Case& what, bool in_place)
      : plan_(digest::plan_of(what)),
        scratch_(adafactor::scratch_nbytes(*plan_), 3),
        stepper_(plan_, scratch_.bytes()),
        before_(*plan_),
        after_(*plan_),
        counts_(static_cast<std::int64_t>(plan_->leaves().size() * sizeof(LeafCount))),
        in_place_(in_place) {
    before_.fill(std::byte{0});
    auto* counts = reinterpret_cast<LeafCount*>(counts_.data());
    std::uninitialized_value_construct_n(counts, plan_->leaves().size());
    counters_.leaves = {counts, plan_->leaves().size()};
  }

  const adafactor::Stepper& stepper() const { return stepper_; }
  const std::byte* array(std::size_t leaf, StateKind kind) { return before_.at(leaf, kind).data(); }

  adafactor::Outcome make(adafactor::Call call) {
    std::vector<StateSlots> slots;
    for (std::size_t leaf = 0; leaf < plan_->leaves().size(); ++leaf) {
      slots.push_back({before_.of(leaf), in_place_ ? before_.of(leaf) : after_.of(leaf)});
    }
    call.state = slots.data();
    const adafactor::Outcome outcome = adafactor::step(stepper_, counters_, call, adafactor::cpu_backend());
    if (!in_place_) {
      std::swap(before_, after_);
      after_.fill(guarded::kPoison);
    }
    CHECK(scratch_.is_intact() && counts_.is_intact() && before_.are_intact() && after_.are_intact());
    return outcome;
  }

 private:
  std::shared_ptr<const Plan> plan_;
  Memory scratch_;
  adafactor::Stepper stepper_;
  Arrays before_;
  Arrays after_;
  Memory counts_;
  Counters counters_;
  bool in_place_;
};

void what_a_call_brings_gives_every_digest() {
  for (const digest::Case& what : digest::read_cases(digest::data_file())) {
    for (const bool in_place : {true, false}) {
      Given given(what, in_place);
      CHECK_EQ(what.name + " " + digest::run_on(given, what, 2, in_place).digest, what.name + " " + what.expected);
    }
  }
}

// A leaf that no call touches has its old state where the new one is to be, whatever it holds.
void a_skipped_call_carries_the_state() {
  for (digest::Case what : digest::read_cases(digest::data_file())) {
    if (what.config.on_nonfinite == adafactor::OnNonfinite::propagate) continue;
    what.config.on_nonfinite = adafactor::OnNonfinite::skip;
    Given twice(what, false);
    digest::Arrays parameters(what.leaves);
    digest::Arrays gradients(what.gradients);
    const adafactor::LearningRate rate{0.1, false};
    const adafactor::Call call{parameters.views(), gradients.views(), parameters.views(), &rate, 1};
    parameters.fill(1, what.of_parameters);
    gradients.fill(2, what.spread);
    twice.make(call);
    const auto folded = [&] {
      std::uint64_t digest = 0;
      const std::vector<adafactor::LeafPlan>& leaves = twice.stepper().plan().leaves();
      for (std::size_t leaf = 0; leaf < leaves.size(); ++leaf) {
        for (std::size_t kind = 0; kind < adafactor::kStateKinds; ++kind) {
          const StateArray& array = leaves[leaf].state[kind];
          if (!array.exists()) continue;
          digest = digest::fold(digest, twice.array(leaf, static_cast<StateKind>(kind)), array.count, array.dtype);
        }
      }
      return digest;
    };
    const std::uint64_t before = folded();
    adafactor::Call skipped = call;
    skipped.grad_multiplier = std::numeric_limits<double>::infinity();
    CHECK(twice.make(skipped).skipped);
    CHECK_EQ(folded(), before);
  }
}

// A state steps its own memory in each call that brings no arrays along, and these in each that does, also where no
// array of the caller's has moved.
void each_call_says_whose_arrays_it_steps() {
  const std::vector<adafactor::LeafSpec> leaves{{{4, 4}}, {{4}}};
  const auto plan = std::make_shared<const Plan>(leaves, std::vector<adafactor::Config>(1));
  digest::Arrays parameters(leaves);
  digest::Arrays gradients(leaves);
  parameters.fill(1, {-2, 1, 0});
  gradients.fill(2, {-2, 1, 0});
  const adafactor::LearningRate rate{0.1, false};
  const adafactor::Call own{parameters.views(), gradients.views(), parameters.views(), &rate};
  for (const bool moved : {true, false}) {
    adafactor::State state(plan);
    Arrays arrays(*plan);
    arrays.fill(std::byte{0});
    const StateSlots slots[]{{arrays.of(0), arrays.of(0)}, {arrays.of(1), arrays.of(1)}};
    adafactor::Call brought = own;
    brought.state = slots;
    const auto digest = [&] {
      const auto of_array = [&](std::size_t leaf, StateKind kind) {
        return digest::fold(0, arrays.at(leaf, kind).data(), 4, adafactor::DType::float32);
      };
      return of_array(0, StateKind::row) ^ of_array(0, StateKind::col) ^ of_array(1, StateKind::full);
    };
    const auto of_own = [&] { return digest::fold(0, state.memory(), 12, adafactor::DType::float32); };
    for (const bool is_own : {true, false, false, true, true, false, true}) {
      adafactor::Call call = is_own ? own : brought;
      call.moved = moved || state.counters.calls == 0;
      const std::uint64_t before = digest();
      const std::uint64_t own_before = of_own();
      adafactor::step(state, call, adafactor::cpu_backend());
      CHECK_EQ(of_own() != own_before, is_own);
      CHECK_EQ(digest() != before, !is_own);
    }
    CHECK(arrays.are_intact());
  }
}

// A stepper has no memory of a state: a call that says nothing of it is refused before anything is done, unless all
// arrays lie where they lay.
void a_stepper_is_told_of_the_state() {
  const std::vector<adafactor::LeafSpec> leaves{{{4, 4}}};
  const auto plan = std::make_shared<const Plan>(leaves, std::vector<adafactor::Config>(1));
  adafactor::Stepper stepper(plan);
  std::vector<LeafCount> counts(1);
  Counters counters;
  counters.leaves = counts;
  Arrays arrays(*plan);
  arrays.fill(std::byte{0});
  digest::Arrays parameters(leaves);
  parameters.fill(1, {-2, 1, 0});
  const adafactor::LearningRate rate{0.1, false};
  const StateSlots slots{arrays.of(0), arrays.of(0)};
  const auto step = [&](bool brings, bool moved) {
    adafactor::Call call{parameters.views(), parameters.views(), parameters.views(), &rate};
    call.state = brings ? &slots : nullptr;
    call.moved = moved;
    return adafactor::step(stepper, counters, call, adafactor::cpu_backend());
  };
  const std::string words = "state: none, expected arrays along with each call whose arrays have moved";
  CHECK_EQ(CHECK_THROWS(step(false, true), adafactor::Error), words);
  CHECK_EQ(CHECK_THROWS(step(false, false), adafactor::Error), words);
  CHECK(step(true, true).updated);
  CHECK_EQ(CHECK_THROWS(step(false, true), adafactor::Error), words);
  CHECK(step(false, false).updated);
  CHECK_EQ(counters.updates, 2);
  // A plan without leaves has nothing to bring.
  adafactor::Stepper empty(std::make_shared<const Plan>(std::vector<adafactor::LeafSpec>(), plan->knobs()));
  Counters none;
  adafactor::step(empty, none, {nullptr, nullptr, nullptr, &rate}, adafactor::cpu_backend());
  CHECK_EQ(none.updates, 1);
}

// A state in memory of somebody's steps as one in its own, and another goes on with what it left there.
void a_state_lies_in_given_memory() {
  const digest::Case what = digest::read_cases(digest::data_file()).front();
  const auto plan = digest::plan_of(what);
  Memory memory(plan->state_nbytes());
  Memory scratch(adafactor::scratch_nbytes(*plan), 1);
  memory.fill(std::byte{0});
  Counters counters;
  std::vector<LeafCount> counts;
  const auto step = [&](adafactor::State& own, const adafactor::Call& call) {
    adafactor::State given(plan, memory.bytes(), scratch.bytes());
    if (!counts.empty()) {
      std::ranges::copy(counts, given.counters.leaves.begin());
      counters.leaves = given.counters.leaves;
      given.counters = counters;
    }
    const adafactor::Outcome outcome = adafactor::step(given, call, adafactor::cpu_backend());
    counters = given.counters;
    counts.assign(counters.leaves.begin(), counters.leaves.end());
    std::memcpy(own.memory(), given.memory(), static_cast<std::size_t>(plan->state_nbytes()));
    // What is asked of a call afterwards is asked of a stepper that lives.
    own.workspace = given.workspace;
    CHECK(memory.is_intact() && scratch.is_intact());
    return outcome;
  };
  CHECK_EQ(digest::run_by(what, 2, true, step).digest, what.expected);
}

void too_little_memory_is_refused() {
  const auto plan =
      std::make_shared<const Plan>(std::vector<adafactor::LeafSpec>{{{20, 30}}}, std::vector<adafactor::Config>(1));
  std::vector<std::byte> memory(static_cast<std::size_t>(plan->state_nbytes()) - 1);
  CHECK_EQ(CHECK_THROWS(adafactor::State(plan, memory), adafactor::Error),
           std::string("199 bytes, expected 200 bytes for a state"));
  std::vector<std::byte> scratch(static_cast<std::size_t>(adafactor::scratch_nbytes(*plan)) - 1);
  adafactor::Stepper stepper(plan, scratch);
  CHECK_THROWS(adafactor::workspace_of(stepper, adafactor::cpu_backend()), adafactor::Error);
  CHECK(!stepper.workspace);
  CHECK_EQ(adafactor::scratch_nbytes(*plan, adafactor::cpu_backend()), adafactor::scratch_nbytes(*plan));
}

}  // namespace

int main() {
  what_a_call_brings_gives_every_digest();
  a_skipped_call_carries_the_state();
  each_call_says_whose_arrays_it_steps();
  a_stepper_is_told_of_the_state();
  a_state_lies_in_given_memory();
  too_little_memory_is_refused();
  return check::report();
}
