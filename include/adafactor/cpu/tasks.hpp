// The order of a step's tasks: which piece of which phase is handed out when. Leaves go through the phases in waves,
// and the pieces of neighbouring waves are dealt out in turns: while one wave's arrays come from memory, those of
// another are computed with in the cache. A piece begins when the stages that it awaits are complete. All of them lie
// before it in the order, so whoever waits is waiting for somebody who works, and nobody waits at the end of a phase.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <utility>
#include <vector>

#include "adafactor/host/memory.hpp"
#include "adafactor/plan/leaf_plan.hpp"
#include "adafactor/plan/tile.hpp"
#include "adafactor/step/phase.hpp"

#include "adafactor/compiler/exact_begin.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI {

// Consecutive leaves that go through a phase together, and the tasks (pieces of work of about the same size) of all
// their tiles.
struct Wave {
  Indices leaves;
  Indices tasks;
  Indices tiles;
  std::int64_t elements = 0;
  std::int64_t moments = 0;   // of row and col together
  std::int64_t partials = 0;  // partial sums
};

// One phase of one wave.
struct Stage {
  Phase phase = Phase::verdict;
  Indices leaves;
  Indices tasks;
  Indices awaits;                // the stages that have to be complete before it begins
  std::int64_t first_claim = 0;  // the place of its first task in Progress, which counts the tasks of all stages

  std::int64_t size() const { return tasks.last - tasks.first; }
  // The thread that takes a task unless another one has nothing else to do: it is the same in all phases, so that it
  // finds a tile in its own cache. What is no pass over tiles goes to whoever comes first.
  bool belongs_to_all() const { return phase != Phase::moments && phase != Phase::rms && phase != Phase::apply; }
  std::int64_t home(std::int64_t task, std::int64_t threads) const {
    return size() < threads ? task % threads : (task - tasks.first) * threads / size();
  }
};

// One task of a stage.
struct Item {
  std::int32_t stage = 0;
  std::int32_t task = 0;
};

// Made once for the leaves and tiles of a plan; depends on nothing else.
class TaskOrder final : public detail::Kept {
 public:
  // `looks_first`: nobody writes before the verdict.
  TaskOrder(const std::vector<LeafPlan>& leaves, const std::vector<Tile>& tiles, bool looks_first);

  const std::vector<Wave>& waves() const { return waves_; }
  // The elements of all leaves, and the tasks of a pass over all tiles.
  std::int64_t elements() const { return elements_; }
  std::int64_t tile_tasks() const { return tile_tasks_; }
  const std::vector<Stage>& stages() const { return stages_; }
  // The pieces of a step in the order in which they are handed out.
  const std::vector<Item>& items() const { return items_; }
  // A task is a range of tiles.
  const std::vector<Indices>& tasks() const { return tasks_; }
  // Numbers in the buffer that the partial sums of waves take turns with, and where in it those of a leaf begin.
  std::int64_t partial_count() const { return partial_count_; }
  std::int64_t first_partial(std::size_t leaf) const { return first_partials_[leaf]; }
  // The tasks of all stages together.
  std::int64_t claims() const { return claims_; }

 private:
  static constexpr std::int64_t kTaskElements = 16384;
  static constexpr std::int64_t kWaveBytes = 2 << 20;     // what an update reads, of leaves that are smaller than that
  static constexpr std::int64_t kCachedBytes = 10 << 20;  // three waves of this size stay in the cache
  static constexpr std::int64_t kSerialMoments = 16384;   // so many are made in less time than it takes to share them
  static constexpr std::int64_t kPartials = 8192;

  // What `rms` and `apply` read of a leaf.
  static std::int64_t bytes_of(const LeafPlan& leaf) {
    const std::int64_t moments = leaf.layout.factored ? 0 : item_size(leaf.arithmetic);
    return leaf.layout.size() * (2 * item_size(leaf.spec.dtype) + moments);
  }

  // Small leaves share a wave. Waves of which several stay in the cache, and share the buffer of partial sums, make a
  // chain; a larger one is a chain alone.
  void gather_waves(const std::vector<LeafPlan>& leaves) {
    const auto count = static_cast<std::int64_t>(leaves.size());
    const auto at = [&](std::int64_t i) -> const LeafPlan& { return leaves[static_cast<std::size_t>(i)]; };
    bool joins = false;
    for (std::int64_t first = 0, last = 0; first < count; first = last) {
      Wave wave;
      std::int64_t bytes = 0;
      for (; last < count; ++last) {
        const LeafPlan& leaf = at(last);
        const bool fits = bytes + bytes_of(leaf) <= kWaveBytes && wave.partials + leaf.partials() <= kPartials / 2;
        if (wave.elements > 0 && leaf.layout.size() > 0 && !fits) break;  // so no wave but the only one is empty
        bytes += bytes_of(leaf);
        wave.partials += leaf.partials();
        wave.elements += leaf.layout.size();
        if (leaf.layout.factored) wave.moments += leaf.layout.slices * (leaf.layout.rows + leaf.layout.cols);
      }
      wave.leaves = {first, last};
      wave.tiles = {at(first).first_tile, at(last - 1).first_tile + at(last - 1).tile_count};
      const bool alone = bytes > kCachedBytes || wave.partials > kPartials / 2;
      const auto index = static_cast<std::int64_t>(waves_.size());
      if (alone || !joins) chains_.push_back({index, index});
      ++chains_.back().last;
      joins = !alone;
      elements_ += wave.elements;
      waves_.push_back(wave);
    }
  }

