// Leaves that are cut: by rows, by columns, by slices, by rows and columns at once, in parts that are uneven or empty.
// The parts, whose sums are added between the phases, make the step of the whole leaf: of these numbers, in float32, to
// the bit where they begin at multiples of sixteen rows and 512 columns, to 1e-6 elsewhere; and what one part finds
// stops all of them.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <iostream>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "adafactor/adafactor.hpp"
#include "support/check.hpp"
#include "support/digest.hpp"
#include "support/parts.hpp"

namespace {

using adafactor::Config;
using adafactor::DType;
using adafactor::LeafSpec;
using adafactor::StateKind;
using parts::Cut;
using parts::CutLeaf;
using parts::Ranks;
using parts::Shape;

struct Example {
  std::string name;
  std::vector<int> mesh;
  std::vector<CutLeaf> leaves;
};

CutLeaf leaf(Shape shape, std::vector<Cut> cuts, DType dtype = DType::float32) {
  return {{std::move(shape), dtype}, std::move(cuts)};
}

// Parts that begin where a group of rows and a block of columns begin.
std::vector<Example> aligned() {
  const Cut rows{0, 16};
  const Cut cols{1, 512};
  const Cut none{};
  return {
      {"rows",
       {2},
       {leaf({64, 96}, {rows}), leaf({1056, 512}, {rows}), leaf({4, 48, 40}, {{1, 16}}), leaf({}, {none}),
        leaf({40}, {none}), leaf({2000}, {{0, 512}}), leaf({1024, 64}, {rows}, DType::bfloat16),
        leaf({64, 96}, {rows}, DType::float64)}},
      {"rows of four, some empty", {4}, {leaf({48, 70}, {rows}), leaf({16, 33}, {rows}), leaf({20, 30}, {none})}},
      {"columns", {2}, {leaf({64, 1024}, {cols}), leaf({20, 10240}, {cols}), leaf({3, 20, 1030}, {{2, 512}})}},
      {"slices", {2}, {leaf({4, 30, 40}, {{0, 1}}), leaf({5, 60, 500}, {{0, 1}}), leaf({17, 5, 20}, {{0, 1}})}},
      {"rows and columns",
       {2, 2},
       {leaf({64, 1024}, {rows, cols}), leaf({520, 600}, {rows, cols}), leaf({32, 10240}, {cols, rows}),
        leaf({96, 40}, {rows, rows}), leaf({96, 40}, {none, rows}), leaf({96, 40}, {rows, none}),
        leaf({4, 48, 1024}, {{2, 512}, {1, 16}}), leaf({50}, {none, none}),
        leaf({520, 1200}, {rows, cols}, DType::float64), leaf({3000}, {{0, 512}, none}, DType::float64)}},
      {"slices and rows", {2, 2}, {leaf({6, 64, 33}, {{0, 1}, {1, 16}}), leaf({6, 64, 33}, {{1, 16}, {0, 1}})}},
  };
}

// Parts that begin anywhere, some with one row or none; and those of rows shorter than the lanes, of which U^2 is added
// in runs that know no rows.
std::vector<Example> uneven() {
  const auto leaves = [](const std::vector<Cut>& of_matrix, const std::vector<Cut>& of_stack, Cut of_vector) {
    std::vector<Cut> of_vectors(of_matrix.size());
    of_vectors[0] = of_vector;
    return std::vector<CutLeaf>{leaf({10, 7}, of_matrix),   leaf({7, 10}, of_matrix),    leaf({3, 8, 6}, of_stack),
                                leaf({9}, of_vectors),      leaf({1, 6}, of_matrix),     leaf({4, 1}, of_matrix),
                                leaf({64, 33}, of_matrix),  leaf({30, 4500}, of_matrix), leaf({20, 9, 8}, of_stack),
                                leaf({700, 100}, of_matrix)};
  };
  return {
      {"rows", {2}, leaves({{0}}, {{1}}, {0})},
      {"rows of four", {4}, leaves({{0}}, {{1}}, {0})},
      {"columns of three", {3}, leaves({{1}}, {{2}}, {0})},
      {"slices of two", {2}, leaves({{}}, {{0}}, {})},
      {"rows, columns", {2, 2}, leaves({{0}, {1}}, {{1}, {2}}, {0})},
      {"columns, rows", {2, 2}, leaves({{1}, {0}}, {{2}, {1}}, {0})},
      {"rows twice", {2, 2}, leaves({{0}, {0}}, {{1}, {1}}, {0})},
      {"copies of rows", {2, 2}, leaves({{}, {0}}, {{}, {1}}, {})},
      {"slices, columns", {2, 2}, leaves({{0}, {}}, {{0}, {2}}, {0})},
      {"short rows", {2}, {leaf({48, 7}, {{0, 16}}), leaf({33, 5}, {{0, 16}}), leaf({2500, 4}, {{0, 16}})}},
      {"small slices", {2}, {leaf({40, 3, 3}, {{0}}), leaf({64, 32, 3, 3}, {{1}}), leaf({300, 7, 9}, {{0}})}},
      {"one small slice of many", {16}, {leaf({16, 8, 8}, {{0}}), leaf({16, 4, 4}, {{0}})}},
  };
}

struct Knobs {
  std::string name;
  Config config;
};

std::vector<Knobs> knobs() {
  std::vector<Knobs> all{{"defaults", {}}};
  const auto add = [&](const char* name, const auto& set) {
    Config config;
    config.learning_rate = 0.05;
    set(config);
    all.push_back({name, config});
  };
  add("norm", [](Config& config) { config.clipnorm = 1.5; });
  add("global norm, decay", [](Config& config) {
    config.global_clipnorm = 2.0;
    config.weight_decay = 0.1;
  });
  add("accumulation", [](Config& config) { config.gradient_accumulation_steps = 2; });
  add("momentum, average", [](Config& config) {
    config.beta_1 = 0.9;
    config.use_ema = true;
    config.ema_overwrite_frequency = 2;
  });
  add("value, clamp", [](Config& config) {
    config.clipvalue = 0.5;
    config.epsilon_1_mode = adafactor::EpsilonMode::clamp;
    config.epsilon_1 = 1e-4;
  });
  add("propagate", [](Config& config) { config.on_nonfinite = adafactor::OnNonfinite::propagate; });
  add("noise", [](Config& config) { config.rounding = adafactor::Rounding::stochastic; });
  return all;
}

constexpr int kCalls = 4;

// Whole leaves, with parameters to begin with and the gradients of some calls.
struct Drawn {
  explicit Drawn(const Example& of) : example(of) {
    for (const CutLeaf& cut : example.leaves) specs.push_back(cut.whole);
    parameters.emplace(specs);
    parameters->fill(1, {-2, 1, 0});
    for (int call = 0; call < kCalls; ++call) {
      gradients.push_back(std::make_unique<digest::Arrays>(specs));
      gradients.back()->fill(1000 * (static_cast<std::uint64_t>(call) + 1), {-10, 3, 0});
    }
  }

