// Who does which task of some phases, and what waits for what.
#pragma once

#include <algorithm>
#include <cstdint>

#include "adafactor/cpu/progress.hpp"
#include "adafactor/cpu/tasks.hpp"
#include "adafactor/cpu/threads/threads.hpp"
#include "adafactor/step/phase.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI {

// Runs the stages of some phases on a team of threads, without a barrier. Each thread looks for the first stage in the
// order that is ready and has a task of its own left, or one of a thread that is busy with others of that stage. What a
// thread has not come to, it finds in its cache when it does: another one takes it when there is nothing else to do for
// a wave ahead. Whoever finishes the last task of a stage makes the decision that follows it. Of two waves and two
// threads, `m`, `f`, `r`, `a` being the phases, `|` a decision:
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
  // So many stages further a thread looks for something to do before it takes what another one has not come to: to the
  // same phase of the next wave.
  static constexpr std::int64_t kStagesAhead = 5;

  // Where a thread is on its way.
  struct Place {
    std::int64_t turn = 0;         // of all stages before it every task is taken
    std::int64_t stage = -1;       // from which it took the last one
    std::int64_t next = 0;         // task of its own in that stage
    std::int64_t waited_for = -1;  // a stage
  };

  const Stage& stage_at(std::int64_t index) const { return order_.stages()[static_cast<std::size_t>(index)]; }

  // A task that a thread has taken, and its stage. -1: none.
  struct Claim {
    std::int64_t stage;
    std::int64_t task;
  };

  // Does one task, if one is ready that nobody has taken.
  bool work_once(int number, int team, Place& place) {
    const Claim claim = find_task(number, team, place);
    if (claim.task < 0) return false;
    do_task(claim.stage, stage_at(claim.stage), claim.task);
    return true;
  }

  // Takes the thread's next task, or another's.
  Claim find_task(int number, int team, Place& place) {
    std::int64_t last = order_.stage_count();
    std::int64_t of_others = -1;  // the first stage that has tasks of others alone
    for (std::int64_t turn = place.turn; turn < last; ++turn) {
      const std::int64_t index = order_.stage_of_turn(turn);
      if (progress_.all_taken(index)) {
        if (turn == place.turn) ++place.turn;
        continue;
      }
      const Stage& stage = stage_at(index);
      if (!is_ready(stage) && !becomes_ready(index, stage, place)) continue;
      std::int64_t task = take_own(index, stage, number, team, place);
      if (task < 0) task = take_from_busy(index, stage, number, team);
      if (task >= 0) return {index, task};
      if (of_others >= 0) continue;
      of_others = index;
      last = (std::min)(last, turn + kStagesAhead + 1);
    }
    if (of_others < 0) return {-1, -1};
    const Stage& stage = stage_at(of_others);
    return {of_others, take_last(of_others, stage, stage.tasks)};
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

  // The k-th task of a range of a stage's, in the order in which they are done.
  static std::int64_t in_order(const Stage& stage, Numbers tasks, std::int64_t k) {
    return stage.goes_backwards() ? tasks.last - 1 - k : tasks.first + k;
  }

  // Takes a task of a stage that is the thread's own, in their order. -1: there is none.
  std::int64_t take_own(std::int64_t index, const Stage& stage, int number, int team, Place& place) {
    const Numbers own = stage.belongs_to_all() ? stage.tasks : stage.of_thread(number, team);
    if (place.stage != index) {
      place.stage = index;
      place.next = 0;
    }
    for (; place.next < own.last - own.first; ++place.next) {
      const std::int64_t task = in_order(stage, own, place.next);
      if (progress_.take(stage, index, task)) return task;
    }
    return -1;
  }

  // Takes the last task of a range that comes after so many. -1: there is none.
  std::int64_t take_last(std::int64_t index, const Stage& stage, Numbers tasks, std::int64_t after = 0) {
    for (std::int64_t k = tasks.last - tasks.first - 1; k >= after; --k) {
      const std::int64_t task = in_order(stage, tasks, k);
      if (progress_.take(stage, index, task)) return task;
    }
    return -1;
  }

  // Takes one from a thread that is at its own of a stage, and has several left. -1: there is none.
  std::int64_t take_from_busy(std::int64_t index, const Stage& stage, int number, int team) {
    if (stage.belongs_to_all()) return -1;
    for (int other = 0; other < team; ++other) {
      if (other == number) continue;
      const Numbers own = stage.of_thread(other, team);
      if (own.first == own.last || !progress_.is_taken(stage, in_order(stage, own, 0))) continue;
      const std::int64_t task = take_last(index, stage, own, 1);
      if (task >= 0) return task;
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
