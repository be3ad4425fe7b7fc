// Who does which task of some phases, and what waits for what.
#pragma once

#include <cstdint>

#include "adafactor/cpu/progress.hpp"
#include "adafactor/cpu/tasks.hpp"
#include "adafactor/cpu/threads/threads.hpp"
#include "adafactor/step/phase.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI {

// Runs the stages of some phases on a team of threads, without a barrier. Each thread looks for the first stage in the
// order that is ready and has a task left, and takes one of its own or, where there is none, another's; whoever
// finishes the last task of a stage makes the decision that follows it. Of two waves and two threads, `m`, `f`, `r`,
// `a` being the phases, `|` a decision:
//
// ```text
// thread 0   m0 m0 | m1 m1 | f1 | r1 r1 | a1 a1 f0 | r0 r0 | a0 a0
// thread 1   m0 m0   m1 m1        r1 r1   a1 a1      r0 r0   a0 a0
// ```
//
// Three things make it right:
//
// 1. A stage lies behind all that it awaits in the order, so the first one that is not complete is ready, or awaits
//    only what somebody is doing: there is always somebody who works.
// 2. A stage counts its tasks and one more for its decision, so it is complete only after the decision; what the
//    decision has found can be read by whoever saw it complete.
// 3. close() releases and complete() acquires, which orders all that was written in the stage; a task is taken by an
//    exchange that orders nothing, since what the task reads lies behind the stages that it awaits.
template <class Work>
class TaskRunner {
 public:
  // `work` has work(phase, tiles) for a task and decide(phase, leaves) for the end of a stage.
  TaskRunner(const TaskOrder& order, Progress& progress, Phases phases, Work& work)
      : order_(order), progress_(progress), work_(work) {
    progress_.begin(order_.stages(), phases);
  }

  // Has a team do all of it, and returns the number of threads that came.
  int operator()(int team) {
    return on_team(team, [&](int number, Turn& turn) {
      Place place;
      int looks = 0;
      for (bool goes_on = true; goes_on && turn.begin();) {
        const bool worked = work_once(number, team, place);
        goes_on = number == 0 ? !progress_.done() : place.turn < order_.stage_count();
        turn.end();
        if (worked || !goes_on) {
          looks = 0;
        } else {
          ++looks < kLooks ? detail::pause() : detail::give_way();
        }
      }
    });
  }

 private:
  // Mostly the rest of one task is waited for, some microseconds; giving way takes as long on some systems.
  static constexpr int kLooks = 500;
  // A thread that has left a tile in its cache waits so long for the phase that needs it before it turns to another.
  static constexpr int kPatience = 500;

  // Where a thread is on its way.
  struct Place {
    std::int64_t turn = 0;         // of all stages before it every task is taken
    std::int64_t stage = -1;       // from which it took the last one
    std::int64_t next = 0;         // task of its own in that stage
    std::int64_t waited_for = -1;  // a stage
  };

  const Stage& stage_at(std::int64_t index) const { return order_.stages()[static_cast<std::size_t>(index)]; }

  // Does one task, if one is ready that nobody has taken.
  bool work_once(int number, int team, Place& place) {
    for (std::int64_t turn = place.turn; turn < order_.stage_count(); ++turn) {
      const std::int64_t index = order_.stage_of_turn(turn);
      if (progress_.all_taken(index)) {
        if (turn == place.turn) ++place.turn;
        continue;
      }
      const Stage& stage = stage_at(index);
      if (!is_ready(stage) && !becomes_ready(index, stage, place)) continue;
      const std::int64_t task = take(index, stage, number, team, place);
      if (task < 0) continue;
      do_task(index, stage, task);
      return true;
    }
    return false;
  }

  bool is_ready(const Stage& stage) const {
    for (std::int64_t earlier = stage.awaits.first; earlier < stage.awaits.last; ++earlier) {
      if (!progress_.complete(earlier)) return false;
    }
    return true;
  }

  // Waits a little, once, for a pass over tiles that this thread has in its cache.
  bool becomes_ready(std::int64_t index, const Stage& stage, Place& place) const {
    if (stage.phase != Phase::rms && stage.phase != Phase::apply) return false;
    if (place.waited_for == index) return false;
    place.waited_for = index;
    for (int looks = 0; looks < kPatience; ++looks) {
      if (is_ready(stage)) return true;
      detail::pause();
    }
    return false;
  }

  // Takes a task of a stage: the thread's own in their order, then what others would come to last. -1: there is none.
  std::int64_t take(std::int64_t index, const Stage& stage, int number, int team, Place& place) {
    const Numbers own = stage.belongs_to_all() ? stage.tasks : stage.of_thread(number, team);
    const std::int64_t count = own.last - own.first;
    if (place.stage != index) {
      place.stage = index;
      place.next = 0;
    }
    for (; place.next < count; ++place.next) {
      const std::int64_t task = stage.goes_backwards() ? own.last - 1 - place.next : own.first + place.next;
      if (progress_.take(stage, index, task)) return task;
    }
    for (std::int64_t i = 0; i < stage.size(); ++i) {
      const std::int64_t task = stage.goes_backwards() ? stage.tasks.first + i : stage.tasks.last - 1 - i;
      if (progress_.take(stage, index, task)) return task;
    }
    return -1;
  }

  void do_task(std::int64_t index, const Stage& stage, std::int64_t task) {
    work_.work(stage.phase, order_.tasks()[static_cast<std::size_t>(task)]);
    if (!progress_.finish_task(index)) return;
    work_.decide(stage.phase, order_.leaves_of(stage));
    progress_.close(index);
  }

  const TaskOrder& order_;
  Progress& progress_;
  Work& work_;
};

}}  // namespace adafactor::ADAFACTOR_ABI
