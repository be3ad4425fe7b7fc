// The order of a step's tasks: which piece of which phase comes when. Leaves go through the phases in waves, one wave
// after the other. All that a stage awaits lies before it in the order, so whoever goes through it from its beginning
// always finds something to do, or somebody who is doing it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
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

// The stages and tasks of a plan, for a team of any size.
class TaskOrder {
 public:
  // `looks_first`: nobody writes before the verdict. Takes its memory from `pieces`; where these only count, it is not
  // to be asked anything but what it counts.
  TaskOrder(const std::vector<LeafPlan>& leaves, const std::vector<Tile>& tiles, bool looks_first,
            detail::Pieces& pieces);

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
  // Which stage has a turn. Where nobody writes before the verdict, `moments` of all waves come first, and after the
  // verdict the rest, from the last wave to the first; otherwise all phases of a wave follow each other.
  //
  // ```text
  // looks first   moments 0, means 0, moments 1, means 1, verdict, factors 1, rms 1, apply 1, factors 0, rms 0, apply 0
  // otherwise     moments 0, means 0, factors 0, rms 0, apply 0, moments 1, means 1, factors 1, rms 1, apply 1, verdict
  // ```
  std::int64_t stage_of_turn(std::int64_t turn) const {
    const std::int64_t count = waves_.size();
    if (!looks_first_) {
      return turn == 5 * count ? verdict() : stage_of(static_cast<Phase>(turn % 5 + (turn % 5 > 1)), turn / 5);
    }
    if (turn < 2 * count) return stage_of(turn % 2 == 0 ? Phase::moments : Phase::means, turn / 2);
    if (turn == 2 * count) return verdict();
    const std::int64_t later = turn - 2 * count - 1;
    return stage_of(static_cast<Phase>(static_cast<int>(Phase::factors) + later % 3), count - 1 - later / 3);
  }
  // A task is a range of tiles.
  std::span<const Indices> tasks() const { return tasks_.all(); }
  // Numbers in the buffer that the partial sums of waves take turns with, and where in it those of a leaf begin.
  std::int64_t partial_count() const { return kSlots * slot_; }
  std::int64_t first_partial(std::size_t leaf) const { return first_partials_[leaf]; }
  // The tasks of all stages together.
  std::int64_t claims() const { return claims_; }

