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
      : stages_(pieces.take<Counts>(stages)), taken_(pieces.take<std::atomic<bool>>(claims)) {}

  // A stage without a task is complete, and so is one of a phase that is not run.
  void begin(std::span<const Stage> stages, Phases phases) {
    std::int64_t open = 0;
    for (std::size_t i = 0; i < stages.size(); ++i) {
      const std::int64_t tasks = phases.contains(stages[i].phase) ? stages[i].size() : 0;
      stages_[i].untaken.store(tasks, std::memory_order_relaxed);
      stages_[i].left.store(tasks > 0 ? tasks + 1 : 0, std::memory_order_relaxed);
      open += tasks > 0;
    }
    open_.store(open, std::memory_order_relaxed);
    for (auto& taken : taken_) taken.store(false, std::memory_order_relaxed);
  }

  // Whether all stages are complete.
  bool done() const { return open_.load(std::memory_order_acquire) == 0; }
  // Whether the stage is complete; then what was written in it can be read.
  bool complete(std::int64_t stage) const { return of(stage).left.load(std::memory_order_acquire) == 0; }
  // Whether each of its tasks has been taken.
  bool all_taken(std::int64_t stage) const { return of(stage).untaken.load(std::memory_order_relaxed) == 0; }

  // Whether somebody has taken a task of a stage.
  bool is_taken(const Stage& stage, std::int64_t task) const {
    return claim(stage, task).load(std::memory_order_relaxed);
  }
  // True for one caller, who then does the task.
  bool take(const Stage& stage, std::int64_t index, std::int64_t task) {
    auto& taken = claim(stage, task);
    if (taken.load(std::memory_order_relaxed) || taken.exchange(true, std::memory_order_relaxed)) return false;
    of(index).untaken.fetch_sub(1, std::memory_order_relaxed);
    return true;
  }

  // A task of the stage is done. True for the last one: then the caller does what the stage ends with, and closes it.
  bool finish_task(std::int64_t stage) { return of(stage).left.fetch_sub(1, std::memory_order_acq_rel) == 2; }
  void close(std::int64_t stage) {
    of(stage).left.store(0, std::memory_order_release);
    open_.fetch_sub(1, std::memory_order_acq_rel);
  }

 private:
  struct Counts {
    std::atomic<std::int64_t> untaken;  // tasks
    std::atomic<std::int64_t> left;     // tasks that are not done, and one for the end of the stage
  };

  std::atomic<bool>& claim(const Stage& stage, std::int64_t task) const {
    return taken_[static_cast<std::size_t>(stage.first_claim + task - stage.tasks.first)];
  }
  Counts& of(std::int64_t stage) const { return stages_[static_cast<std::size_t>(stage)]; }

  std::span<Counts> stages_;
  std::span<std::atomic<bool>> taken_;
  std::atomic<std::int64_t> open_{0};  // stages
};

}}  // namespace adafactor::ADAFACTOR_ABI
