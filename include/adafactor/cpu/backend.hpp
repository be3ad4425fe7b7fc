// The phases of a step on this machine's cores: each with the kernels of one instruction set, and the decision after
// it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "adafactor/cpu/kernels.hpp"
#include "adafactor/cpu/runner.hpp"
#include "adafactor/cpu/scratch.hpp"
#include "adafactor/cpu/tasks.hpp"
#include "adafactor/cpu/threads/threads.hpp"
#include "adafactor/host/streams.hpp"
#include "adafactor/plan.hpp"
#include "adafactor/step/backend.hpp"
#include "adafactor/step/decide.hpp"
#include "adafactor/step/workspace.hpp"

#include "adafactor/compiler/exact_begin.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI {

namespace detail {

// What the tasks of one run do, on the tiles of some leaves.
class CpuWork {
 public:
  CpuWork(const Plan& plan, Workspace& workspace, const KernelTable& kernels, Indices leaves)
      : plan_(plan),
        workspace_(workspace),
        kernels_(kernels),
        leaves_(leaves),
        propagates_(plan.call().on_nonfinite == OnNonfinite::propagate) {}

  // One phase on some tiles.
  void work(Phase phase, Indices tiles) {
    switch (phase) {
      case Phase::moments:
        return for_tiles(tiles, [&](const Leaf& leaf, const Tile& tile, TileSums& sums) {
          if (leaf.in_verdict()) kernels_of(leaf).moments(leaf, tile, sums);
        });
      case Phase::means:
        return for_tiles(tiles, [&](const Leaf& leaf, const Tile& tile, TileSums&) {
          if (leaf.adds_up()) kernels_of(leaf).means(leaf, tile, sums_of(leaf));
        });
      case Phase::factors:
        return for_tiles(tiles, [&](const Leaf& leaf, const Tile& tile, TileSums& sums) {
          if (!leaf.shape.factored || !leaf.updates() || made_factors_early(leaf)) return;
          kernels_of(leaf).factors(leaf, tile, sums_of(leaf), sums);
        });
      case Phase::rms:
        return for_tiles(tiles, [&](const Leaf& leaf, const Tile& tile, TileSums& sums) {
          if (!leaf.measures() || leaf.measures_early() || made_factors_early(leaf)) return;
          kernels_of(leaf).rms(leaf, tile, sums);
        });
      case Phase::apply:
        return for_tiles(tiles,
                         [&](const Leaf& leaf, const Tile& tile, TileSums&) { kernels_of(leaf).apply(leaf, tile); });
      case Phase::verdict:
        return;
    }
  }

  // The decision that follows a phase of some leaves.
  void decide(Phase phase, Indices leaves) {
    switch (phase) {
      case Phase::moments:
        return for_leaves(leaves, [&](Leaf& leaf, const LeafTiles& tiles) {
          find_gradient_squares(leaf, tiles);
          find_norm(leaf);
        });
      case Phase::verdict:
        return find_verdict(workspace_.leaves, plan_.call().global_clipnorm, propagates_, workspace_.verdict);
      case Phase::factors:
        return for_leaves(leaves, [&](Leaf& leaf, const LeafTiles& tiles) { find_clamp(leaf, tiles); });
      case Phase::rms:
        return for_leaves(leaves, [&](Leaf& leaf, const LeafTiles& tiles) {
          find_squares(leaf, tiles);
          if (goes_wide(leaf)) measure_anew(leaf);
          // That of a part waits for what the others have found.
          if (!leaf.is_part()) find_step(leaf, tiles, propagates_);
        });
      case Phase::means:
      case Phase::apply:
        return;
    }
  }

 private:
  // The leaves of this run among some.
  template <class Body>
  void for_leaves(Indices leaves, const Body& body) {
    const std::int64_t last = (std::min)(leaves.last, leaves_.last);
    for (std::int64_t i = (std::max)(leaves.first, leaves_.first); i < last; ++i) {
      Leaf& leaf = leaf_at(i);
      body(leaf, LeafTiles(leaf.shape, sums_of(leaf)));
    }
  }

