// Every form of a call on a GPU that a CPU stands in for, with the bits of a CPU: phases and leaves in parts, leaves
// that are parts of larger ones, differences, gradients that are absent, windows of accumulation, leaves that are
// stopped.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#include "adafactor/adafactor.hpp"
#include "adafactor/parts.hpp"
#include "adafactor/step/step.hpp"
#include "cuda/emulated.hpp"
#include "cuda/mirrored.hpp"
#include "support/check.hpp"
#include "support/digest.hpp"
#include "support/parts.hpp"
#include "support/same_steps.hpp"

namespace {

using adafactor::Call;
using adafactor::Config;
using adafactor::DType;
using adafactor::Indices;
using adafactor::LeafSpec;
using adafactor::Phase;
using adafactor::Phases;
using emulation::MirroredBackend;
using emulation::Order;

// A device and a backend on it.
struct Gpu {
  explicit Gpu(Order order = Order::shuffled)
      : device(order), runtime(emulation::Device::functions()), backend(runtime) {}

  emulation::Device device;
  adafactor::cuda::Runtime runtime;
  MirroredBackend backend;
};

// Each of the phases, or in three, on some leaves, then on the others: one way for each case, in turns.
void phases_and_leaves_in_parts_give_the_digests() {
  const std::vector<std::vector<Phases>> ways = {{{Phase::moments, Phase::means},
                                                  {Phase::verdict, Phase::verdict},
                                                  {Phase::factors, Phase::factors},
                                                  {Phase::rms, Phase::rms},
                                                  {Phase::apply, Phase::apply}},
                                                 {adafactor::kSums, adafactor::kSquares, adafactor::kRest}};
  std::size_t index = 0;
  for (const digest::Case& what : digest::read_cases(digest::data_file())) {
    const std::vector<Phases>& runs = ways[index++ % ways.size()];
    const Gpu gpu;
    const auto step = [&](adafactor::State& state, const Call& call) {
      gpu.backend.equip(state);
      adafactor::Step current(state, call, gpu.backend);
      const auto count = static_cast<std::int64_t>(state.plan().leaves().size());
      for (const Phases phases : runs) {
        for (const Indices leaves : {Indices{0, count / 2}, Indices{count / 2, count}}) current.run(phases, leaves);
      }
      return current.finish();
    };
    CHECK_EQ(what.name + " " + digest::run_by(what, 1, true, step).digest, what.name + " " + what.expected);
  }
}

void parts_add_up_what_a_cpu_adds_up() {
  const std::vector<parts::CutLeaf> leaves{{{{20, 30}}, {{0}, {1}}},
                                           {{{600, 520}}, {{1, 16}, {0}}},
                                           {{{4, 9, 8}}, {{0}, {}}},
                                           {{{50}}, {{0}, {0}}},
                                           {{{40, 3}}, {{0}, {}}},
                                           {{{20, 3, 3}}, {{0}, {}}},
                                           {{{30, 40}, DType::float64}, {{1}, {0}}}};
  std::vector<LeafSpec> wholes;
  for (const parts::CutLeaf& leaf : leaves) wholes.push_back(leaf.whole);
  Config config;
  config.clipnorm = 0.5;
  const Gpu gpu;
  digest::Arrays drawn(wholes);
  parts::Ranks here(leaves, {2, 2}, config);
  parts::Ranks there(leaves, {2, 2}, config);
  drawn.fill(1, {-2, 1, 0});
  for (parts::Ranks* ranks : {&here, &there}) ranks->take_parameters(drawn);
  for (const auto& rank : there.all()) gpu.backend.equip(rank->state());
  for (std::uint64_t call = 1; call < 4; ++call) {
    drawn.fill(1000 * call, {-4, 2, 0});
    for (parts::Ranks* ranks : {&here, &there}) ranks->take_gradients(drawn);
    const auto expected = here.step();
    const auto found = there.step({}, 1, gpu.backend);
    for (std::size_t r = 0; r < found.size(); ++r) {
      CHECK(found[r].updated);
      CHECK_EQ(found[r].global_grad_norm, expected[r].global_grad_norm);
      adafactor::State& a = here.all()[r]->state();
      adafactor::State& b = there.all()[r]->state();
      CHECK(std::memcmp(a.memory(), b.memory(), static_cast<std::size_t>(a.plan().state_nbytes())) == 0);
      CHECK_EQ(there.all()[r]->parameters().fold_into(0), here.all()[r]->parameters().fold_into(0));
    }
  }
}

// Two states of one plan, one on a GPU and one on a CPU, and what both are given.
class Both {
 public:
  Both(const Gpu& gpu, const std::vector<LeafSpec>& leaves, const Config& config)
      : gpu_(gpu),
        leaves_(leaves),
        plan_(std::make_shared<const adafactor::Plan>(leaves, std::vector{config})),
        here_(plan_),
        there_(plan_),
        of_here_(leaves),
        of_there_(leaves),
        from_here_(leaves),
        from_there_(leaves),
        gradients_(leaves),
        rate_{0.1, false} {
    of_here_.fill(1, {-2, 2, 0});
    of_there_.copy_from(of_here_);
    gpu_.backend.equip(there_);
  }