  const Example& example;
  std::vector<LeafSpec> specs;
  std::optional<digest::Arrays> parameters;
  std::vector<std::unique_ptr<digest::Arrays>> gradients;
};

// One state that steps the leaves as a whole.
class Whole {
 public:
  Whole(const Drawn& drawn, const Config& config)
      : drawn_(drawn),
        state_(std::make_shared<const adafactor::Plan>(drawn.specs, std::vector{config})),
        parameters_(drawn_.specs),
        rate_{config.learning_rate, false} {
    parameters_.copy_from(*drawn.parameters);
  }

  adafactor::Outcome step(int call) {
    const adafactor::TensorView* parameters = parameters_.views();
    const adafactor::TensorView* gradients = drawn_.gradients[static_cast<std::size_t>(call)]->views();
    return adafactor::step(state_, {parameters, gradients, parameters, &rate_, 1}, adafactor::cpu_backend());
  }

  adafactor::State& state() { return state_; }
  digest::Arrays& parameters() { return parameters_; }

 private:
  const Drawn& drawn_;
  adafactor::State state_;
  digest::Arrays parameters_;
  adafactor::LearningRate rate_;
};

// The ranks of an example, with their parts of the parameters.
Ranks ranks_of(const Drawn& drawn, const Config& config) {
  Ranks ranks(drawn.example.leaves, drawn.example.mesh, config);
  ranks.take_parameters(*drawn.parameters);
  return ranks;
}

// The numbers of a leaf whose arithmetic is double show how the sums of parts associate: a few hundred roundings at
// most in each of the sums of a step, of 1.1e-16 each, of which nearly all cancel.
constexpr double kInDouble = 1e-13;

// Every parameter and every array of the state of every rank, held against that part of the whole's.
void are_parts_of(Whole& whole, Ranks& ranks, double tolerance, const std::string& name) {
  for (const auto& rank : ranks.all()) {
    const std::vector<adafactor::LeafPlan>& leaves = rank->state().plan().leaves();
    for (std::size_t leaf = 0; leaf < leaves.size(); ++leaf) {
      const LeafSpec& spec = rank->spec(leaf);
      const std::string where = name + ", leaf " + std::to_string(leaf) + ": ";
      const bool is_double = leaves[leaf].arithmetic == DType::float64;
      const auto check = [&](const std::string& what, double distance) {
        if (!CHECK(distance <= (is_double ? std::fmax(tolerance, kInDouble) : tolerance)))
          std::cerr << "  " << where << what << " is off by " << distance << '\n';
      };
      const adafactor::TensorView& part = rank->parameters().views()[leaf];
      const adafactor::TensorView& all = whole.parameters().views()[leaf];
      check("parameter",
            parts::distance(static_cast<const std::byte*>(part.data), static_cast<const std::byte*>(all.data),
                            part.dtype, spec, parts::all_axes(spec.shape), true));
      for (std::size_t k = 0; k < adafactor::kStateKinds; ++k) {
        const adafactor::StateArray& array = leaves[leaf].state[k];
        if (!array.exists()) continue;
        const std::byte* of_whole = whole.state().memory() + whole.state().plan().leaves()[leaf].state[k].offset;
        check(adafactor::kStateKindNames[k],
              parts::distance(rank->state().memory() + array.offset, of_whole, array.dtype, spec,
                              parts::axes_of(leaves[leaf], static_cast<StateKind>(k)), k > 2));
      }
    }
  }
}

void have_equal_outcomes(const adafactor::Outcome& whole, const std::vector<adafactor::Outcome>& parts,
                         double tolerance) {
  for (const adafactor::Outcome& outcome : parts) {
    CHECK_EQ(outcome.updated, whole.updated);
    CHECK_EQ(outcome.skipped, whole.skipped);
    CHECK_EQ(outcome.nonfinite_leaf, whole.nonfinite_leaf);
    if (!whole.skipped) CHECK_NEAR(outcome.global_grad_norm / whole.global_grad_norm, 1.0, tolerance);
  }
}

void parts_make_the_step(const Drawn& drawn, const Knobs& knobs, double tolerance) {
  Whole whole(drawn, knobs.config);
  Ranks ranks = ranks_of(drawn, knobs.config);
  for (int call = 0; call < (knobs.config.gradient_accumulation_steps ? kCalls : kCalls - 1); ++call) {
    ranks.take_gradients(*drawn.gradients[static_cast<std::size_t>(call)]);
    const adafactor::Outcome outcome = whole.step(call);
    have_equal_outcomes(outcome, ranks.step(), tolerance + 1e-12);
    const std::string name = drawn.example.name + ", " + knobs.name + ", call " + std::to_string(call);
    are_parts_of(whole, ranks, tolerance, name);
    const adafactor::LeafReport expected = adafactor::report(whole.state(), 0, outcome.updated);
    for (const auto& rank : ranks.all()) {
      const adafactor::LeafReport found = adafactor::report(rank->state(), 0, outcome.updated);
      CHECK_NEAR(found.grad_norm / expected.grad_norm, 1.0, tolerance + 1e-12);
      if (outcome.updated) CHECK_NEAR(found.step_size / expected.step_size, 1.0, tolerance + 1e-12);
    }
  }
}

void set_number(const digest::Arrays& arrays, std::size_t leaf, float number) {
  if (arrays.count(leaf) > 0) static_cast<float*>(arrays.views()[leaf].data)[0] = number;
}

// A gradient that is not finite in one part stops all parts: no byte changes, and all say the same.
void what_one_part_finds_stops_all() {
  for (const Example& example : uneven()) {
    const std::size_t last = example.leaves.size() - 1;
    const std::vector<Cut>& cuts = example.leaves[last].cuts;
    if (std::ranges::any_of(cuts, [](const Cut& cut) { return cut.axis < 0; })) continue;  // copies are to be equal
    Config config;
    config.on_nonfinite = adafactor::OnNonfinite::skip;
    const Drawn drawn(example);
    const std::size_t count = ranks_of(drawn, config).all().size();
    for (std::size_t victim = 0; victim < count; ++victim) {
      for (const float number : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
        Ranks ranks = ranks_of(drawn, config);
        ranks.take_gradients(*drawn.gradients[0]);
        set_number(ranks.all()[victim]->gradients(), last, number);
        for (const adafactor::Outcome& outcome : ranks.step()) {
          CHECK(outcome.skipped);
          CHECK_EQ(outcome.nonfinite_leaf, last);
        }
        Whole untouched(drawn, config);
        are_parts_of(untouched, ranks, 0, example.name + ", one part not finite");
      }
    }
  }
}

// A parameter that is not finite stops the first update of all, and later that of its leaf alone, in all its parts.
void a_parameter_that_is_not_finite_stops_its_leaf() {
  const Example example = aligned().front();
  const Drawn drawn(example);
  for (const bool first : {true, false}) {
    Config config;
    config.on_nonfinite = adafactor::OnNonfinite::skip;
    Whole whole(drawn, config);
    Ranks ranks = ranks_of(drawn, config);
    for (int call = 0; call < kCalls; ++call) {
      if (call == (first ? 0 : 1)) {
        set_number(whole.parameters(), 1, std::numeric_limits<float>::quiet_NaN());
        set_number(ranks.all()[0]->parameters(), 1, std::numeric_limits<float>::quiet_NaN());
      }
      if (call == 2) {
        set_number(whole.parameters(), 1, 0.5F);
        set_number(ranks.all()[0]->parameters(), 1, 0.5F);
      }
      ranks.take_gradients(*drawn.gradients[static_cast<std::size_t>(call)]);
      have_equal_outcomes(whole.step(call), ranks.step(), 1e-12);
      are_parts_of(whole, ranks, 0, "a parameter that is not finite");
    }
  }
}

// A leaf has a gradient in all its parts or in none; which parts differ shows in all of them.
void a_gradient_is_there_in_all_parts_or_in_none() {
  const Example example = uneven().front();
  const Drawn drawn(example);
  const Config config;
  Ranks ranks = ranks_of(drawn, config);
  ranks.take_gradients(*drawn.gradients[0]);
  const std::string words = CHECK_THROWS(
      ranks.step([](std::size_t rank, std::size_t leaf) { return rank == 1 && leaf == 2; }), adafactor::Error);
  CHECK_EQ(words, std::string("grads leaf 2: one in 1 of 2 parts, expected a gradient in all parts or in none"));
  Whole untouched(drawn, config);
  are_parts_of(untouched, ranks, 0, "a gradient in one part");
  ranks.step([](std::size_t, std::size_t leaf) { return leaf == 2; });
  for (const auto& rank : ranks.all()) {
    CHECK_EQ(rank->state().counters.leaves[2].updates, 0);
    CHECK_EQ(rank->state().counters.leaves[1].updates, 1);
  }
}

// Who forgets to add up steps nothing.
void sums_are_asked_for_in_order() {
  const Example example = aligned()[4];
  const Drawn drawn(example);
  Ranks ranks = ranks_of(drawn, {});
  ranks.take_gradients(*drawn.gradients[0]);
  parts::Rank& rank = *ranks.all()[0];
  const adafactor::TensorView* parameters = rank.parameters().views();
  const adafactor::Call call{parameters, rank.gradients().views(), parameters, &rank.rate(), 1};
  CHECK_THROWS(adafactor::step(rank.state(), call, adafactor::cpu_backend()), adafactor::Error);
  adafactor::Step step(rank.state(), call, adafactor::cpu_backend());
  CHECK_THROWS(step.run(adafactor::kWholeCall), adafactor::Error);
  step.run(adafactor::kSums);
  CHECK_THROWS(step.sums(1), adafactor::Error);
  CHECK_THROWS(step.squares(0), adafactor::Error);
  CHECK_EQ(step.sums(0).size(), rank.state().plan().shared_count(adafactor::Round::sums, 0));
  CHECK_THROWS(step.sums(0), adafactor::Error);
  CHECK_THROWS(step.run(adafactor::kSquares), adafactor::Error);
  CHECK(step.sums(1).data() != nullptr);
  CHECK_THROWS(step.squares(0), adafactor::Error);
  CHECK_THROWS(step.run(adafactor::kRest), adafactor::Error);
  step.run(adafactor::kSquares);
  CHECK_THROWS(step.run(adafactor::kRest), adafactor::Error);
  CHECK_EQ(step.squares(0).size(), rank.state().plan().shared_count(adafactor::Round::squares, 0));
  step.squares(1);
  CHECK_THROWS(step.finish(), adafactor::Error);
  CHECK_EQ(rank.state().counters.calls, 0);
}

void what_is_no_part_is_refused() {
  const auto refusal = [](const LeafSpec& spec) {
    return CHECK_THROWS(adafactor::Plan({spec}, {Config{}}), adafactor::Error);
  };
  LeafSpec part{{4, 6}};
  part.global_shape = {8, 6};
  part.offset = {4, 0};
  part.split = {1, 0};
  CHECK_EQ(adafactor::Plan({part}, {Config{}}).groups(), 1);
  LeafSpec beyond = part;
  beyond.offset = {5, 0};
  CHECK_EQ(refusal(beyond),
           std::string("leaf 0: offset 5 and extent 4, expected a part inside global_shape on axis 0"));
  LeafSpec whose = part;
  whose.split = {0, 0};
  CHECK_EQ(refusal(whose),
           std::string("leaf 0: none, although it is a part there, expected the groups that split it on axis 0"));
  LeafSpec twice = part;
  twice.split = {1, 1};
  CHECK_EQ(refusal(twice),
           std::string("leaf 0: one of another axis on axis 1, expected groups that split one axis each"));
  LeafSpec short_of = part;
  short_of.offset = {4};
  refusal(short_of);
}

}  // namespace

int main() {
  adafactor::set_num_threads(1);  // which numbers do not depend on
  const auto make_the_steps = [](const std::vector<Example>& examples, double tolerance) {
    for (const Example& example : examples) {
      const Drawn drawn(example);
      for (const Knobs& config : knobs()) parts_make_the_step(drawn, config, tolerance);
    }
  };
  make_the_steps(aligned(), 0);
  make_the_steps(uneven(), 1e-6);
  what_one_part_finds_stops_all();
  a_parameter_that_is_not_finite_stops_its_leaf();
  a_gradient_is_there_in_all_parts_or_in_none();
  sums_are_asked_for_in_order();
  what_is_no_part_is_refused();
  return check::report();
}
