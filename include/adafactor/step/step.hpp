// How a call is carried out: prepares the leaves, has a backend do the phases, and counts. It serves the headers, every
// instruction set, Python and every device.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "adafactor/error.hpp"
#include "adafactor/host/floating_point.hpp"
#include "adafactor/state.hpp"
#include "adafactor/step/backend.hpp"
#include "adafactor/step/call.hpp"
#include "adafactor/step/exchange.hpp"
#include "adafactor/step/rule.hpp"
#include "adafactor/step/workspace.hpp"

#include "adafactor/compiler/exact_begin.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI {

// The workspace of a stepper's calls; made at the first, for this backend and its like.
inline Workspace& workspace_of(Stepper& stepper, const Backend& backend) {
  if (!stepper.workspace) {
    const Plan& plan = stepper.plan();
    std::byte* memory = stepper.take_scratch(scratch_nbytes(plan, backend));
    auto* made = detail::make_in<Workspace>(memory, plan, backend.scratch_nbytes(plan));
    for (std::size_t i = 0; i < made->leaves.size(); ++i) {
      const LeafPlan& leaf = plan.leaves()[i];
      made->leaves[i].rule = detail::rule_of(leaf, plan.knobs_of(leaf));
    }
    backend.prepare(*made);
    stepper.workspace = made;
  }
  return *stepper.workspace;
}

// The same, with the arrays of the state where they lie.
inline Workspace& workspace_of(State& state, const Backend& backend) {
  const bool is_new = !state.workspace;
  Workspace& workspace = workspace_of(static_cast<Stepper&>(state), backend);
  for (std::size_t i = 0; is_new && i < workspace.leaves.size(); ++i) {
    LeafArrays& at = workspace.leaves[i].at;
    at.before = at.after = detail::state_arrays(state.plan().leaves()[i], state.memory());
  }
  return workspace;
}

// One call, by whoever has acquired the state: prepared before the first phase, counted after the last. Where leaves
// are parts of larger ones, it stops between the phases for what the parts have to add up, group after group:
//
// ```text
// Step step(state, call, backend);
// step.run(kSums);
// for (int group = 0; group < plan.groups(); ++group) add_up(step.sums(group), group);
// step.run(kSquares);
// for (int group = 0; group < plan.groups(); ++group) add_up(step.squares(group), group);
// step.run(kRest);
// const Outcome outcome = step.finish();
// ```
//
// Nothing of the caller's and nothing of the state is written before the rest, and who stops there has done nothing.
class Step {
 public:
  // What the call points to outlives the step. Throws Error where the call wants differences and a knob needs the new
  // parameters.
  Step(Stepper& stepper, Counters& counters, const Call& call, const Backend& backend)
      : Step(counters, call, backend, workspace_of(stepper, backend), {}) {}
  Step(State& state, const Call& call, const Backend& backend)
      : Step(state.counters, call, backend, workspace_of(state, backend), {}) {}

  // Some phases of all leaves, or of some; before a leaf goes through a phase, all have gone through those before the
  // verdict where it comes after it. Throws Error where parts have not added up what they need, or where a leaf has a
  // gradient in some of its parts only.
  void run(Phases phases) { run(phases, {0, static_cast<std::int64_t>(workspace_.leaves.size())}); }
  void run(Phases phases, Indices leaves) {
    const detail::DefaultFloatingPoint environment;
    refuse_unless(phases.first <= next_, "the phases in their order", "some that were left out");
    require_sums(phases);
    take_back();
    next_ = (std::max)(next_, after(phases.last));
    if (looks_first_ && phases.contains(Phase::apply)) {
      // What `rms` has found in any leaf stops all of them.
      if (phases.first < Phase::apply) backend_.run(workspace_, {phases.first, Phase::rms}, leaves);
      backend_.run(workspace_, {Phase::verdict, Phase::verdict}, leaves);
      phases.first = Phase::apply;
    }
    backend_.run(workspace_, phases, leaves);
  }

  // What the parts of a group have to add up after kSums, and after kSquares: numbers of this part, which the caller
  // replaces by their sums over the group. The same numbers in the same order in every part of a group, whatever was
  // found; each group has a buffer of its own. To be asked for group after group, from 0 on: throws Error otherwise.
  std::span<double> sums(int group) { return exchange(Round::sums, group); }
  std::span<double> squares(int group) { return exchange(Round::squares, group); }

