// What is decided after the phases, by the functions of step/decide.hpp: a team for each leaf, one block for the
// verdict.
#pragma once

#include <cstdint>

#include "adafactor/cpu/runs/loops.hpp"
#include "adafactor/step/decide.hpp"
#include "team.hpp"
#include "threads.hpp"
#include "view.hpp"

namespace adafactor::cuda {

// Calls decide(leaf, tiles) by one thread for each leaf of the run; a block has as many leaves as teams.
template <class Decide>
ADAFACTOR_KERNEL void for_leaf(const View& view, int block, const Decide& decide) {
  const std::int64_t index = block * std::int64_t{kTeams} + team_of_block();
  if (index >= view.leaf_count || !view.has(index)) return;
  Leaf& leaf = view.leaves[index];
  const TeamTiles tiles(leaf.shape, view.sums);
  if (lane() == 0) decide(leaf, tiles);
}

// After `moments`.
struct FindNorm {
  struct Shared {};
  ADAFACTOR_KERNEL void operator()(const View& view, int block, Shared&) const {
    for_leaf(view, block, [](Leaf& leaf, const TeamTiles& tiles) {
      find_gradient_squares(leaf, tiles);
      find_norm(leaf);
    });
  }
};

// After `factors`.
struct FindClamp {
  struct Shared {};
  ADAFACTOR_KERNEL void operator()(const View& view, int block, Shared&) const {
    for_leaf(view, block, [](Leaf& leaf, const TeamTiles& tiles) { find_clamp(leaf, tiles); });
  }
};

// After `rms`: whether it has to be done once more.
struct FindWide {
  struct Shared {};
  ADAFACTOR_KERNEL void operator()(const View& view, int block, Shared&) const {
    for_leaf(view, block, [](Leaf& leaf, const TeamTiles& tiles) {
      find_squares(leaf, tiles);
      goes_wide(leaf);
    });
  }
};

// After that.
struct FindStep {
  struct Shared {};
  ADAFACTOR_KERNEL void operator()(const View& view, int block, Shared&) const {
    for_leaf(view, block, [&](Leaf& leaf, const TeamTiles& tiles) {
      if (leaf.found.wide) find_squares(leaf, tiles);
      if (!leaf.is_part()) find_step(leaf, tiles, view.propagates);
    });
  }
};

// Before `moments`: the scale of the loss goes out of the gradients, in the operations in which a host takes it out.
struct TakeScale {
  struct Shared {};
  ADAFACTOR_KERNEL void operator()(const View& view, int block, Shared&) const {
    const std::int64_t i = std::int64_t{block} * kThreads + thread_of_block();
    if (i >= view.leaf_count) return;
    Rule& rule = view.leaves[i].rule;
    rule.multiplier = rule.multiplier * (1.0 / static_cast<double>(*view.loss_scale.scale));
  }
};

// After `moments` of all leaves: the twin of find_verdict().
struct FindVerdict {
  struct Shared {
    bool is_nonfinite[kThreads];
  };

  ADAFACTOR_KERNEL void operator()(const View& view, int, Shared& shared) const {
    bool nonfinite = false;
    for (std::int64_t i = thread_of_block(); i < view.leaf_count; i += kThreads) {
      const std::int32_t place = view.places_in_verdict[i];
      if (place < 0) continue;
      const Leaf& leaf = view.leaves[i];
      if (is_nonfinite(leaf)) nonfinite = true;
      view.leaf_squares[place] = Verdict::scaled(leaf.found.gradient_squares);
    }
    shared.is_nonfinite[thread_of_block()] = nonfinite;
    meet();
    Verdict verdict;
    for (const bool is : shared.is_nonfinite) verdict.finite = verdict.finite && !is;
    verdict.scaled_squares = sum_of(static_cast<const double*>(view.leaf_squares), view.verdict_count);
    verdict.is_void = view.loss_scale.found_inf && *view.loss_scale.found_inf != 0;
    const bool holds = verdict.is_void || (!view.propagates && !verdict.finite);
    const double factor = view.clips_all ? adafactor::detail::norm_factor(view.global_clipnorm, verdict.norm()) : 1;
    for (std::int64_t i = thread_of_block(); i < view.leaf_count; i += kThreads) {
      if (holds) view.leaves[i].found.held = true;
      if (view.clips_all) view.leaves[i].found.norm_factor = factor;
    }
    if (thread_of_block() == 0) *view.verdict = verdict;
  }
};

}  // namespace adafactor::cuda
