// A pool of the library's own threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

#include "adafactor/compiler/abi.hpp"
#include "adafactor/cpu/threads/job.hpp"
#include "adafactor/host/cores.hpp"
#include "adafactor/host/fork.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI { namespace detail {

// What these threads are.
inline constexpr const char* kThreadsKind = "pool";

inline bool has_threads() { return true; }

inline int default_threads() { return asked_threads() > 0 ? asked_threads() : usable_cores(); }

// One thread of the pool and its letter box. The caller of a job makes it `called`, and `idle` when the job is over;
// the thread makes all other changes.
class Helper {
 public:
  explicit Helper(int number) : number_(number) {}

  void call(const Job& job) {
    job_ = job;  // nobody reads it while the thread is idle
    {
      const std::lock_guard lock(mutex_);
      attendance_ = Attendance::called;
    }
    called_.notify_one();
  }

  // Returns when the thread is in no turn any more. One that has not begun, or rests, is no longer needed.
  void dismiss() {
    for (int looks = 0;; ++looks) {
      Attendance found = attendance_.load();
      if (found != Attendance::working && attendance_.compare_exchange_strong(found, Attendance::idle)) return;
      looks < kBriefLooks ? pause() : std::this_thread::yield();
    }
  }

  [[noreturn]] void serve() {
    for (;;) {
      wait_for_call();
      Attendance expected = Attendance::called;
      if (!attendance_.compare_exchange_strong(expected, Attendance::working)) continue;
      const Job job = job_;
      attendance_.store(Attendance::resting);
      job(number_, Turn(attendance_));
    }
  }

 private:
  // A thread looks so often for a call, for some fifty microseconds, before it goes to sleep: steps may follow each
  // other closely. It does not give way in between, since whoever gives way to another library's thread that looks out
  // for work gets its core back milliseconds later, and a sleeper is woken at once.
  static constexpr int kLooks = 5000;
  // Mostly the end of one task is waited for.
  static constexpr int kBriefLooks = 100;

  // After every wakeup it looks again for a while: a helper that was called too late for one loop is there for the
  // next.
  void wait_for_call() {
    for (;;) {
      for (int i = 0; i < kLooks; ++i) {
        if (attendance_.load(std::memory_order_acquire) == Attendance::called) return;
        pause();
      }
      std::unique_lock lock(mutex_);
      if (attendance_ == Attendance::called) return;
      called_.wait(lock);
    }
  }

  const int number_;  // in the team; its caller is 0
  std::atomic<Attendance> attendance_{Attendance::idle};
  Job job_;
  std::mutex mutex_;
  std::condition_variable called_;
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
      job(0, Turn());
      return 1;
    }
    const auto count = (std::min)(static_cast<std::size_t>(threads - 1), grow(static_cast<std::size_t>(threads - 1)));
    for (std::size_t i = 0; i < count; ++i) helpers_[i]->call(job);
    job(0, Turn());
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

inline int run_on_team(int threads, const Job& job) {
  if (Pool* pool = Pool::of_process()) return pool->run(threads, job);
  job(0, Turn());
  return 1;
}

}}}  // namespace adafactor::ADAFACTOR_ABI::detail
