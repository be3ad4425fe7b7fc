// The order of a step's tasks: which piece of which phase is handed out when. Leaves go through the phases in waves,
// and the pieces of neighbouring waves are dealt out in turns: while one wave's arrays come from memory, those of
// another are computed with in the cache. A piece begins when the stages that it awaits are complete. All of them lie
// before it in the order, so whoever waits is waiting for somebody who works, and nobody waits at the end of a phase.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <utility>
#include <vector>

#include "adafactor/cpu/waves.hpp"
#include "adafactor/host/memory.hpp"
#include "adafactor/plan/leaf_plan.hpp"
#include "adafactor/plan/tile.hpp"
#include "adafactor/step/phase.hpp"

#include "adafactor/compiler/exact_begin.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI {

// One task of a stage, and the thread that takes it unless another one has nothing else to do.
struct Item {
  static constexpr std::int32_t kAnyone = -1;

  std::int32_t stage = 0;
  std::int32_t task = 0;
  std::int32_t thread = kAnyone;
};

// The tasks of a plan, dealt out to a team of threads. It lies in memory whose size depends on the plan alone, enough
// for every team, so that dealing anew allocates nothing.
class TaskOrder {
 public:
  // `looks_first`: nobody writes before the verdict. Takes its memory from `pieces`; where these only count, it is not
  // to be asked anything.
  TaskOrder(const std::vector<LeafPlan>& leaves, const std::vector<Tile>& tiles, bool looks_first,
            detail::Pieces& pieces);

  // Deals the tasks out to a team of so many threads; before that there are no items.
  void deal_to(int team);
  int team() const { return team_; }

  std::span<const Wave> waves() const { return waves_.all(); }
  // The leaves that go through a stage.
  Indices leaves_of(const Stage& stage) const {
    if (stage.phase != Phase::verdict) return waves_[stage.wave].leaves;
    return {0, static_cast<std::int64_t>(first_partials_.size())};
  }
  // The elements of all leaves, and the tasks of a pass over all tiles.
  std::int64_t elements() const { return elements_; }
  std::int64_t tile_tasks() const { return tile_tasks_; }
  std::span<const Stage> stages() const { return stages_; }
  std::int64_t stage_count() const { return stage_count_; }
  // The pieces of a step in the order in which they are handed out.
  std::span<const Item> items() const { return items_.all(); }
  // A task is a range of tiles.
  std::span<const Indices> tasks() const { return tasks_.all(); }
  // Numbers in the buffer that the partial sums of waves take turns with, and where in it those of a leaf begin.
  std::int64_t partial_count() const { return 2 * half_; }
  std::int64_t first_partial(std::size_t leaf) const { return first_partials_[leaf]; }
  // The tasks of all stages together, and with it the items.
  std::int64_t claims() const { return claims_; }

 private:
  // Takes memory for all that follows.
  void take_memory(const std::vector<LeafPlan>& leaves, const std::vector<Tile>& tiles, detail::Pieces& pieces) {
    std::int64_t waves = 0;
    std::int64_t tasks = 1;
    std::int64_t partials = 0;
    std::int64_t largest = 0;
    detail::for_waves(leaves, [&](const Wave& wave, bool) {
      std::int64_t of_wave = 0;
      detail::for_tasks(wave, tiles, [&](Indices) { ++of_wave; });
      ++waves;
      elements_ += wave.elements;
      tile_tasks_ += of_wave;
      tasks += of_wave + (detail::is_serial(wave) && of_wave > 0);
      const std::int64_t of_rows = detail::is_serial(wave) ? std::min<std::int64_t>(of_wave, 1) : of_wave;
      claims_ += 3 * of_wave + of_rows + (wave.adds_up ? of_rows : 1);
      partials += wave.partials;
      largest = (std::max)(largest, wave.partials);
    });
    ++claims_;  // the verdict
    waves_ = detail::List(pieces.take<Wave>(waves));
    chains_ = detail::List(pieces.take<Indices>(waves));
    tasks_ = detail::List(pieces.take<Indices>(tasks));
    stage_count_ = static_cast<std::int64_t>(Phase::apply) * waves + 1;
    stages_ = pieces.take<Stage>(stage_count_);
    items_ = detail::List(pieces.take<Item>(claims_));
    first_partials_ = pieces.take<std::int64_t>(static_cast<std::int64_t>(leaves.size()));
    half_ = (std::max)((std::min)(partials, detail::kPartials / 2), (largest + 1) / 2);
  }

