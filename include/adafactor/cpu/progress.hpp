// How far a step has come: which of its tasks are taken, and which stages are complete.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include "adafactor/cpu/waves.hpp"
#include "adafactor/host/memory.hpp"
#include "adafactor/step/phase.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI {

// How far a step has come: which tasks are taken and which stages complete. It serves one step after another.
class Progress {
 public:
  // Takes its memory from `pieces`, for so many stages and tasks.
  Progress(std::int64_t stages, std::int64_t claims, detail::Pieces& pieces)
      : left_(pieces.take<Count>(stages)), taken_(pieces.take<std::atomic<bool>>(claims)) {}

  // A stage without a task is complete, and so is one of a phase that is not run.
  void begin(std::span<const Stage> stages, Phases phases) {
    for (std::size_t i = 0; i < stages.size(); ++i) {
      const bool waits = stages[i].size() > 0 && phases.contains(stages[i].phase);
      left_[i].store(waits ? stages[i].size() + 1 : 0, std::memory_order_relaxed);
    }
    for (auto& taken : taken_) taken.store(false, std::memory_order_relaxed);
  }

  // Whether the stage is complete; then what was written in it can be read.
  bool complete(std::int64_t stage) const { return of(stage).load(std::memory_order_acquire) == 0; }

  // True for one caller, who then does the task.
  bool take(const Stage& stage, std::int64_t task) {
    auto& taken = taken_[static_cast<std::size_t>(stage.first_claim + task - stage.tasks.first)];
    return !taken.load(std::memory_order_relaxed) && !taken.exchange(true, std::memory_order_relaxed);
  }

  // A task of the stage is done. True for the last one: then the caller does what the stage ends with, and closes it.
  bool finish_task(std::int64_t stage) { return of(stage).fetch_sub(1, std::memory_order_acq_rel) == 2; }
  void close(std::int64_t stage) { of(stage).store(0, std::memory_order_release); }

 private:
  using Count = std::atomic<std::int64_t>;  // the tasks that are left, and one for the end of the stage

  Count& of(std::int64_t stage) const { return left_[static_cast<std::size_t>(stage)]; }

  std::span<Count> left_;
  std::span<std::atomic<bool>> taken_;
};

}}  // namespace adafactor::ADAFACTOR_ABI
