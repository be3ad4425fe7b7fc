// A backend that does its work later, when it is asked to finish, as a device may: every digest, the numbers that parts
// add up, and no work that goes on after its step.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "adafactor/adafactor.hpp"
#include "adafactor/parts.hpp"
#include "support/check.hpp"
#include "support/digest.hpp"
#include "support/parts.hpp"

namespace {

using adafactor::Config;
using adafactor::Indices;
using adafactor::Phases;
using adafactor::Plan;
using adafactor::Workspace;

// The CPU, but nothing is done before `finish`.
class QueuedBackend final : public adafactor::Backend {
 public:
  std::int64_t scratch_nbytes(const Plan& plan) const override { return cpu_.scratch_nbytes(plan); }
  void prepare(Workspace& workspace) const override { cpu_.prepare(workspace); }
  void run(Workspace& workspace, Phases phases, Indices leaves) const override {
    queue_.push_back({&workspace, phases, leaves});
  }
  void copy(void* to, const void* from, std::int64_t nbytes) const override { cpu_.copy(to, from, nbytes); }
  void collect(Workspace&) const override { ++collections_; }
  void finish(Workspace&) const override {
    if (fails) throw std::runtime_error("a device that has failed");
    for (const Run& run : queue_) cpu_.run(*run.workspace, run.phases, run.leaves);
    queue_.clear();
    ++finishes_;
  }

  bool is_idle() const { return queue_.empty(); }
  int finishes() const { return finishes_; }
  int collections() const { return collections_; }

  bool fails = false;

 private:
  struct Run {
    Workspace* workspace;
    Phases phases;
    Indices leaves;
  };