  // Waves of which several stay in the cache make a chain; one that stands alone is a chain by itself.
  void gather(const std::vector<LeafPlan>& leaves, const std::vector<Tile>& tiles) {
    bool joins = false;
    detail::for_waves(leaves, [&](Wave wave, bool alone) {
      const std::int64_t index = waves_.size();
      if (alone || !joins) chains_.push_back({index, index});
      ++chains_.back().last;
      joins = !alone;
      wave.tasks.first = tasks_.size();
      detail::for_tasks(wave, tiles, [&](Indices task) { tasks_.push_back(task); });
      wave.tasks.last = tasks_.size();
      waves_.push_back(wave);
    });
  }

  // Neighbours of a chain have a half of the buffer each; a wave that needs more is alone.
  void place_partials(const std::vector<LeafPlan>& leaves) {
    for (const Indices chain : chains_.all()) {
      for (std::int64_t k = chain.first; k < chain.last; ++k) {
        std::int64_t next = (k - chain.first) % 2 * half_;
        const Indices members = waves_[k].leaves;
        for (std::int64_t i = members.first; i < members.last; ++i) {
          const auto index = static_cast<std::size_t>(i);
          first_partials_[index] = std::exchange(next, next + leaves[index].partials());
        }
      }
    }
  }

  // Those of the phases that go wave by wave come first.
  std::int64_t stage_of(Phase phase, std::int64_t wave) const {
    const std::int64_t count = waves_.size();
    if (phase == Phase::verdict) return static_cast<std::int64_t>(Phase::apply) * count;
    return (static_cast<std::int64_t>(phase) - (phase > Phase::verdict)) * count + wave;
  }

  // The stages of a phase follow each other; the verdict comes last.
  void make_stages() {
    const Numbers verdict{stage_count_ - 1, stage_count_};
    const auto one = [&](Phase phase, std::int64_t wave) {
      return Numbers{stage_of(phase, wave), stage_of(phase, wave) + 1};
    };
    const auto add_task = [&](Indices tiles) {
      tasks_.push_back(tiles);
      return Numbers{tasks_.size() - 1, tasks_.size()};
    };
    const Numbers nothing = add_task({0, 0});
    for (const Indices chain : chains_.all()) {
      for (std::int64_t k = chain.first; k < chain.last; ++k) {
        const Wave& wave = waves_[k];
        const bool at_once = detail::is_serial(wave) && wave.tasks.first < wave.tasks.last;
        const Numbers all(wave.tasks);
        const Numbers some = at_once ? add_task(wave.tiles) : all;
        const auto set = [&](Phase phase, Numbers tasks, Numbers awaits) {
          stages_[static_cast<std::size_t>(stage_of(phase, k))] = {phase, static_cast<std::int32_t>(k), tasks, awaits};
        };
        // The two halves of the buffer of partial sums alternate: wave k writes where k - 2 wrote. A wave that was
        // alone may have used both.
        const Indices earlier{std::max<std::int64_t>(k - 3, 0), (std::max)(chain.first, k - 1)};
        set(Phase::moments, all, {stage_of(Phase::means, earlier.first), stage_of(Phase::means, earlier.last)});
        set(Phase::means, wave.adds_up ? some : nothing, one(Phase::moments, k));
        set(Phase::factors, some, looks_first_ ? verdict : one(Phase::means, k));
        set(Phase::rms, all, one(Phase::factors, k));
        set(Phase::apply, all, one(Phase::rms, k));
      }
    }
    stages_.back() = {Phase::verdict, 0, nothing, {0, stage_of(Phase::factors, 0)}};
    std::int64_t claims = 0;
    for (Stage& stage : stages_) {
      stage.first_claim = static_cast<std::int32_t>(std::exchange(claims, claims + stage.size()));
    }
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
    const Numbers tasks = stages_[static_cast<std::size_t>(stage)].tasks;
    deal(stage, phase == Phase::rms ? tasks.last - 1 - item : tasks.first + item);
  }

