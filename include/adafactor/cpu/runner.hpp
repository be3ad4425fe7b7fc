// Who does which task of some phases, and what waits for what.
#pragma once

#include <cstdint>

#include "adafactor/cpu/progress.hpp"
#include "adafactor/cpu/tasks.hpp"
#include "adafactor/cpu/threads/threads.hpp"
#include "adafactor/step/phase.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI {

// Runs the stages of some phases on a team of threads, without a barrier. Each thread goes through the order and does
// its own tasks, and after them those that nobody has taken; whoever finishes the last task of a stage makes the
// decision that follows it. Of two waves and two threads, `m`, `f`, `r`, `a` being the phases, `|` a decision:
//
// ```text
// thread 0   m0 m0 | m1 m1 |  f0 r0 r0 | a0 a0   f1 r1 | a1
// thread 1   m0 m0   m1 m1      r0 r0    a0 a0      r1 | a1
// ```
//
// Three things make it right:
//
// 1. A stage lies behind all that it awaits in the order, so whoever has taken a task waits only for tasks that were
//    dealt out before it. Of those nobody has taken he does all himself: try_task() calls complete() calls try_task(),
//    as deep as stages await each other, which is six.
// 2. A stage counts its tasks and one more for its decision, so it is complete only after the decision; what the
//    decision has found can be read by whoever saw it complete.
// 3. close() releases and complete() acquires, which orders all that was written in the stage; a task is taken by an
//    exchange that orders nothing, since what the task reads lies behind the stages that it awaits.
template <class Work>
class TaskRunner {
 public:
  // `work` has work(phase, tiles) for a task and decide(phase, leaves) for the end of a stage.
  TaskRunner(const TaskOrder& order, Progress& progress, Phases phases, Work& work)
      : order_(order), progress_(progress), phases_(phases), work_(work) {}

  // Returns the number of threads that came, of the team that the order was dealt to.
  int operator()() {
    progress_.begin(order_.stages(), phases_);
    return on_team(order_.team(), [&](int number) {
      for (const bool takes_all : {false, true}) {
        for (const Item& item : order_.items()) {
          if (!phases_.contains(stage_at(item.stage).phase)) continue;
          if (takes_all || item.thread == number || item.thread == Item::kAnyone) try_task(item.stage, item.task);
        }
      }
    });
  }

 private:
  // Mostly the rest of one task is waited for, some microseconds; giving way takes as long on some systems.
  static constexpr int kLooks = 500;

  const Stage& stage_at(std::int64_t index) const { return order_.stages()[static_cast<std::size_t>(index)]; }

  // Does a task unless somebody has taken it.
  void try_task(std::int64_t index, std::int64_t task) {
    const Stage& stage = stage_at(index);
    if (!progress_.take(stage, task)) return;
    for (std::int64_t earlier = stage.awaits.first; earlier < stage.awaits.last; ++earlier) complete(earlier);
    work_.work(stage.phase, order_.tasks()[static_cast<std::size_t>(task)]);
    if (!progress_.finish_task(index)) return;
    work_.decide(stage.phase, order_.leaves_of(stage));
    progress_.close(index);
  }

  // Returns when a stage is complete: does what nobody has taken, which the thread that it belongs to may not have come
  // to yet, and waits for the rest.
  void complete(std::int64_t index) {
    const Stage& stage = stage_at(index);
    for (std::int64_t task = stage.tasks.first; task < stage.tasks.last; ++task) {
      if (progress_.complete(index)) return;
      try_task(index, task);
    }
    for (int looks = 0; !progress_.complete(index); ++looks) {
      looks < kLooks ? detail::pause() : detail::give_way();
    }
  }

  const TaskOrder& order_;
  Progress& progress_;
  Phases phases_;
  Work& work_;
};

}}  // namespace adafactor::ADAFACTOR_ABI
