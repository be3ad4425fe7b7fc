// The phases of a step on this machine's cores: which thread does which of its tasks, and what waits for what.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "adafactor/cpu/kernels.hpp"
#include "adafactor/cpu/scratch.hpp"
#include "adafactor/cpu/tasks.hpp"
#include "adafactor/cpu/threads/threads.hpp"
#include "adafactor/plan.hpp"
#include "adafactor/step/backend.hpp"
#include "adafactor/step/decide.hpp"
#include "adafactor/step/workspace.hpp"

#include "adafactor/compiler/exact_begin.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI {

// Hands the tasks of a step to threads, with the kernels of one instruction set.
class CpuBackend final : public Backend {
 public:
  CpuBackend(const Plan& plan, Workspace& workspace, const KernelTable& kernels, int threads)
      : plan_(plan),
        order_(order_of(plan)),
        workspace_(workspace),
        scratch_(scratch_of(plan, workspace)),
        kernels_(kernels),
        team_(team_for(order_, threads)) {}

  // What it allocates at the first step of a state.
  static std::int64_t scratch_nbytes(const Plan& plan) { return CpuScratch::nbytes(order_of(plan)); }

  void update() override { go_through(); }

  void measure() override {
    writes_ = false;
    go_through();
    writes_ = true;
  }

  void accumulate() override {
    const Wave& all = order_.everything();
    for_tasks(all, [&](Indices tiles) { work(Phase::moments, tiles); });
    end(Phase::moments, all.leaves);
    find_verdict();
    if (!goes_on(plan_, workspace_)) return;
    for_tasks(all, [&](Indices tiles) {
      for_tiles(tiles, [&](const Leaf& leaf, const Tile& tile, TileSums&) { kernels_of(leaf).accumulate(leaf, tile); });
    });
  }

  void keep() override {
    for_tasks(order_.everything(), [&](Indices tiles) { work(Phase::apply, tiles); });
  }

 private:
  static const TaskOrder& order_of(const Plan& plan) {
    return static_cast<const TaskOrder&>(
        plan.kept([&] { return std::make_unique<const TaskOrder>(plan.leaves(), plan.tiles(), plan.looks_first()); }));
  }

  static CpuScratch& scratch_of(const Plan& plan, Workspace& workspace) {
    if (!workspace.of_backend) {
      workspace.of_backend = std::make_unique<CpuScratch>(order_of(plan), plan.leaves(), workspace.leaves);
    }
    return static_cast<CpuScratch&>(*workspace.of_backend);
  }

  // Each thread goes through the order and does its own tasks; after them those that nobody has taken.
  void go_through() {
    scratch_.progress.begin(order_.stages());
    const int used = on_team(team_, [&](int number) {
      for (const bool takes_all : {false, true}) {
        for (const Item& item : order_.items()) {
          const Stage& stage = stage_at(item.stage);
          if (takes_all || stage.belongs_to_all() || stage.home(item.task, team_) == number)
            try_task(item.stage, item.task);
        }
      }
    });
    workspace_.threads = (std::max)(workspace_.threads, used);
  }

  Leaf& leaf_at(std::int64_t index) { return workspace_.leaves[static_cast<std::size_t>(index)]; }

  // So much work, in elements, is worth another thread: below it the threads' meeting costs more than it saves.
  static constexpr std::int64_t kWorkOfThread = 32768;

  // Mostly the rest of one task is waited for, some microseconds; giving way takes as long on some systems.
  static constexpr int kLooks = 500;

  // One number of threads for all loops of a state: where it changes from loop to loop, the threads' library ends some
  // and starts others.
  static int team_for(const TaskOrder& order, int threads) {
    const Wave& all = order.everything();
    const std::int64_t useful = (std::min)(all.elements / kWorkOfThread, all.tasks.last - all.tasks.first);
    return static_cast<int>(std::clamp<std::int64_t>(useful, 1, threads));
  }

  template <class Body>
  void run(std::int64_t count, const Body& body) {
    workspace_.threads = (std::max)(workspace_.threads, parallel_for(0, count, team_, body));
  }

  template <class Body>
  void for_tasks(const Wave& wave, const Body& body) {
    run(wave.tasks.last - wave.tasks.first,
        [&](std::int64_t i) { body(order_.tasks()[static_cast<std::size_t>(wave.tasks.first + i)]); });
  }

  template <class Body>
  void for_tiles(Indices tiles, const Body& body) {
    for (std::int64_t t = tiles.first; t < tiles.last; ++t) {
      const auto index = static_cast<std::size_t>(t);
      const Tile& tile = plan_.tiles()[index];
      body(leaf_at(tile.leaf), tile, workspace_.sums[index]);
    }
  }