  const adafactor::Backend& cpu_ = adafactor::cpu_backend();
  mutable std::vector<Run> queue_;
  mutable int finishes_ = 0;
  mutable int collections_ = 0;
};

void work_that_is_done_later_gives_every_digest() {
  const QueuedBackend backend;
  for (const digest::Case& what : digest::read_cases(digest::data_file())) {
    const auto step = [&](adafactor::State& state, const adafactor::Call& call) {
      return adafactor::step(state, call, backend);
    };
    CHECK_EQ(digest::run_by(what, 2, true, step).digest, what.expected);
  }
  CHECK(backend.is_idle());
}

// The parts read what was found before they tell each other, and what they decide comes before what reads it.
void parts_add_up_what_is_done_later() {
  const std::vector<parts::CutLeaf> leaves{
      {{{20, 30}}, {{0}, {1}}}, {{{600, 520}}, {{1, 16}, {0}}}, {{{4, 9, 8}}, {{0}, {}}}, {{{50}}, {{0}, {0}}}};
  std::vector<adafactor::LeafSpec> wholes;
  for (const parts::CutLeaf& leaf : leaves) wholes.push_back(leaf.whole);
  Config config;
  config.clipnorm = 0.5;
  digest::Arrays drawn(wholes);
  parts::Ranks now(leaves, {2, 2}, config);
  parts::Ranks later(leaves, {2, 2}, config);
  drawn.fill(1, {-2, 1, 0});
  for (parts::Ranks* ranks : {&now, &later}) ranks->take_parameters(drawn);
  const QueuedBackend backend;
  for (std::uint64_t call = 1; call < 4; ++call) {
    drawn.fill(1000 * call, {-4, 2, 0});
    for (parts::Ranks* ranks : {&now, &later}) ranks->take_gradients(drawn);
    const auto expected = now.step();
    const auto found = later.step({}, 1, backend);
    for (std::size_t r = 0; r < found.size(); ++r) {
      CHECK(found[r].updated);
      CHECK_EQ(found[r].global_grad_norm, expected[r].global_grad_norm);
      adafactor::State& a = now.all()[r]->state();
      adafactor::State& b = later.all()[r]->state();
      CHECK(std::memcmp(a.memory(), b.memory(), static_cast<std::size_t>(a.plan().state_nbytes())) == 0);
      CHECK_EQ(later.all()[r]->parameters().fold_into(0), now.all()[r]->parameters().fold_into(0));
    }
  }
}

// A step that somebody gives up leaves no work behind, and one that has finished has none.
void no_work_goes_on_after_its_step() {
  const std::vector<adafactor::LeafSpec> leaves{{{20, 30}}, {{7}}};
  adafactor::State state(std::make_shared<const Plan>(leaves, std::vector<Config>(1)));
  digest::Arrays arrays(leaves);
  arrays.fill(1, {-2, 1, 0});
  const adafactor::LearningRate rate{0.1, false};
  const adafactor::Call call{arrays.views(), arrays.views(), arrays.views(), &rate};
  const QueuedBackend backend;
  const std::uint64_t before = arrays.fold_into(0);
  {
    adafactor::Step given_up(state, call, backend);
    given_up.run(adafactor::kSums);
    CHECK(!backend.is_idle());
  }
  CHECK(backend.is_idle());
  CHECK_EQ(arrays.fold_into(0), before);
  {
    const adafactor::Step never_begun(state, call, backend);
  }
  CHECK_EQ(backend.finishes(), 1);
  CHECK(adafactor::step(state, call, backend).updated);
  CHECK_EQ(backend.finishes(), 2);
  CHECK(arrays.fold_into(0) != before);
}

// Whether it throws Error.
template <class Ask>
bool is_refused(const Ask& ask) {
  try {
    ask();
  } catch (const adafactor::Error&) {
    return true;
  }
  return false;
}

// A step that is closed has no more phases to come, and is not counted before it has finished.
void a_step_is_closed_before_it_is_known_what_it_found() {
  const std::vector<adafactor::LeafSpec> leaves{{{20, 30}}, {{7}}};
  adafactor::State state(std::make_shared<const Plan>(leaves, std::vector<Config>(1)));
  digest::Arrays arrays(leaves);
  arrays.fill(1, {-2, 1, 0});
  const adafactor::LearningRate rate{0.1, false};
  const adafactor::Call call{arrays.views(), arrays.views(), arrays.views(), &rate};
  const QueuedBackend backend;
  adafactor::Step step(state, call, backend);
  step.run(adafactor::kSums);
  CHECK(is_refused([&] { step.close(); }));
  step.run(adafactor::kSquares);
  step.run(adafactor::kRest);
  step.close();
  CHECK_EQ(backend.collections(), 1);
  CHECK(!backend.is_idle());
  CHECK_EQ(state.counters.updates, 0);
  CHECK(is_refused([&] { step.run(adafactor::kSums); }));
  CHECK(is_refused([&] { step.close(); }));
  CHECK(step.finish().updated);
  CHECK_EQ(state.counters.updates, 1);
  CHECK(is_refused([&] { step.finish(); }));
  {
    adafactor::Step given_up(state, call, backend);
    given_up.run(adafactor::kWholeCall);
    given_up.close();
  }
  CHECK(backend.is_idle());
  CHECK_EQ(state.counters.updates, 1);
}

// What a device says when it fails comes out once: nobody is thrown anything by a step that ends.
void a_device_that_fails_says_so_once() {
  const std::vector<adafactor::LeafSpec> leaves{{{20, 30}}};
  adafactor::State state(std::make_shared<const Plan>(leaves, std::vector<Config>(1)));
  digest::Arrays arrays(leaves);
  arrays.fill(1, {-2, 1, 0});
  const adafactor::LearningRate rate{0.1, false};
  QueuedBackend backend;
  backend.fails = true;
  std::string words;
  try {
    adafactor::step(state, {arrays.views(), arrays.views(), arrays.views(), &rate}, backend);
  } catch (const std::runtime_error& error) {
    words = error.what();
  }
  CHECK_EQ(words, std::string("a device that has failed"));
  CHECK_EQ(state.counters.updates, 0);
}

}  // namespace

int main() {
  work_that_is_done_later_gives_every_digest();
  parts_add_up_what_is_done_later();
  no_work_goes_on_after_its_step();
  a_step_is_closed_before_it_is_known_what_it_found();
  a_device_that_fails_says_so_once();
  return check::report();
}