  // What was found, once it can be read; counts the call unless it was skipped. Throws Error before the last phase.
  Outcome finish() {
    const detail::DefaultFloatingPoint environment;
    refuse_unless(next_ > Phase::apply, "all phases before the end of a step", "some that were left out");
    backend_.finish(workspace_);
    Outcome outcome;
    outcome.skipped = !propagates() && !workspace_.verdict.finite;
    outcome.updated = rule_.updates() && !outcome.skipped;
    outcome.nonfinite_leaf = first_nonfinite();
    // An accumulating call has the sum so far, and reports its part of the mean.
    outcome.global_grad_norm = (rule_.updates() ? 1 : rule_.mean()) * workspace_.verdict.norm();
    outcome.threads = workspace_.threads;
    counters_.skips = outcome.skipped ? counters_.skips + 1 : 0;
    carry_what_has_no_tiles();
    if (!outcome.skipped) count();
    return outcome;
  }

 private:
  // The environment lasts as long as this does.
  Step(Counters& counters, const Call& call, const Backend& backend, Workspace& workspace,
       const detail::DefaultFloatingPoint&)
      : counters_(counters),
        backend_(backend),
        plan_(workspace.plan),
        workspace_(workspace),
        rule_(plan_, counters, call),
        exchange_(plan_, workspace.leaves, workspace.shared, workspace.exchange) {
    if (call.output == Output::differences) require_differences();
    workspace_.verdict = {};
    workspace_.threads = 0;
    Axis* axes = workspace_.axes.data();
    for (std::size_t i = 0; i < workspace_.leaves.size(); ++i) {
      const LeafPlan& leaf_plan = plan_.leaves()[i];
      Leaf& leaf = workspace_.leaves[i];
      if (call.moved) {
        axes = detail::place_arrays(leaf.at, leaf_plan, call.parameters[i], call.gradients[i], call.outputs[i],
                                    leaf.rule.rounds_by_noise, workspace_.moments(), axes);
        if (call.state) detail::place_state(leaf.at, call.state[i]);
      }
      rule_.set(leaf.rule, leaf_plan, i);
      leaf.found = {};  // nothing, before the first phase
    }
    looks_first_ = looks_first();
  }

  static Phase after(Phase phase) { return static_cast<Phase>(static_cast<int>(phase) + 1); }

  static void refuse_unless(bool holds, const char* expected, const char* found) {
    if (!holds) throw Error({.expected = expected, .found = found});
  }

  bool propagates() const { return plan_.call().on_nonfinite == OnNonfinite::propagate; }

  // Whether every leaf is measured before anything is written: at first, and after an update that had to leave a leaf
  // alone. That reads the arrays once more, but NaN and Inf in a parameter are nearly always there from the beginning.
  bool looks_first() const {
    if (propagates()) return false;
    const auto stopped = [](const LeafCount& count) { return count.stopped; };
    if (counters_.updates > 0 && std::none_of(counters_.leaves.begin(), counters_.leaves.end(), stopped)) return false;
    return std::any_of(workspace_.leaves.begin(), workspace_.leaves.end(),
                       [](const Leaf& leaf) { return leaf.measures(); });
  }

  // A difference is made before anything reads the new parameter, and is rounded to nearest.
  void require_differences() const {
    for (const Config& config : plan_.knobs()) {
      if (config.use_ema) {
        throw Error({.knob = "use_ema", .expected = "False for a call that writes differences", .found = "True"});
      }
      if (config.rounding == Rounding::stochastic) {
        throw Error({.knob = "rounding",
                     .expected = "\"nearest\" for a call that writes differences",
                     .found = "\"stochastic\""});
      }
    }
  }

  // Whether all buffers that some phases need were asked for.
  void require_sums(Phases phases) const {
    const int rounds = phases.contains(Phase::apply) ? 2 : phases.last > Phase::means ? 1 : 0;
    refuse_unless(asked_ >= rounds * plan_.groups(),
                  "the sums and the squares of each group, added up between the phases",
                  "a leaf that is a part of a larger one, stepped without them");
  }

