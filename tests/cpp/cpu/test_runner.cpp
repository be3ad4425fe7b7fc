// Who does which task: each is done once, by the thread that has its tile in its cache for as long as there is other
// work of its own, and by another one where that thread does not come.
#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string_view>
#include <thread>
#include <vector>

#include "adafactor/cpu/progress.hpp"
#include "adafactor/cpu/runner.hpp"
#include "adafactor/cpu/tasks.hpp"
#include "adafactor/plan.hpp"
#include "support/check.hpp"
#include "support/guarded.hpp"
#include "support/plans.hpp"

namespace {

using adafactor::Config;
using adafactor::Indices;
using adafactor::Phase;
using adafactor::Plan;
using adafactor::Progress;
using adafactor::TaskOrder;
using adafactor::detail::make_in;
using adafactor::detail::nbytes_of;

struct Task {
  Phase phase;
  std::int64_t tile;
  bool is_pass_over_tiles() const { return phase == Phase::moments || phase == Phase::rms || phase == Phase::apply; }
  // Leaves have two tiles here, one for each thread.
  bool is_of_other() const { return is_pass_over_tiles() && tile % 2 == 1; }
};

// Writes down what is done. The caller's helper stays in its first task until the caller has done one of the helper's.
class Work {
 public:
  explicit Work(bool delays_helper) : goes_on_(!delays_helper) {}

  void work(Phase phase, Indices tiles) {
    const Task task{phase, tiles.first};
    const bool is_caller = std::this_thread::get_id() == caller_;
    {
      const std::lock_guard lock(mutex_);
      done_.push_back(task);
      if (is_caller) of_caller_.push_back(task);
    }
    if (!is_caller) has_come_ = true;
    if (is_caller && task.is_of_other()) goes_on_ = true;
    // The caller begins with the helper, or there would be no task left for it.
    while (is_caller ? !goes_on_ && !has_come_ : !goes_on_) std::this_thread::yield();
  }
  void decide(Phase, Indices) {}

  const std::vector<Task>& of_caller() const { return of_caller_; }
  std::int64_t count(Phase phase, std::int64_t tile) const {
    return std::ranges::count_if(done_, [&](const Task& task) { return task.phase == phase && task.tile == tile; });
  }

 private:
  std::thread::id caller_ = std::this_thread::get_id();
  std::mutex mutex_;
  std::vector<Task> done_;
  std::vector<Task> of_caller_;
  std::atomic<bool> has_come_{false};
  std::atomic<bool> goes_on_;
};

// Runs all phases of a plan, which writes before its verdict, on a team of two.
void run(const Plan& plan, Work& work) {
  guarded::Memory of_order(nbytes_of<TaskOrder>(plan.leaves(), plan.tiles(), plan.looks_first()));
  const auto& order = *make_in<TaskOrder>(of_order.data(), plan.leaves(), plan.tiles(), plan.looks_first());
  guarded::Memory of_progress(nbytes_of<Progress>(order.stage_count(), order.claims()));
  auto& progress = *make_in<Progress>(of_progress.data(), order.stage_count(), order.claims());
  adafactor::TaskRunner(order, progress, adafactor::kWholeCall, work)(2);
  CHECK(progress.done());
  for (const auto& stage : order.stages()) {
    for (std::int64_t task = stage.tasks.first; task < stage.tasks.last; ++task) {
      const Indices tiles = order.tasks()[static_cast<std::size_t>(task)];
      if (Task{stage.phase, 0}.is_pass_over_tiles()) CHECK_EQ(work.count(stage.phase, tiles.first), 1);
    }
  }
}

Plan plan_of_waves() {
  Config config;
  config.on_nonfinite = adafactor::OnNonfinite::propagate;
  return plans::plan_of(std::vector<plans::Shape>(6, {512, 512}), config);
}

void each_task_is_done_once() {
  for (int round = 0; round < 50; ++round) {
    Work work(false);
    run(plan_of_waves(), work);
  }
}

// It goes on with tiles of its own, to the next wave but one, before it takes what lies in another cache; and then it
// does, so that nothing waits for a thread that has lost its core.
void a_thread_goes_on_with_its_own_tiles_first() {
  Work work(true);
  run(plan_of_waves(), work);
  const auto& done = work.of_caller();
  const auto taken = std::ranges::find_if(done, &Task::is_of_other);
  CHECK(taken != done.end());
  CHECK_EQ(taken - done.begin(), 3);
  for (std::int64_t i = 0; i < std::min<std::int64_t>(taken - done.begin(), 3); ++i) {
    CHECK(done[static_cast<std::size_t>(i)].phase == Phase::moments);
    CHECK_EQ(done[static_cast<std::size_t>(i)].tile, 2 * i);
  }
}

}  // namespace

int main() {
  each_task_is_done_once();
  if (std::string_view(adafactor::threads_kind()) != "serial") a_thread_goes_on_with_its_own_tiles_first();
  return check::report();
}