  digest::Arrays& gradients() { return gradients_; }
  adafactor::State& there() { return there_; }

  // The same call on both. `absent`: the leaf without a gradient, or none.
  void step(adafactor::Output output, std::size_t absent) {
    std::vector<adafactor::TensorView> given(gradients_.views(), gradients_.views() + leaves_.size());
    if (absent < given.size()) given[absent] = {};
    const bool differs = output == adafactor::Output::differences;
    Call here{of_here_.views(), given.data(), (differs ? from_here_ : of_here_).views(), &rate_};
    Call there{of_there_.views(), given.data(), (differs ? from_there_ : of_there_).views(), &rate_};
    here.output = there.output = output;
    const adafactor::Outcome expected = adafactor::step(here_, here, adafactor::cpu_backend());
    const adafactor::Outcome found = adafactor::step(there_, there, gpu_.backend);
    same_steps::check_reports(there_, found, here_, expected);
    same_steps::check_counters(there_.counters, here_.counters);
    CHECK_EQ(of_there_.fold_into(0), of_here_.fold_into(0));
    if (differs && found.updated) CHECK_EQ(from_there_.fold_into(0), from_here_.fold_into(0));
    const auto nbytes = static_cast<std::size_t>(plan_->state_nbytes());
    CHECK(std::memcmp(there_.memory(), here_.memory(), nbytes) == 0);
  }
  // Puts a number into the parameter of a leaf, on both.
  void spoil(std::size_t leaf, float number) {
    for (digest::Arrays* arrays : {&of_here_, &of_there_}) {
      std::memcpy(arrays->views()[leaf].data, &number, sizeof number);
    }
  }

 private:
  const Gpu& gpu_;
  std::vector<LeafSpec> leaves_;
  std::shared_ptr<const adafactor::Plan> plan_;
  adafactor::State here_;
  adafactor::State there_;
  digest::Arrays of_here_, of_there_;
  digest::Arrays from_here_, from_there_;
  digest::Arrays gradients_;
  adafactor::LearningRate rate_;
};

const std::vector<LeafSpec>& leaves_of_each_kind() {
  static const std::vector<LeafSpec> leaves{
      {{20, 33}}, {{700}}, {{40, 3}}, {{20, 3, 3}}, {{}}, {{5, 20, 33}}, {{33, 20}, DType::float64}};
  return leaves;
}

// Knobs by which an element goes through every link.
std::vector<Config> configs() {
  std::vector<Config> made(5);
  made[1].beta_1 = 0.9;
  made[1].weight_decay = 0.01;
  made[2].gradient_accumulation_steps = 2;
  made[3].clipvalue = 0.5;
  made[4].epsilon_1_mode = adafactor::EpsilonMode::clamp;
  made[4].epsilon_1 = 0.01;
  for (Config& config : made) config.on_nonfinite = adafactor::OnNonfinite::skip;
  return made;
}

void every_form_of_a_call_has_the_bits_of_a_cpu() {
  for (const Config& config : configs()) {
    for (const auto output : {adafactor::Output::parameters, adafactor::Output::differences}) {
      const Gpu gpu;
      Both both(gpu, leaves_of_each_kind(), config);
      const std::size_t none = leaves_of_each_kind().size();
      for (std::size_t call = 0; call <= none; ++call) {
        both.gradients().fill(7 + call, {-6, 3, 0});
        const bool completes = config.gradient_accumulation_steps && call % 2 == 1;
        // Differences of a leaf without a gradient have no place where its window is completed.
        both.step(output, completes ? none : call);
      }
    }
  }
}

// A parameter that is spoilt between calls stops its leaf, whose window is forgotten, and the others go on.
void a_leaf_that_is_stopped_does_what_it_does_on_a_cpu() {
  for (std::size_t leaf = 0; leaf + 1 < leaves_of_each_kind().size(); ++leaf) {
    const Gpu gpu;
    Config config = configs()[2];
    config.use_ema = true;
    Both both(gpu, leaves_of_each_kind(), config);
    const std::size_t none = leaves_of_each_kind().size();
    for (std::size_t call = 0; call < 6; ++call) {
      if (call == 2) both.spoil(leaf, std::numeric_limits<float>::quiet_NaN());
      if (call == 4) both.spoil(leaf, 0.5F);
      both.gradients().fill(7 + call, {-6, 3, 0});
      both.step(adafactor::Output::parameters, none);
    }
    CHECK(both.there().counters.updates > 1);
  }
}

}  // namespace

int main() {
  phases_and_leaves_in_parts_give_the_digests();
  parts_add_up_what_a_cpu_adds_up();
  every_form_of_a_call_has_the_bits_of_a_cpu();
  a_leaf_that_is_stopped_does_what_it_does_on_a_cpu();
  return check::report();
}
