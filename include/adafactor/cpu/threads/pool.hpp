// A pool of the library's own threads, for systems where OpenMP is absent or would be one runtime too many.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdlib>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

#include "adafactor/compiler/abi.hpp"
#include "adafactor/cpu/threads/job.hpp"
#include "adafactor/host/fork.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI { namespace detail {

// What these threads are.
inline constexpr const char* kThreadsKind = "pool";

inline bool has_threads() { return true; }

// What OMP_NUM_THREADS says, which launchers set for everybody, or the number of processors.
inline int default_threads() {
  static std::atomic<int> known{0};
  if (known.load() == 0) {
    const char* asked = std::getenv("OMP_NUM_THREADS");
    const int number = asked ? std::atoi(asked) : 0;
    known = number > 0 ? number : (std::max)(1, static_cast<int>(std::thread::hardware_concurrency()));
  }
  return known;
}

// One thread of the pool and its letter box. The stage has two writers that never write the same change: the caller of
// a job makes it `called` and may take that back, the thread makes it `working` and then `idle`.
class Helper {
 public:
  explicit Helper(int number) : number_(number) {}

  void call(const Job& job) {
    job_ = job;  // nobody reads it while the stage is idle
    change_to(Stage::called);
  }

  // Returns when the thread is out of the job. One that has not begun is no longer needed: the caller came to the end
  // of the loop without it.
  void dismiss() {
    Stage expected = Stage::called;
    if (stage_.compare_exchange_strong(expected, Stage::idle)) return;
    wait_for(Stage::idle);
  }

  [[noreturn]] void serve() {
    for (;;) {
      wait_for(Stage::called);
      Stage expected = Stage::called;
      if (!stage_.compare_exchange_strong(expected, Stage::working)) continue;
      job_.call(job_.share, number_);
      change_to(Stage::idle);
    }
  }

 private:
  enum class Stage { idle, called, working };

  // A thread looks at the stage so often, for about half a millisecond, before it goes to sleep, and gives way to
  // others at each look: steps may follow each other closely, and one of 30 us is over before a sleeper wakes.
  static constexpr int kLooks = 1000;

  // At most one thread waits: the helper for `called` while it has nothing to do, or the caller for `idle`.
  void change_to(Stage stage) {
    {
      const std::lock_guard lock(mutex_);
      stage_ = stage;
    }
    changed_.notify_one();
  }

  // After every wakeup it looks again for a while: a helper that was called too late for one loop is there for the
  // next.
  void wait_for(Stage stage) {
    for (;;) {
      for (int i = 0; i < kLooks; ++i) {
        if (stage_.load(std::memory_order_acquire) == stage) return;
        std::this_thread::yield();
      }
      std::unique_lock lock(mutex_);
      if (stage_ == stage) return;
      changed_.wait(lock);
    }
  }

  const int number_;  // in the team; its caller is 0
  std::atomic<Stage> stage_{Stage::idle};
  Job job_;
  std::mutex mutex_;
  std::condition_variable changed_;
};

// The threads of the process, started when a job first wants them, and one job at a time. A second caller, or a job
// inside a job, does its work alone rather than wait.
class Pool {
 public:
  // Never destroyed: its threads sleep in it when the process ends. A forked process has none of them, and gets a pool
  // anew. Null where there is no memory for one.
  static Pool* of_process() {
    static std::atomic<Pool*> current{nullptr};
    Pool* pool = current.load();
    if (pool && pool->forks_ == forks()) return pool;
    auto* fresh = new (std::nothrow) Pool;
    if (!fresh || current.compare_exchange_strong(pool, fresh)) return fresh;
    delete fresh;
    return pool;
  }

  // Calls the job on the caller's thread and on threads - 1 others, or as many of them as there can be.
  int run(int threads, const Job& job) {
    if (busy_.exchange(true, std::memory_order_acquire)) {
      job.call(job.share, 0);
      return 1;
    }
    const auto count = (std::min)(static_cast<std::size_t>(threads - 1), grow(static_cast<std::size_t>(threads - 1)));
    for (std::size_t i = 0; i < count; ++i) helpers_[i]->call(job);
    job.call(job.share, 0);
    for (std::size_t i = 0; i < count; ++i) helpers_[i]->dismiss();
    busy_.store(false, std::memory_order_release);
    return static_cast<int>(count) + 1;
  }

 private:
  std::size_t grow(std::size_t count) {
    try {
      while (helpers_.size() < count) {
        helpers_.reserve(helpers_.size() + 1);
        auto helper = std::make_unique<Helper>(static_cast<int>(helpers_.size()) + 1);
        std::thread([&each = *helper] { each.serve(); }).detach();
        helpers_.push_back(std::move(helper));
      }
    } catch (const std::exception&) {
      // The team is then as large as it has become.
    }
    return helpers_.size();
  }

  const int forks_ = forks();
  std::atomic<bool> busy_{false};
  std::vector<std::unique_ptr<Helper>> helpers_;  // of whoever set busy_
};

ADAFACTOR_FUNCTION void give_way() { std::this_thread::yield(); }

template <class Share>
int run_on_team(int threads, const Share& share) {
  const Job job{[](const void* work, int number) { (*static_cast<const Share*>(work))(number); }, &share};
  if (Pool* pool = Pool::of_process()) return pool->run(threads, job);
  share(0);
  return 1;
}

}}}  // namespace adafactor::ADAFACTOR_ABI::detail