  const Kernels& kernels_of(const Leaf& leaf) const { return kernels_.of(leaf.arithmetic); }
  // The sums of all tiles of the leaf.
  const TileSums* sums_of(const Leaf& leaf) const { return workspace_.sums.data() + leaf.first_tile; }

  const Stage& stage_at(std::int64_t index) const { return order_.stages()[static_cast<std::size_t>(index)]; }

  // Does a task unless somebody has taken it.
  void try_task(std::int64_t index, std::int64_t task) {
    const Stage& stage = stage_at(index);
    Progress& progress = scratch_.progress;
    if (!progress.take(stage, task)) return;
    for (std::int64_t earlier = stage.awaits.first; earlier < stage.awaits.last; ++earlier) complete(earlier);
    // Stages up to the verdict run even where a gradient is bad; later ones run only if the step goes on.
    const bool runs = comes_before_verdict(stage.phase) || goes_on(plan_, workspace_);
    if (runs) work(stage.phase, order_.tasks()[static_cast<std::size_t>(task)]);
    if (!progress.finish_task(index)) return;
    if (runs) end(stage.phase, stage.leaves);
    progress.close(index);
  }

  // Returns when a stage is complete: does what nobody has taken, which the thread that it belongs to may not have come
  // to yet, and waits for the rest.
  void complete(std::int64_t index) {
    const Stage& stage = stage_at(index);
    for (std::int64_t task = stage.tasks.first; task < stage.tasks.last; ++task) {
      if (scratch_.progress.complete(index)) return;
      try_task(index, task);
    }
    for (int looks = 0; !scratch_.progress.complete(index); ++looks) {
      looks < kLooks ? detail::pause() : detail::give_way();
    }
  }

  static bool comes_before_verdict(Phase phase) {
    return phase == Phase::moments || phase == Phase::means || phase == Phase::verdict;
  }

  // Runs one phase on some tiles.
  void work(Phase phase, Indices tiles) {
    switch (phase) {
      case Phase::moments:
        return for_tiles(tiles, [&](const Leaf& leaf, const Tile& tile, TileSums& sums) {
          if (leaf.action != Action::keep) kernels_of(leaf).moments(leaf, tile, sums);
          if (leaf.measures_early()) kernels_of(leaf).rms(leaf, tile, sums);
        });
      case Phase::means:
        return for_tiles(tiles, [&](const Leaf& leaf, const Tile& tile, TileSums&) {
          if (leaf.row_partial) kernels_of(leaf).means(leaf, tile);
        });
      case Phase::factors:
        return for_tiles(tiles, [&](const Leaf& leaf, const Tile& tile, TileSums& sums) {
          if (leaf.factored && leaf.action == Action::update) kernels_of(leaf).factors(leaf, tile, sums_of(leaf), sums);
        });
      case Phase::rms:
        return for_tiles(tiles, [&](const Leaf& leaf, const Tile& tile, TileSums& sums) {
          if (leaf.measures() && !leaf.measures_early()) kernels_of(leaf).rms(leaf, tile, sums);
        });
      case Phase::apply:
        if (!writes_) return;
        return for_tiles(tiles, [&](const Leaf& leaf, const Tile& tile, TileSums&) {
          if (leaf.action != Action::accumulate) kernels_of(leaf).apply(leaf, tile);
        });
      case Phase::verdict:
        return;
    }
  }

  // What follows when a phase is through with some leaves.
  void end(Phase phase, Indices leaves) {
    if (phase == Phase::verdict) return find_verdict();
    const bool propagates = plan_.call().on_nonfinite == OnNonfinite::propagate;
    for (std::int64_t i = leaves.first; i < leaves.last; ++i) {
      Leaf& leaf = leaf_at(i);
      const TileSums* sums = sums_of(leaf);
      if (phase == Phase::moments) find_norm(leaf, sums);
      if (phase == Phase::factors) find_clamp(leaf, sums);
      if (phase == Phase::rms) find_step(leaf, sums, propagates, [&] { measure_wide(leaf); });
    }
  }

  void find_verdict() { adafactor::find_verdict(workspace_.leaves, plan_.call().global_clipnorm, workspace_.verdict); }

  void measure_wide(const Leaf& leaf) {
    for_tiles({leaf.first_tile, leaf.first_tile + leaf.tile_count},
              [&](const Leaf&, const Tile& tile, TileSums& sums) { kernels_of(leaf).rms(leaf, tile, sums); });
  }

  const Plan& plan_;
  const TaskOrder& order_;
  Workspace& workspace_;
  CpuScratch& scratch_;
  const KernelTable& kernels_;
  int team_;
  bool writes_ = true;
};

}}  // namespace adafactor::ADAFACTOR_ABI

#include "adafactor/compiler/exact_end.hpp"