  void deal(std::int64_t index, std::int64_t task) {
    const Stage& stage = stages_[static_cast<std::size_t>(index)];
    const std::int64_t thread = stage.belongs_to_all() ? Item::kAnyone : stage.home(task, team_);
    items_.push_back(
        {static_cast<std::int32_t>(index), static_cast<std::int32_t>(task), static_cast<std::int32_t>(thread)});
  }

  void deal_verdict() { deal(static_cast<std::int64_t>(stages_.size()) - 1, stages_.back().tasks.first); }

  // `moments` of all waves, and after the verdict the rest, from the last wave to the first.
  void deal_looking_first() {
    for (const Indices chain : chains_.all()) {
      for (std::int64_t k = chain.first; k <= chain.last; ++k) {
        const double middle = 0.5 * static_cast<double>(items_of(Phase::moments, chain, k));
        deal(chain, {{Phase::moments, k, 0}, {Phase::means, k - 1, middle}});
      }
    }
    deal_verdict();
    for (std::int64_t i = chains_.size() - 1; i >= 0; --i) {
      const Indices chain = chains_[i];
      for (std::int64_t k = chain.last; k >= chain.first - 1; --k) {
        const double middle = 0.5 * static_cast<double>(items_of(Phase::rms, chain, k));
        deal(chain, {{Phase::rms, k, 0}, {Phase::factors, k - 1, middle}, {Phase::apply, k + 1, 0.5}});
      }
    }
  }

  // All phases of a wave soon after each other.
  void deal_at_once() {
    for (const Indices chain : chains_.all()) {
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

  detail::List<Wave> waves_;
  detail::List<Indices> chains_;  // of waves
  detail::List<Indices> tasks_;
  std::span<Stage> stages_;
  detail::List<Item> items_;
  std::span<std::int64_t> first_partials_;  // of each leaf
  std::int64_t elements_ = 0;
  std::int64_t tile_tasks_ = 0;
  std::int64_t half_ = 0;  // of the buffer of partial sums
  std::int64_t claims_ = 0;
  std::int64_t stage_count_ = 0;
  bool looks_first_;
  int team_ = 0;
};

}}  // namespace adafactor::ADAFACTOR_ABI

#if ADAFACTOR_DEFINES_STEP

namespace adafactor { inline namespace ADAFACTOR_ABI {

ADAFACTOR_FUNCTION TaskOrder::TaskOrder(const std::vector<LeafPlan>& leaves, const std::vector<Tile>& tiles,
                                        bool looks_first, detail::Pieces& pieces)
    : looks_first_(looks_first) {
  take_memory(leaves, tiles, pieces);
  if (pieces.only_counts()) return;
  gather(leaves, tiles);
  place_partials(leaves);
  make_stages();
}

ADAFACTOR_FUNCTION void TaskOrder::deal_to(int team) {
  if (team == team_) return;
  team_ = team;
  items_.clear();
  if (looks_first_) {
    deal_looking_first();
  } else {
    deal_at_once();
  }
}

}}  // namespace adafactor::ADAFACTOR_ABI

#endif  // ADAFACTOR_DEFINES_STEP

#include "adafactor/compiler/exact_end.hpp"
