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
const std::vector<Phases> kInThree = {adafactor::kSums, adafactor::kSquares, adafactor::kRest};

// One call by hand: each of the runs, on the first leaves and then on the others.
adafactor::Outcome step_in_parts(adafactor::State& state, const adafactor::Call& call,
                                 const std::vector<Phases>& runs) {
  adafactor::Step step(state, call, adafactor::cpu_backend());
  const auto count = static_cast<std::int64_t>(state.plan().leaves().size());
  for (const Phases phases : runs) {
    for (const Indices leaves : {Indices{0, count / 2}, Indices{count / 2, count}}) step.run(phases, leaves);
  }
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
