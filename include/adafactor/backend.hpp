// The seam for a device: what a call does to all leaves. What the phases find (sums, clipping factors, whether the step
// goes on) stays in the workspace, where the next phase reads it; the orchestration never looks.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "adafactor/decisions.hpp"
#include "adafactor/exact_begin.hpp"
#include "adafactor/kernel_table.hpp"
#include "adafactor/parallel.hpp"
#include "adafactor/plan.hpp"
#include "adafactor/workspace.hpp"

namespace adafactor::inline ADAFACTOR_ABI {

// None of these throws.
class Backend {
 public:
  virtual ~Backend() = default;
  // All phases. Nothing of the caller's is written before `apply`, and where the plan looks first, nothing before all
  // gradients were judged.
  virtual void update() = 0;
  // All phases of an update but `apply`: nothing is written, and every leaf that could not be stepped is known.
  virtual void measure() = 0;
  // The end of a call that only adds its gradients up: judges the sums so far, and stores them.
  virtual void accumulate() = 0;
  // `apply` for the leaves that keep their parameters: their averages, and outputs that are other arrays.
  virtual void keep() = 0;
};

// Hands the tasks of a step to threads, with the kernels of one instruction set.
class CpuBackend final : public Backend {
 public:
  CpuBackend(const Plan& plan, Workspace& workspace, const KernelTable& kernels, int threads)
      : plan_(plan),
        schedule_(plan.schedule()),
        workspace_(workspace),
        kernels_(kernels),
        decisions_(plan, workspace, kernels),
        team_(team_for(schedule_, threads)) {}

  void update() override { go_through(); }

  void measure() override {
    writes_ = false;
    go_through();
    writes_ = true;
  }

  void accumulate() override {
    const Wave& all = schedule_.everything();
    for_tasks(all, [&](Span tiles) { work(Phase::moments, tiles, true); });
    end(Phase::moments, all.leaves);
    decisions_.judge();
    if (!goes(plan_, workspace_)) return;
    for_tasks(all, [&](Span tiles) {
      for_tiles(tiles, [&](const Leaf& leaf, const Tile& tile, TileSums&) { kernels_of(leaf).accumulate(leaf, tile); });
    });
  }

  void keep() override {
    for_tasks(schedule_.everything(), [&](Span tiles) { work(Phase::apply, tiles, true); });
  }

 private:
  // Each thread goes through the schedule and does its own tasks; after them those that nobody has taken.
  void go_through() {
    workspace_.progress.begin(schedule_.stages());
    const int used = on_team(team_, [&](int number) {
      for (const bool takes_all : {false, true}) {
        for (const Item& item : schedule_.items()) {
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
  static int team_for(const Schedule& schedule, int threads) {
    const Wave& all = schedule.everything();
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
        [&](std::int64_t i) { body(schedule_.tasks()[static_cast<std::size_t>(wave.tasks.first + i)]); });
  }

  template <class Body>
  void for_tiles(Span tiles, const Body& body) {
    for (std::int64_t t = tiles.first; t < tiles.last; ++t) {
      const auto index = static_cast<std::size_t>(t);
      const Tile& tile = plan_.tiles()[index];
      body(leaf_at(tile.leaf), tile, workspace_.sums[index]);
    }
  }

  const Kernels& kernels_of(const Leaf& leaf) const { return kernels_.of(leaf.arithmetic); }
  // Of all tiles of the leaf.
  const TileSums* sums_of(const Leaf& leaf) const { return workspace_.sums.data() + leaf.first_tile; }

  const Stage& stage_at(std::int64_t index) const { return schedule_.stages()[static_cast<std::size_t>(index)]; }

  // Does a task unless somebody has taken it.
  void try_task(std::int64_t index, std::int64_t task) {
    const Stage& stage = stage_at(index);
    Progress& progress = workspace_.progress;
    if (!progress.take(stage, task)) return;
    for (std::int64_t earlier = stage.awaits.first; earlier < stage.awaits.last; ++earlier) complete(earlier);
    // What comes before the judge is done in any case.
    const bool judged = stage.phase != Phase::moments && stage.phase != Phase::means && stage.phase != Phase::judge;
    const bool works = !judged || goes(plan_, workspace_);
    work(stage.phase, schedule_.tasks()[static_cast<std::size_t>(task)], works);
    if (!progress.finish_task(index)) return;
    if (works) end(stage.phase, stage.leaves);
    progress.close(index);
  }

  // Returns when a stage is complete: does what nobody has taken, which the thread that it belongs to may not have come
  // to yet, and waits for the rest.
  void complete(std::int64_t index) {
    const Stage& stage = stage_at(index);
    for (std::int64_t task = stage.tasks.first; task < stage.tasks.last; ++task) {
      if (workspace_.progress.complete(index)) return;
      try_task(index, task);
    }
    for (int looks = 0; !workspace_.progress.complete(index); ++looks) {
      looks < kLooks ? detail::pause() : detail::give_way();
    }
  }

  // One phase on some tiles, of a step that goes on or has not been judged; otherwise nothing.
  void work(Phase phase, Span tiles, bool works) {
    if (!works) return;
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
          if (leaf.factored && leaf.action == Action::update)
            kernels_of(leaf).new_moments(leaf, tile, sums_of(leaf), sums);
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
      case Phase::judge:
        return;
    }
  }

  // What follows when a phase is through with some leaves.
  void end(Phase phase, Span leaves) {
    if (phase == Phase::judge) return decisions_.judge();
    for (std::int64_t i = leaves.first; i < leaves.last; ++i) {
      Leaf& leaf = leaf_at(i);
      if (phase == Phase::moments) decisions_.find_norm(leaf);
      if (phase == Phase::factors) decisions_.find_clamp(leaf);
      if (phase == Phase::rms) decisions_.find_step(leaf);
    }
  }

  const Plan& plan_;
  const Schedule& schedule_;
  Workspace& workspace_;
  const KernelTable& kernels_;
  Decisions decisions_;
  int team_;
  bool writes_ = true;
};

}  // namespace adafactor::inline ADAFACTOR_ABI

#include "adafactor/exact_end.hpp"