  template <class Body>
  void for_tiles(Indices tiles, const Body& body) {
    for (std::int64_t t = tiles.first; t < tiles.last; ++t) {
      const auto index = static_cast<std::size_t>(t);
      const Tile& tile = plan_.tiles()[index];
      if (tile.leaf < leaves_.first || tile.leaf >= leaves_.last) continue;
      body(leaf_at(tile.leaf), tile, workspace_.sums[index]);
    }
  }

  // Loops that each file compiles again do not (lanes/stored.hpp).
  static bool made_factors_early(const Leaf& leaf) { return ADAFACTOR_COMPILED_ONCE && leaf.made_factors_early(); }

  void measure_anew(Leaf& leaf) {
    for_tiles({leaf.shape.first_tile, leaf.shape.first_tile + leaf.shape.tile_count},
              [&](const Leaf&, const Tile& tile, TileSums& sums) { kernels_of(leaf).rms(leaf, tile, sums); });
    find_squares(leaf, LeafTiles(leaf.shape, sums_of(leaf)));
  }

  Leaf& leaf_at(std::int64_t index) { return workspace_.leaves[static_cast<std::size_t>(index)]; }
  const Kernels& kernels_of(const Leaf& leaf) const { return kernels_.of(leaf.shape.arithmetic); }
  // The sums of all tiles of the leaf.
  const TileSums* sums_of(const Leaf& leaf) const { return workspace_.sums.data() + leaf.shape.first_tile; }

  const Plan& plan_;
  Workspace& workspace_;
  const KernelTable& kernels_;
  Indices leaves_;
  bool propagates_;
};

}  // namespace detail

// This machine's cores, with the kernels of one instruction set.
class CpuBackend final : public Backend {
 public:
  explicit CpuBackend(const KernelTable& kernels) : kernels_(kernels), asks_for_pages_(detail::asks_for_pages()) {}

  std::int64_t scratch_nbytes(const Plan& plan) const override { return detail::nbytes_of<CpuScratch>(plan); }

  void prepare(Workspace& workspace) const override {
    auto* scratch = detail::make_in<CpuScratch>(workspace.of_backend(), workspace.plan);
    scratch->place_partials(workspace.plan, workspace.leaves);
    // Unfactored leaves have roots and quotients to make, which take as long as memory.
    for (Leaf& leaf : workspace.leaves) leaf.at.asks_for_pages = leaf.shape.factored && asks_for_pages_;
  }

  void run(Workspace& workspace, Phases phases, Indices leaves) const override {
    auto& scratch = reinterpret_cast<CpuScratch&>(*workspace.of_backend());
    detail::CpuWork work(workspace.plan, workspace, kernels_, leaves);
    TaskRunner runner(scratch.order, scratch.progress, phases, work);
    workspace.threads = (std::max)(workspace.threads, runner(team_for(scratch.order)));
  }

  void copy(void* to, const void* from, std::int64_t nbytes) const override {
    std::memcpy(to, from, static_cast<std::size_t>(nbytes));
  }

  // All is found when a run returns.
  void finish(Workspace&) const override {}

 private:
  // So much work, in elements, is worth another thread: below it the threads' meeting costs more than it saves.
  static constexpr std::int64_t kWorkOfThread = 32768;

  // One number of threads for all runs of a state: where it changes from run to run, the threads' library ends some and
  // starts others.
  static int team_for(const TaskOrder& order) {
    const std::int64_t useful = (std::min)(order.elements() / kWorkOfThread, order.tile_tasks());
    return useful > 1 ? static_cast<int>(std::min<std::int64_t>(useful, get_num_threads())) : 1;
  }

  const KernelTable& kernels_;
  const bool asks_for_pages_;
};

}}  // namespace adafactor::ADAFACTOR_ABI

#include "adafactor/compiler/exact_end.hpp"
