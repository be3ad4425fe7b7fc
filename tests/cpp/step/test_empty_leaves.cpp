// Leaves without elements, and empty parts of others: they have moments all the same, which stay where nothing has
// elements, follow the other parts where these have some, and are carried along where they lie in two places.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "adafactor/adafactor.hpp"
#include "adafactor/parts.hpp"
#include "support/check.hpp"
#include "support/digest.hpp"
#include "support/guarded.hpp"
#include "support/parts.hpp"

namespace {

using adafactor::Call;
using adafactor::Config;
using adafactor::LeafSpec;
using adafactor::Plan;
using adafactor::StateArrays;
using adafactor::TensorView;
using parts::Cut;
using parts::CutLeaf;
using parts::Ranks;
using parts::Shape;

// The sums of one part alone, as if the others had added nothing.
adafactor::Outcome make_alone(adafactor::Step& step, const Plan& plan) {
  step.run(adafactor::kSums);
  for (int group = 0; group < plan.groups(); ++group) step.sums(group);
  step.run(adafactor::kSquares);
  for (int group = 0; group < plan.groups(); ++group) step.squares(group);
  step.run(adafactor::kRest);
  return step.finish();
}

// Whoever has no elements, not even in other parts, keeps the zeros that its moments begin with, whatever was in the
// scratch before.
void what_is_empty_as_a_whole_keeps_its_moments() {
  for (const Shape& shape : {Shape{0, 4}, Shape{4, 0}, Shape{3, 0, 4}, Shape{3, 4, 0}, Shape{0, 4, 4}, Shape{0}}) {
    for (int axis = -1; axis < static_cast<int>(shape.size()); ++axis) {
      for (const int place : {0, 1}) {
        const std::vector<LeafSpec> specs{axis < 0 ? LeafSpec{shape}
                                                   : parts::part_of({{shape}, {{axis}}}, {2}, {place})};
        const auto plan = std::make_shared<const Plan>(specs, std::vector<Config>(1));
        guarded::Memory memory(plan->state_nbytes());
        guarded::Memory scratch(adafactor::scratch_nbytes(*plan));
        memory.fill(std::byte{0});
        adafactor::State state(plan, memory.bytes(), scratch.bytes());
        const digest::Arrays arrays(specs);
        const adafactor::LearningRate rate{0.1, false};
        const Call call{arrays.views(), arrays.views(), arrays.views(), &rate};
        for (int i = 0; i < 2; ++i) {
          adafactor::Step step(state, call, adafactor::cpu_backend());
          const adafactor::Outcome outcome = make_alone(step, *plan);
          CHECK(outcome.updated);
          CHECK_EQ(outcome.nonfinite_leaf, -1);
        }
        CHECK(std::ranges::all_of(memory.bytes(), [](std::byte byte) { return byte == std::byte{0}; }));
        CHECK(memory.is_intact() && scratch.is_intact());
        CHECK_EQ(state.counters.leaves[0].updates, 2);
      }
    }
  }
}

// Leaves of which some parts are empty: rows, columns, a vector, slices.
std::vector<CutLeaf> with_empty_parts() {
  return {{{{20, 7}}, {{0, 8}}}, {{{3, 20}}, {{0}}}, {{{6, 30}}, {{1, 16}}}, {{{5}}, {{0, 2}}}, {{{2, 5, 6}}, {{0}}}};
}

bool is_empty(const LeafSpec& spec) {
  return std::ranges::any_of(spec.shape, [](std::int64_t extent) { return extent == 0; });
}

void have_equal_states(Ranks& some, Ranks& others) {
  for (std::size_t r = 0; r < some.all().size(); ++r) {
    adafactor::State& a = some.all()[r]->state();
    adafactor::State& b = others.all()[r]->state();
    CHECK(std::memcmp(a.memory(), b.memory(), static_cast<std::size_t>(a.plan().state_nbytes())) == 0);
    CHECK_EQ(some.all()[r]->parameters().fold_into(0), others.all()[r]->parameters().fold_into(0));
    for (std::size_t leaf = 0; leaf < a.counters.leaves.size(); ++leaf) {
      CHECK_EQ(a.counters.leaves[leaf].updates, b.counters.leaves[leaf].updates);
      CHECK_EQ(a.counters.leaves[leaf].accumulated, b.counters.leaves[leaf].accumulated);
    }
  }
}

// Nobody needs to say where the gradient of an empty part lies, or that it has none: the part does what the others do.
void an_empty_part_does_what_the_others_do(const Config& config) {
  const std::vector<CutLeaf> leaves = with_empty_parts();
  std::vector<LeafSpec> wholes;
  for (const CutLeaf& leaf : leaves) wholes.push_back(leaf.whole);
  digest::Arrays drawn(wholes);
  Ranks plain(leaves, {4}, config);
  Ranks turned(leaves, {4}, config);
  drawn.fill(1, {-2, 1, 0});
  for (Ranks* ranks : {&plain, &turned}) ranks->take_parameters(drawn);
  for (std::uint64_t call = 0; call < 6; ++call) {
    drawn.fill(1000 * (call + 1), {-4, 1, 0});
    for (Ranks* ranks : {&plain, &turned}) ranks->take_gradients(drawn);
    // Some leaves have no gradient in some calls; the empty parts of the other ranks say the opposite each time.
    const auto is_absent = [&](std::size_t leaf) { return (leaf + call) % 3 == 0; };
    const auto outcomes = plain.step([&](std::size_t, std::size_t leaf) { return is_absent(leaf); });
    const auto others = turned.step([&](std::size_t rank, std::size_t leaf) {
      return is_absent(leaf) != is_empty(turned.all()[rank]->spec(leaf));
    });
    for (std::size_t r = 0; r < outcomes.size(); ++r) {
      CHECK_EQ(others[r].updated, outcomes[r].updated);
      CHECK_EQ(others[r].global_grad_norm, outcomes[r].global_grad_norm);
    }
    have_equal_states(plain, turned);
  }
  // What all parts share is the same in all of them: the columns of the first leaf, of which the last part has no row.
  const auto cols_of = [&](std::size_t rank) {
    const adafactor::State& state = turned.all()[rank]->state();
    const adafactor::StateArray& array =
        state.plan().leaves()[0].state[static_cast<std::size_t>(adafactor::StateKind::col)];
    return digest::fold(0, state.memory() + array.offset, array.count, array.dtype);
  };
  CHECK(is_empty(turned.all()[3]->spec(0)));
  CHECK_EQ(cols_of(3), cols_of(0));
  CHECK(cols_of(3) != digest::fold(0, std::vector<std::byte>(7 * sizeof(float)).data(), 7, adafactor::DType::float32));
}

// A leaf of 4x4, or a part of it, that has moments before a call and a place for them afterwards, each of them the same
// or another one.
struct Carried {
  LeafSpec spec;
  bool moves_row;
  bool moves_col;
  bool has_gradient;  // of a call that is skipped
};

void are_carried(const Carried& what) {
  Config config;
  config.on_nonfinite = adafactor::OnNonfinite::skip;
  const std::vector<LeafSpec> specs{what.spec};
  const auto plan = std::make_shared<const Plan>(specs, std::vector{config});
  adafactor::Stepper stepper(plan);
  adafactor::Counters counters;
  std::vector<adafactor::LeafCount> counts(1);
  counters.leaves = counts;
  const auto drawn = [](std::int64_t count) {
    std::vector<float> numbers(static_cast<std::size_t>(count));
    for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<float>(i + 1);
    return numbers;
  };
  const adafactor::Layout& layout = plan->leaves()[0].layout;
  std::vector<float> row = drawn(layout.slices * layout.rows);
  std::vector<float> col = drawn(layout.slices * layout.cols);
  std::vector<float> row_after(row.size(), -1);
  std::vector<float> col_after(col.size(), -1);
  StateArrays before;
  before.row = row.data();  // null where there are no rows
  before.col = col.data();
  StateArrays after = before;
  if (what.moves_row) after.row = row_after.data();
  if (what.moves_col) after.col = col_after.data();
  const adafactor::StateSlots slots{before, after};
  digest::Arrays parameters(specs);
  digest::Arrays gradients(specs);
  for (digest::Arrays* arrays : {&parameters, &gradients}) arrays->fill(1, {-2, 1, 0});
  const TensorView gradient = what.has_gradient ? gradients.views()[0] : TensorView{};
  const adafactor::LearningRate rate{0.1, false};
  Call call{parameters.views(), &gradient, parameters.views(), &rate};
  call.state = &slots;
  if (what.has_gradient) call.grad_multiplier = std::numeric_limits<double>::infinity();
  adafactor::Step step(stepper, counters, call, adafactor::cpu_backend());
  make_alone(step, *plan);
  CHECK_EQ(row, drawn(layout.slices * layout.rows));
  CHECK_EQ(col, drawn(layout.slices * layout.cols));
  if (what.moves_row) CHECK_EQ(row_after, row);
  if (what.moves_col) CHECK_EQ(col_after, col);
}

// Rows and columns are carried each for itself: where there are no rows, both of their places may be null.
void moments_are_carried_each_for_itself() {
  const CutLeaf by_rows{{{4, 4}}, {{0, 4}}};
  const CutLeaf by_cols{{{4, 4}}, {{1, 4}}};
  for (const LeafSpec& spec :
       {LeafSpec{{0, 4}}, LeafSpec{{4, 0}}, LeafSpec{{2, 0, 4}}, LeafSpec{{4, 4}}, parts::part_of(by_rows, {2}, {0}),
        parts::part_of(by_rows, {2}, {1}), parts::part_of(by_cols, {2}, {1})}) {
    for (const bool moves_row : {true, false}) {
      for (const bool moves_col : {true, false}) {
        are_carried({spec, moves_row, moves_col, false});
        if (!is_empty(spec)) are_carried({spec, moves_row, moves_col, true});
      }
    }
  }
}

}  // namespace

int main() {
  what_is_empty_as_a_whole_keeps_its_moments();
  an_empty_part_does_what_the_others_do({});
  Config accumulating;
  accumulating.gradient_accumulation_steps = 2;
  an_empty_part_does_what_the_others_do(accumulating);
  moments_are_carried_each_for_itself();
  return check::report();
}