  void add_tasks(Wave& wave, const std::vector<Tile>& tiles) {
    wave.tasks.first = static_cast<std::int64_t>(tasks_.size());
    std::int64_t work = kTaskElements;
    for (std::int64_t t = wave.tiles.first; t < wave.tiles.last; ++t) {
      if (work >= kTaskElements) {
        tasks_.push_back({t, t});
        work = 0;
      }
      tasks_.back().last = t + 1;
      work += tiles[static_cast<std::size_t>(t)].size();
    }
    wave.tasks.last = static_cast<std::int64_t>(tasks_.size());
  }

  // Neighbours of a chain have a half of the buffer each; a wave that needs more is alone.
  void place_partials(const std::vector<LeafPlan>& leaves) {
    first_partials_.resize(leaves.size());
    for (const Indices chain : chains_) {
      for (std::int64_t k = chain.first; k < chain.last; ++k) {
        std::int64_t next = (k - chain.first) % 2 * (kPartials / 2);
        const Indices members = waves_[static_cast<std::size_t>(k)].leaves;
        for (std::int64_t i = members.first; i < members.last; ++i) {
          const LeafPlan& leaf = leaves[static_cast<std::size_t>(i)];
          first_partials_[static_cast<std::size_t>(i)] = next;
          next += leaf.partials();
          if (leaf.partials() > 0) partial_count_ = (std::max)(partial_count_, next);
        }
      }
    }
  }

  // Those of the phases that go wave by wave come first.
  std::int64_t stage_of(Phase phase, std::int64_t wave) const {
    const auto count = static_cast<std::int64_t>(waves_.size());
    if (phase == Phase::verdict) return static_cast<std::int64_t>(Phase::apply) * count;
    return (static_cast<std::int64_t>(phase) - (phase > Phase::verdict)) * count + wave;
  }

  // The stages of a phase follow each other; the verdict comes last.
  void make_stages(bool looks_first) {
    const Indices verdict{stage_of(Phase::verdict, 0), stage_of(Phase::verdict, 0) + 1};
    const auto one = [&](Phase phase, std::int64_t wave) {
      return Indices{stage_of(phase, wave), stage_of(phase, wave) + 1};
    };
    const auto add_task = [&](Indices tiles) {
      tasks_.push_back(tiles);
      return Indices{static_cast<std::int64_t>(tasks_.size()) - 1, static_cast<std::int64_t>(tasks_.size())};
    };
    const Indices nothing = add_task({0, 0});
    // The rows and columns of a small wave are one task: they take less time than sharing them would.
    std::vector<Indices> at_once;
    for (const Wave& wave : waves_) {
      at_once.push_back(wave.tasks);
      if (wave.moments > kSerialMoments || wave.tasks.first == wave.tasks.last) continue;
      at_once.back() = add_task(wave.tiles);
    }
    stages_.resize(static_cast<std::size_t>(verdict.last));
    for (const Indices chain : chains_) {
      for (std::int64_t k = chain.first; k < chain.last; ++k) {
        const Wave& wave = waves_[static_cast<std::size_t>(k)];
        const Indices some = at_once[static_cast<std::size_t>(k)];
        const auto set = [&](Phase phase, Indices tasks, Indices awaits) {
          stages_[static_cast<std::size_t>(stage_of(phase, k))] = {phase, wave.leaves, tasks, awaits};
        };
        // The two halves of the buffer of partial sums alternate: wave k writes where k - 2 wrote. A wave that was
        // alone may have used both.
        const Indices earlier{std::max<std::int64_t>(k - 3, 0), (std::max)(chain.first, k - 1)};
        set(Phase::moments, wave.tasks, {stage_of(Phase::means, earlier.first), stage_of(Phase::means, earlier.last)});
        set(Phase::means, wave.partials > 0 ? some : nothing, one(Phase::moments, k));
        set(Phase::factors, some, looks_first ? verdict : one(Phase::means, k));
        set(Phase::rms, wave.tasks, one(Phase::factors, k));
        set(Phase::apply, wave.tasks, one(Phase::rms, k));
      }
    }
    stages_.back() = {
        Phase::verdict, {0, waves_.empty() ? 0 : waves_.back().leaves.last}, nothing, {0, stage_of(Phase::factors, 0)}};
    for (Stage& stage : stages_) stage.first_claim = std::exchange(claims_, claims_ + stage.size());
  }

