// How a call is carried out: prepares the leaves, has a backend do the phases, and counts. It serves the headers, every
// instruction set, Python and every device.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <span>
#include <utility>

#include "adafactor/error.hpp"
#include "adafactor/host/floating_point.hpp"
#include "adafactor/state.hpp"
#include "adafactor/step/backend.hpp"
#include "adafactor/step/call.hpp"
#include "adafactor/step/course.hpp"
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
    made->on_device = stepper.take_device_scratch(backend.device_nbytes(plan));
    backend.prepare(*made);
    stepper.workspace = made;
  }
  return *stepper.workspace;
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
  // parameters, or a leaf that is updated has no output; and where a stepper gets no arrays of the state along with the
  // first call, or with one whose arrays have moved. A state that gets none is stepped in its own memory.
  Step(Stepper& stepper, Counters& counters, const Call& call, const Backend& backend)
      : Step(counters, call, backend, workspace_of(stepper, backend), nullptr, {}) {}
  Step(State& state, const Call& call, const Backend& backend)
      : Step(state.counters, call, backend, workspace_of(state, backend), &state, {}) {}
  Step(const Step&) = delete;
  Step& operator=(const Step&) = delete;
  // Nothing that was begun goes on after it.
  ~Step() {
    if (!is_under_way_) return;
    try {
      await();
    } catch (const std::exception&) {  // of a device that has failed, which has been told
    }
  }

  // Some phases of all leaves, or of some; before a leaf goes through a phase, all have gone through those before the
  // verdict where it comes after it, and where the call looks at all leaves first, all have gone through `rms` before
  // one goes through `apply`. Each leaf goes through each phase once. Throws Error otherwise, before anything is done,
  // and where parts have not added up what they need; and where a leaf has a gradient in some of its parts only: then
  // the step is over.
  void run(Phases phases) { run(phases, {0, static_cast<std::int64_t>(workspace_.leaves.size())}); }
  void run(Phases phases, Indices leaves) {
    const detail::DefaultFloatingPoint environment;
    require_open();
    const std::int64_t count = leaves.last - leaves.first;
    course_.admit(phases, count, looks_first_);
    require_sums(phases);
    take_back();
    // The verdict that the first leaves were told holds for the others.
    if (phases.first == Phase::verdict && course_.has_verdict()) phases.first = Phase::factors;
    course_.advance(phases, count);
    if (phases.contains(Phase::apply) && std::exchange(looks_first_, false)) {
      // What `rms` has found in any leaf stops all of them.
      if (phases.first < Phase::apply) start({phases.first, Phase::rms}, leaves);
      start({Phase::verdict, Phase::verdict}, leaves);
      phases.first = Phase::apply;
    }
    if (phases.first <= phases.last) start(phases, leaves);
  }

  // What the parts of a group have to add up after kSums, and after kSquares: numbers of this part, which the caller
  // replaces by their sums over the group. The same numbers in the same order in every part of a group, whatever was
  // found; each group has a buffer of its own. To be asked for group after group, from 0 on: throws Error otherwise.
  std::span<double> sums(int group) { return exchange(Round::sums, group); }
  std::span<double> squares(int group) { return exchange(Round::squares, group); }

  // Says that there are no more phases to come. A device then tells what it has found as soon as it can, and finish()
  // waits for no other work that it is given meanwhile. Throws Error before the last phase.
  void close() {
    const detail::DefaultFloatingPoint environment;
    require_open();
    detail::refuse_unless(course_.has_ended(Phase::apply), "all phases before the end of a step",
                          "some that were left out");
    is_over_ = is_closed_ = true;
    is_under_way_ = true;
    carry_what_has_no_tiles();
    backend_.collect(workspace_);
  }

  // What was found, once it can be read; counts the call unless it was skipped. Throws Error before the last phase, and
  // when it is asked again.
  Outcome finish() {
    const detail::DefaultFloatingPoint environment;
    if (!is_closed_) close();
    await();
    is_closed_ = false;
    Outcome outcome;
    outcome.skipped = workspace_.verdict.is_void || (!propagates() && !workspace_.verdict.finite);
    outcome.updated = rule_.updates() && !outcome.skipped;
    // Of a void call somebody else has been told what is wrong.
    outcome.nonfinite_leaf = workspace_.verdict.is_void ? -1 : first_nonfinite();
    // An accumulating call has the sum so far, and reports its part of the mean.
    outcome.global_grad_norm = (rule_.updates() ? 1 : rule_.mean()) * workspace_.verdict.norm();
    outcome.threads = workspace_.threads;
    counters_.skips = outcome.skipped ? counters_.skips + 1 : 0;
    if (!outcome.skipped) count();
    return outcome;
  }

 private:
  // The environment lasts as long as this does. `state`: whose memory has the arrays that the call does not bring; null
  // where it has to.
  Step(Counters& counters, const Call& call, const Backend& backend, Workspace& workspace, State* state,
       const detail::DefaultFloatingPoint&)
      : counters_(counters),
        backend_(backend),
        plan_(workspace.plan),
        workspace_(workspace),
        rule_(plan_, counters, call),
        exchange_(plan_, workspace.leaves, workspace.shared, workspace.exchange),
        course_(static_cast<std::int64_t>(workspace.leaves.size())) {
    if (call.output == Output::differences) require_differences(call);
    if (!state) require_state(call);
    workspace_.verdict = {};
    workspace_.threads = 0;
    const StateSource source = call.state || !state ? StateSource::call : StateSource::memory;
    const bool is_elsewhere = std::exchange(workspace_.state_source, source) != source;
    Axis* axes = workspace_.axes.data();
    for (std::size_t i = 0; i < workspace_.leaves.size(); ++i) {
      Leaf& leaf = workspace_.leaves[i];
      if (call.moved) axes = place_arrays(i, call, axes);
      if (call.moved || is_elsewhere) place_state(i, call, state);
      rule_.set(leaf.rule, plan_.leaves()[i], i);
      leaf.found = {};  // nothing, before the first phase
    }
    looks_first_ = looks_first();
  }

  // Where the arrays of a leaf lie. Returns the next one's axes.
  Axis* place_arrays(std::size_t i, const Call& call, Axis* axes) const {
    Leaf& leaf = workspace_.leaves[i];
    return detail::place_arrays(leaf.at, plan_.leaves()[i], call.parameters[i], call.gradients[i], call.outputs[i],
                                leaf.rule.rounds_by_noise, workspace_.moments(), axes);
  }

  // Where those of its state lie.
  void place_state(std::size_t i, const Call& call, State* state) const {
    LeafArrays& at = workspace_.leaves[i].at;
    if (call.state) {
      at.before = call.state[i].before;
      at.after = call.state[i].after;
    } else if (state) {
      at.before = at.after = detail::state_arrays(plan_.leaves()[i], state->memory());
    }
  }

  void start(Phases phases, Indices leaves) {
    is_under_way_ = true;
    backend_.run(workspace_, phases, leaves);
  }

  // Afterwards all that was found can be read, and nothing goes on.
  void await() {
    const detail::DefaultFloatingPoint environment;
    backend_.finish(workspace_);
    is_under_way_ = false;
  }

  void require_open() const {
    detail::refuse_unless(!is_over_, "a step that can go on", "one that has finished, or was refused");
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

  // A call on somebody's arrays says where they lie, unless they lie where they lay.
  void require_state(const Call& call) const {
    if (call.state || workspace_.leaves.empty()) return;
    if (!call.moved && workspace_.state_source != StateSource::none) return;
    throw Error({.role = "state", .expected = "arrays along with each call whose arrays have moved", .found = "none"});
  }

  // A difference is made before anything reads the new parameter, and is rounded to nearest. A leaf that stays needs no
  // output; one without a gradient whose window of accumulation is completed does.
  ADAFACTOR_RARE void require_differences(const Call& call) const {
    for (std::size_t i = 0; i < workspace_.leaves.size(); ++i) {
      if (call.outputs[i].data || workspace_.leaves[i].shape.size() == 0) continue;
      if (rule_.action_of(i, call.gradients[i].data != nullptr) != Action::update) continue;
      throw Error({.leaf = static_cast<std::int64_t>(i),
                   .expected = "an output for the difference of a leaf that is updated",
                   .found = "none"});
    }
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
    detail::refuse_unless(asked_ >= rounds * plan_.groups(),
                          "the sums and the squares of each group, added up between the phases",
                          "a leaf that is a part of a larger one, stepped without them");
  }

  std::span<double> exchange(Round round, int group) {
    const detail::DefaultFloatingPoint environment;
    const int next = static_cast<int>(round) * plan_.groups() + group;
    require_open();
    const bool is_known = course_.has_ended(round == Round::sums ? Phase::means : Phase::rms);
    detail::refuse_unless(is_known && group >= 0 && group < plan_.groups() && next == asked_,
                          "the groups in their order, once each, the sums after `means` and the squares after `rms`",
                          "another group");
    if (group == 0) await();
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
        // A part without elements does what the others do, whether or not it has a gradient.
        const bool is_given = leaf.at.shared[leaf.shared().totals() + 1] > 0;
        if (leaf.shape.size() == 0) rule_.choose_action(leaf.rule, plan_.leaves()[i], i, is_given);
        leaf.found.gradient_squares = leaf.at.shared[leaf.shared().totals()];
        find_norm(leaf);
      } else {
        leaf.found.update_squares = leaf.at.shared[leaf.shared().squares()];
        leaf.found.parameter_squares = leaf.at.shared[leaf.shared().squares() + 1];
        find_step(leaf, LeafTiles(leaf.shape, workspace_.sums.data() + leaf.shape.first_tile), propagates());
      }
    }
  }

  void require_all_or_none(const Leaf& leaf, std::int64_t index) {
    const double* totals = leaf.at.shared + leaf.shared().totals();
    const auto given = static_cast<std::int64_t>(totals[1]);
    const auto parts = static_cast<std::int64_t>(totals[2]);
    if (given == 0 || given == parts || leaf.shape.whole_size == 0) return;
    is_over_ = true;
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

  // A leaf without elements is in no phase; its moments may have some.
  void carry_what_has_no_tiles() const {
    for (std::size_t i = 0; i < workspace_.leaves.size(); ++i) {
      const Leaf& leaf = workspace_.leaves[i];
      if (leaf.shape.tile_count > 0 || !leaf.shape.factored) continue;
      const auto carry = [&](StateKind kind, const void* from, void* to) {
        const auto nbytes = plan_.leaves()[i].state[static_cast<std::size_t>(kind)].nbytes();
        if (nbytes > 0 && from != to) backend_.copy(to, from, nbytes);
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
  detail::Course course_;
  int asked_ = 0;              // buffers
  bool looks_first_ = false;   // whether all leaves are still to be looked at, before one is written
  bool is_under_way_ = false;  // whether the backend may not have done all that it was given
  bool is_over_ = false;       // it is closed, or cannot go on
  bool is_closed_ = false;     // it is to finish
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