 private:
  // Takes memory for all that follows.
  ADAFACTOR_RARE void take_memory(const std::vector<LeafPlan>& leaves, const std::vector<Tile>& tiles,
                                  detail::Pieces& pieces) {
    std::int64_t waves = 0;
    std::int64_t tasks = 1;
    std::int64_t partials = 0;
    std::int64_t largest = 0;
    detail::for_waves(leaves, [&](const Wave& wave) {
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
    tasks_ = detail::List(pieces.take<Indices>(tasks));
    stage_count_ = 5 * waves + 1;
    stages_ = pieces.take<Stage>(stage_count_);
    first_partials_ = pieces.take<std::int64_t>(static_cast<std::int64_t>(leaves.size()));
    slot_ = ((std::max)((std::min)(partials, detail::kPartials), largest) + kSlots - 1) / kSlots;
  }

  ADAFACTOR_RARE void gather(const std::vector<LeafPlan>& leaves, const std::vector<Tile>& tiles) {
    detail::for_waves(leaves, [&](Wave wave) {
      wave.tasks.first = tasks_.size();
      detail::for_tasks(wave, tiles, [&](Indices task) { tasks_.push_back(task); });
      wave.tasks.last = tasks_.size();
      waves_.push_back(wave);
    });
  }

  // The stages of a phase follow each other, and the verdict is the last.
  std::int64_t stage_of(Phase phase, std::int64_t wave) const {
    return (static_cast<std::int64_t>(phase) - (phase > Phase::verdict)) * waves_.size() + wave;
  }
  std::int64_t verdict() const { return stage_count_ - 1; }

  // The waves go round the slots of the buffer of partial sums. `moments` of each awaits `means` of those that its
  // slots had before, and with them of all that had them ever.
  ADAFACTOR_RARE void place_partials(const std::vector<LeafPlan>& leaves) {
    std::int64_t users[kSlots];
    std::fill(users, users + kSlots, std::int64_t{-1});
    std::int64_t next = 0;
    for (std::int64_t k = 0; k < waves_.size(); ++k) {
      const Wave& wave = waves_[k];
      const std::int64_t taken = slot_ > 0 ? (wave.partials + slot_ - 1) / slot_ : 0;
      if (next + taken > kSlots) next = 0;
      std::int64_t earliest = k;
      std::int64_t latest = -1;
      for (std::int64_t* user = users + next; user < users + next + taken; ++user) {
        if (*user >= 0) earliest = (std::min)(earliest, *user);
        latest = (std::max)(latest, std::exchange(*user, k));
      }
      Stage& moments = stages_[static_cast<std::size_t>(stage_of(Phase::moments, k))];
      if (latest >= 0) moments.awaits = {stage_of(Phase::means, earliest), stage_of(Phase::means, latest) + 1};
      std::int64_t place = next * slot_;
      for (std::int64_t i = wave.leaves.first; i < wave.leaves.last; ++i) {
        const auto index = static_cast<std::size_t>(i);
        first_partials_[index] = std::exchange(place, place + leaves[index].partials());
      }
      next += taken;
    }
  }

  ADAFACTOR_RARE void make_stages() {
    const auto one = [](std::int64_t stage) { return Numbers{stage, stage + 1}; };
    const auto add_task = [&](Indices tiles) {
      tasks_.push_back(tiles);
      return Numbers{tasks_.size() - 1, tasks_.size()};
    };
    const Numbers nothing = add_task({0, 0});
    for (std::int64_t k = 0; k < waves_.size(); ++k) {
      const Wave& wave = waves_[k];
      const bool at_once = detail::is_serial(wave) && wave.tasks.first < wave.tasks.last;
      const Numbers all(wave.tasks);
      const Numbers some = at_once ? add_task(wave.tiles) : all;
      const auto set = [&](Phase phase, Numbers tasks, Numbers awaits) {
        stages_[static_cast<std::size_t>(stage_of(phase, k))] = {phase, static_cast<std::int32_t>(k), tasks, awaits};
      };
      const auto after = [&](Phase phase) { return one(stage_of(phase, k)); };
      set(Phase::moments, all, {0, 0});
      set(Phase::means, wave.adds_up ? some : nothing, after(Phase::moments));
      set(Phase::factors, some, looks_first_ ? one(verdict()) : after(Phase::means));
      set(Phase::rms, all, after(Phase::factors));
      set(Phase::apply, all, after(Phase::rms));
    }
    stages_.back() = {Phase::verdict, 0, nothing, {0, stage_of(Phase::factors, 0)}};
    std::int64_t claims = 0;
    for (Stage& stage : stages_) {
      stage.first_claim = static_cast<std::int32_t>(std::exchange(claims, claims + stage.size()));
    }
  }

  static constexpr std::int64_t kSlots = 8;

  detail::List<Wave> waves_;
  detail::List<Indices> tasks_;
  std::span<Stage> stages_;
  std::span<std::int64_t> first_partials_;  // of each leaf
  std::int64_t elements_ = 0;
  std::int64_t tile_tasks_ = 0;
  std::int64_t slot_ = 0;  // numbers in one
  std::int64_t claims_ = 0;
  std::int64_t stage_count_ = 0;
  bool looks_first_;
};

}}  // namespace adafactor::ADAFACTOR_ABI

#if ADAFACTOR_DEFINES_STEP

namespace adafactor { inline namespace ADAFACTOR_ABI {

ADAFACTOR_RARE ADAFACTOR_FUNCTION TaskOrder::TaskOrder(const std::vector<LeafPlan>& leaves,
                                                       const std::vector<Tile>& tiles, bool looks_first,
                                                       detail::Pieces& pieces)
    : looks_first_(looks_first) {
  take_memory(leaves, tiles, pieces);
  if (pieces.only_counts()) return;
  gather(leaves, tiles);
  make_stages();
  place_partials(leaves);
}

}}  // namespace adafactor::ADAFACTOR_ABI

#endif  // ADAFACTOR_DEFINES_STEP

#include "adafactor/compiler/exact_end.hpp"
