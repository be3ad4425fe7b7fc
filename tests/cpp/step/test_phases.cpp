// A call whose phases are run one by one, and whose leaves are run in parts, gives the bits of a call as a whole.
#include <cstdint>
#include <vector>

#include "adafactor/step/step.hpp"
#include "support/check.hpp"
#include "support/digest.hpp"

namespace {

using adafactor::Indices;
using adafactor::Phase;
using adafactor::Phases;

const std::vector<Phases> kOneByOne = {{Phase::moments, Phase::means},
                                       {Phase::verdict, Phase::verdict},
                                       {Phase::factors, Phase::factors},
                                       {Phase::rms, Phase::rms},
                                       {Phase::apply, Phase::apply}};
// As shards need them: up to the sums of a group, to those of the update, and the rest.
const std::vector<Phases> kInThree = {
    {Phase::moments, Phase::means}, {Phase::verdict, Phase::rms}, {Phase::apply, Phase::apply}};

// One call by hand: each of the runs, on the first leaves and then on the others.
adafactor::Outcome step_in_parts(adafactor::State& state, const adafactor::Call& call,
                                 const std::vector<Phases>& runs) {
  const adafactor::detail::DefaultFloatingPoint environment;
  const adafactor::Backend& backend = adafactor::cpu_backend();
  adafactor::Workspace& workspace = adafactor::workspace_of(state);
  adafactor::detail::Step step(state, call);
  const auto count = static_cast<std::int64_t>(workspace.leaves.size());
  const auto run_all = [&](Phases phases) {
    for (const Indices leaves : {Indices{0, count / 2}, Indices{count / 2, count}}) {
      backend.run(workspace, phases, leaves);
    }
  };
  if (step.looks_first()) {
    for (const Phases phases : runs) {
      if (phases.last != Phase::apply) run_all(phases);
    }
    adafactor::forget_all_but_stops(workspace.leaves);
  }
  for (const Phases phases : runs) run_all(phases);
  backend.finish(workspace);
  return step.finish();
}

void parts_give_the_bits_of_the_whole() {
  for (const digest::Case& what : digest::read_cases(digest::data_file())) {
    for (const auto* runs : {&kOneByOne, &kInThree}) {
      for (const bool in_place : {true, false}) {
        const auto step = [&](adafactor::State& state, const adafactor::Call& call) {
          return step_in_parts(state, call, *runs);
        };
        CHECK_EQ(digest::run_by(what, 3, in_place, step).digest, what.expected);
      }
    }
  }
}

}  // namespace

int main() {
  parts_give_the_bits_of_the_whole();
  return check::report();
}
