// How a call is carried out: prepares the leaves, has a backend do the phases, and counts. It serves the headers, every
// instruction set, Python and every device.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <utility>

#include "adafactor/host/floating_point.hpp"
#include "adafactor/state.hpp"
#include "adafactor/step/backend.hpp"
#include "adafactor/step/call.hpp"
#include "adafactor/step/rule.hpp"
#include "adafactor/step/workspace.hpp"

#include "adafactor/compiler/exact_begin.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI {

// The scratch of the state's steps; made at the first.
inline Workspace& workspace_of(State& state) {
  if (!state.scratch) {
    auto made = std::make_unique<Workspace>(state.plan(), state.memory());
    for (std::size_t i = 0; i < made->leaves.size(); ++i) {
      const LeafPlan& leaf = state.plan().leaves()[i];
      made->leaves[i].rule = detail::rule_of(leaf, state.plan().knobs_of(leaf));
    }
    state.scratch = std::move(made);
  }
  return static_cast<Workspace&>(*state.scratch);
}

namespace detail {

// One call on a state: prepared before the first phase, and counted after the last.
class Step {
 public:
  Step(State& state, const Call& call)
      : state_(state), plan_(state.plan()), workspace_(workspace_of(state)), rule_(plan_, state.counters, call) {
    workspace_.verdict = {};
    workspace_.threads = 0;
    Axis* axes = workspace_.axes.data();
    for (std::size_t i = 0; i < workspace_.leaves.size(); ++i) {
      const LeafPlan& plan = plan_.leaves()[i];
      Leaf& leaf = workspace_.leaves[i];
      if (call.moved) {
        axes = place_arrays(leaf.at, plan, call.parameters[i], call.gradients[i], call.outputs[i],
                            leaf.rule.rounds_by_noise, workspace_.moments(), axes);
      }
      rule_.set(leaf.rule, plan, i);
      leaf.found = {};  // nothing, before the first phase
    }
  }

  // Whether every leaf is measured before anything is written: at first, and after an update that had to leave a leaf
  // alone. That reads the arrays once more, but NaN and Inf in a parameter are nearly always there from the beginning.
  bool looks_first() const {
    if (plan_.call().on_nonfinite == OnNonfinite::propagate) return false;
    const Counters& counters = state_.counters;
    const auto stopped = [](const LeafCount& count) { return count.stopped; };
    if (counters.updates > 0 && std::none_of(counters.leaves.begin(), counters.leaves.end(), stopped)) return false;
    return std::any_of(workspace_.leaves.begin(), workspace_.leaves.end(),
                       [](const Leaf& leaf) { return leaf.measures(); });
  }

  // What was found, once it can be read; counts the call unless it was skipped.
  Outcome finish() {
    Outcome outcome;
    outcome.skipped = plan_.call().on_nonfinite != OnNonfinite::propagate && !workspace_.verdict.finite;
    outcome.updated = rule_.updates() && !outcome.skipped;
    outcome.nonfinite_leaf = first_nonfinite();
    // An accumulating call has the sum so far, and reports its part of the mean.
    outcome.global_grad_norm = (rule_.updates() ? 1 : rule_.mean()) * workspace_.verdict.norm();
    outcome.threads = workspace_.threads;
    Counters& counters = state_.counters;
    counters.skips = outcome.skipped ? counters.skips + 1 : 0;
    if (!outcome.skipped) count();
    return outcome;
  }

 private:
  void count() {
    state_.counters.calls += rule_.counted();
    state_.counters.updates += rule_.updates();
    for (std::size_t i = 0; i < workspace_.leaves.size(); ++i) {
      const Leaf& leaf = workspace_.leaves[i];
      LeafCount& count = state_.counters.leaves[i];
      if (!rule_.updates()) {
        count.accumulated = count.accumulated || leaf.adds();
        continue;
      }
      if (leaf.updates()) ++count.updates;
      if (leaf.found.stopped) forget(leaf);
      if (leaf.in_verdict()) count.stopped = leaf.found.stopped;
      count.accumulated = false;
    }
  }

  std::int64_t first_nonfinite() const {
    for (std::size_t i = 0; i < workspace_.leaves.size(); ++i) {
      const Leaf& leaf = workspace_.leaves[i];
      if (leaf.in_verdict() && is_nonfinite(leaf)) return static_cast<std::int64_t>(i);
    }
    return -1;
  }

  // Forgets what the calls of the window have gathered of a leaf that its update left alone, and an average that has
  // moved on these calls, and may have taken NaN: it begins again when the leaf is updated.
  void forget(const Leaf& leaf) const {
    const std::int64_t size = leaf.shape.size() * item_size(leaf.shape.arithmetic);
    for (void* array : {leaf.at.after.accumulator, rule_.averages_early() ? leaf.at.after.average : nullptr}) {
      if (array) std::memset(array, 0, static_cast<std::size_t>(size));
    }
  }

  State& state_;
  const Plan& plan_;
  Workspace& workspace_;
  CallRule rule_;
};

}  // namespace detail

}}  // namespace adafactor::ADAFACTOR_ABI

#if ADAFACTOR_DEFINES_STEP

namespace adafactor { inline namespace ADAFACTOR_ABI {

ADAFACTOR_FUNCTION Outcome step(State& state, const Call& call, const Backend& backend) {
  const detail::DefaultFloatingPoint environment;
  Workspace& workspace = workspace_of(state);
  const Indices all{0, static_cast<std::int64_t>(workspace.leaves.size())};
  detail::Step current(state, call);
  if (current.looks_first()) {
    backend.run(workspace, kLook, all);
    forget_all_but_stops(workspace.leaves);
  }
  backend.run(workspace, kWholeCall, all);
  backend.finish(workspace);
  return current.finish();
}

}}  // namespace adafactor::ADAFACTOR_ABI

#endif  // ADAFACTOR_DEFINES_STEP

#include "adafactor/compiler/exact_end.hpp"