  // A stage whose items have their turns from `begins` on, one a unit.
  struct Voice {
    Phase phase;
    std::int64_t wave;
    double begins;
  };
  static constexpr std::size_t kVoices = 4;

  std::int64_t items_of(Phase phase, Indices chain, std::int64_t wave) const {
    if (wave < chain.first || wave >= chain.last) return 0;
    return stages_[static_cast<std::size_t>(stage_of(phase, wave))].size();
  }

  // Deals out the items of up to kVoices stages, in turns; of those that have the same, the first named comes first.
  void deal(Indices chain, std::initializer_list<Voice> voices) {
    std::int64_t dealt[kVoices] = {};
    for (;;) {
      const Voice* next = nullptr;
      std::int64_t* of_next = nullptr;
      double turn = 0;
      for (std::int64_t* of_voice = dealt; const Voice& voice : voices) {
        const double turn_of_voice = voice.begins + static_cast<double>(*of_voice);
        if (*of_voice < items_of(voice.phase, chain, voice.wave) && (!next || turn_of_voice < turn)) {
          next = &voice;
          of_next = of_voice;
          turn = turn_of_voice;
        }
        ++of_voice;
      }
      if (!next) return;
      deal(next->phase, next->wave, (*of_next)++);
    }
  }

  // `rms` goes backwards: what `moments` came to last is in the cache still.
  void deal(Phase phase, std::int64_t wave, std::int64_t item) {
    const std::int64_t stage = stage_of(phase, wave);
    const Indices tasks = stages_[static_cast<std::size_t>(stage)].tasks;
    const std::int64_t task = phase == Phase::rms ? tasks.last - 1 - item : tasks.first + item;
    items_.push_back({static_cast<std::int32_t>(stage), static_cast<std::int32_t>(task)});
  }

  void deal_verdict() {
    items_.push_back(
        {static_cast<std::int32_t>(stages_.size() - 1), static_cast<std::int32_t>(stages_.back().tasks.first)});
  }

  // `moments` of all waves, and after the verdict the rest, from the last wave to the first.
  void deal_looking_first() {
    for (const Indices chain : chains_) {
      for (std::int64_t k = chain.first; k <= chain.last; ++k) {
        const double middle = 0.5 * static_cast<double>(items_of(Phase::moments, chain, k));
        deal(chain, {{Phase::moments, k, 0}, {Phase::means, k - 1, middle}});
      }
    }
    deal_verdict();
    for (auto chain = chains_.rbegin(); chain != chains_.rend(); ++chain) {
      for (std::int64_t k = chain->last; k >= chain->first - 1; --k) {
        const double middle = 0.5 * static_cast<double>(items_of(Phase::rms, *chain, k));
        deal(*chain, {{Phase::rms, k, 0}, {Phase::factors, k - 1, middle}, {Phase::apply, k + 1, 0.5}});
      }
    }
  }

  // All phases of a wave soon after each other.
  void deal_at_once() {
    for (const Indices chain : chains_) {
      for (std::int64_t k = chain.first; k <= chain.last + 1; ++k) {
        const auto length = static_cast<double>(items_of(Phase::moments, chain, k));
        const double third = length / 3;
        const double later = third + (std::max)(third, static_cast<double>(items_of(Phase::means, chain, k - 1)));
        deal(chain, {{Phase::moments, k, 0},
                     {Phase::means, k - 1, third},
                     {Phase::factors, k - 1, later},
                     {Phase::apply, k - 2, 0.5}});
        deal(chain, {{Phase::rms, k - 1, 0}});
      }
    }
    deal_verdict();
  }

  std::vector<Wave> waves_;
  std::vector<Indices> chains_;  // of waves
  std::int64_t elements_ = 0;
  std::int64_t tile_tasks_ = 0;
  std::vector<Indices> tasks_;
  std::vector<Stage> stages_;
  std::vector<Item> items_;
  std::vector<std::int64_t> first_partials_;  // of each leaf
  std::int64_t partial_count_ = 0;
  std::int64_t claims_ = 0;
};

}}  // namespace adafactor::ADAFACTOR_ABI

#if ADAFACTOR_DEFINES_STEP

namespace adafactor { inline namespace ADAFACTOR_ABI {

ADAFACTOR_FUNCTION TaskOrder::TaskOrder(const std::vector<LeafPlan>& leaves, const std::vector<Tile>& tiles,
                                        bool looks_first) {
  gather_waves(leaves);
  for (Wave& wave : waves_) add_tasks(wave, tiles);
  tile_tasks_ = static_cast<std::int64_t>(tasks_.size());
  place_partials(leaves);
  make_stages(looks_first);
  if (looks_first) {
    deal_looking_first();
  } else {
    deal_at_once();
  }
}

}}  // namespace adafactor::ADAFACTOR_ABI

#endif  // ADAFACTOR_DEFINES_STEP

#include "adafactor/compiler/exact_end.hpp"