  std::span<double> exchange(Round round, int group) {
    const detail::DefaultFloatingPoint environment;
    const int next = static_cast<int>(round) * plan_.groups() + group;
    const bool is_known = next_ > (round == Round::sums ? Phase::means : Phase::rms);
    refuse_unless(is_known && group >= 0 && group < plan_.groups() && next == asked_,
                  "the groups in their order, once each, the sums after `means` and the squares after `rms`",
                  "another group");
    take_back();
    ++asked_;
    return exchange_.fill(round, group);
  }

  // Takes back what a group has added up; after the last one the leaves know what all parts have together.
  void take_back() {
    if (!exchange_.settle()) return;
    for (std::size_t i = 0; i < workspace_.leaves.size(); ++i) {
      Leaf& leaf = workspace_.leaves[i];
      if (!leaf.is_part()) continue;
      if (asked_ == plan_.groups()) {
        require_all_or_none(leaf, static_cast<std::int64_t>(i));
        leaf.found.gradient_squares = leaf.at.shared[leaf.shared().totals()];
        find_norm(leaf);
      } else {
        leaf.found.update_squares = leaf.at.shared[leaf.shared().squares()];
        leaf.found.parameter_squares = leaf.at.shared[leaf.shared().squares() + 1];
        find_step(leaf, workspace_.sums.data() + leaf.shape.first_tile, propagates());
      }
    }
  }

  static void require_all_or_none(const Leaf& leaf, std::int64_t index) {
    const double* totals = leaf.at.shared + leaf.shared().totals();
    const auto given = static_cast<std::int64_t>(totals[1]);
    const auto parts = static_cast<std::int64_t>(totals[2]);
    if (given == 0 || given == parts) return;
    throw Error({.role = "grads",
                 .leaf = index,
                 .expected = "a gradient in all parts or in none",
                 .found = "one in " + counted(given, " of ") + counted(parts, " parts")});
  }

  void count() {
    counters_.calls += rule_.counted();
    counters_.updates += rule_.updates();
    for (std::size_t i = 0; i < workspace_.leaves.size(); ++i) {
      const Leaf& leaf = workspace_.leaves[i];
      LeafCount& count = counters_.leaves[i];
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

  // A leaf without elements is in no phase; its moments may have some.
  void carry_what_has_no_tiles() const {
    for (std::size_t i = 0; i < workspace_.leaves.size(); ++i) {
      const Leaf& leaf = workspace_.leaves[i];
      if (leaf.shape.tile_count > 0 || !leaf.shape.factored || leaf.at.before.row == leaf.at.after.row) continue;
      const auto carry = [&](StateKind kind, const void* from, void* to) {
        const auto nbytes = plan_.leaves()[i].state[static_cast<std::size_t>(kind)].nbytes();
        if (nbytes > 0) std::memcpy(to, from, static_cast<std::size_t>(nbytes));
      };
      carry(StateKind::row, leaf.at.before.row, leaf.at.after.row);
      carry(StateKind::col, leaf.at.before.col, leaf.at.after.col);
    }
  }

  Counters& counters_;
  const Backend& backend_;
  const Plan& plan_;
  Workspace& workspace_;
  detail::CallRule rule_;
  detail::Exchange exchange_;
  Phase next_ = Phase::moments;
  int asked_ = 0;  // buffers
  bool looks_first_ = false;
};

}}  // namespace adafactor::ADAFACTOR_ABI

#if ADAFACTOR_DEFINES_STEP

namespace adafactor { inline namespace ADAFACTOR_ABI {

ADAFACTOR_FUNCTION std::int64_t scratch_nbytes(const Plan& plan, const Backend& backend) {
  return detail::nbytes_of<Workspace>(plan, backend.scratch_nbytes(plan));
}

ADAFACTOR_FUNCTION Outcome step(State& state, const Call& call, const Backend& backend) {
  Step current(state, call, backend);
  current.run(kWholeCall);
  return current.finish();
}

ADAFACTOR_FUNCTION Outcome step(Stepper& stepper, Counters& counters, const Call& call, const Backend& backend) {
  Step current(stepper, counters, call, backend);
  current.run(kWholeCall);
  return current.finish();
}

}}  // namespace adafactor::ADAFACTOR_ABI

#endif  // ADAFACTOR_DEFINES_STEP

#include "adafactor/compiler/exact_end.hpp"
