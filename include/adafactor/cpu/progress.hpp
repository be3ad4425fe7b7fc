// How far a step has come: which of its tasks are taken, and which stages are complete.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "adafactor/cpu/tasks.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI {

// How far a step has come: which tasks are taken and which stages complete. It serves one step after another.
class Progress {
 public:
  explicit Progress(const TaskOrder& order)
      : left_(order.stages().size()), taken_(static_cast<std::size_t>(order.claims())) {}

  static std::int64_t nbytes(const TaskOrder& order) {
    return static_cast<std::int64_t>(order.stages().size() * sizeof(Count)) + order.claims();
  }

  // A stage without a task is complete, and so is one of a phase that is not run.
  void begin(const std::vector<Stage>& stages, Phases phases) {
    for (std::size_t i = 0; i < left_.size(); ++i) {
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

  Count& of(std::int64_t stage) { return left_[static_cast<std::size_t>(stage)]; }
  const Count& of(std::int64_t stage) const { return left_[static_cast<std::size_t>(stage)]; }

  std::vector<Count> left_;
  std::vector<std::atomic<bool>> taken_;
};

}}  // namespace adafactor::ADAFACTOR_ABI
