// The loop over threads: each index once, as many threads as asked for, and the default floating-point environment
// inside whatever the process has set outside. For each of the three kinds of threads.
#include <algorithm>
#include <atomic>
#include <cfenv>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <thread>
#include <vector>

#include "adafactor/cpu/threads/threads.hpp"
#include "adafactor/host/floating_point.hpp"
#include "support/check.hpp"
#include "support/loop.hpp"

#if defined(_OPENMP)
#include <omp.h>
#endif

namespace {

const bool kSerial = std::string_view(adafactor::threads_kind()) == "serial";

std::vector<int> visits(std::int64_t first, std::int64_t last, int threads, int& used) {
  const auto count = static_cast<std::size_t>(last > first ? last - first : 0);
  std::vector<std::atomic<int>> seen(count);
  used = parallel_for(first, last, threads, [&](std::int64_t i) { ++seen[static_cast<std::size_t>(i - first)]; });
  return {seen.begin(), seen.end()};
}

void each_index_is_visited_once() {
  for (const int threads : {1, 2, 3, 7}) {
    for (const std::int64_t count : {1, 2, 3, 7, 1000}) {
      for (const std::int64_t first : {std::int64_t{0}, std::int64_t{5}, std::int64_t{1} << 40}) {
        int used = 0;
        CHECK(visits(first, first + count, threads, used) == std::vector<int>(static_cast<std::size_t>(count), 1));
        CHECK_EQ(used, count > 1 && !kSerial ? threads : 1);
      }
    }
  }
}

void an_empty_range_calls_nobody() {
  int used = -1;
  CHECK(visits(3, 3, 4, used).empty());
  CHECK_EQ(used, 0);
}

// The body runs on all threads of a team at the same time.
template <class Body>
void on_each_thread(int threads, const Body& body) {
  const int expected = kSerial ? 1 : threads;
  std::atomic<int> arrived{0};
  const int used = parallel_for(0, expected, threads, [&](std::int64_t i) {
    body(i);
    ++arrived;
    while (arrived < expected) std::this_thread::yield();
  });
  CHECK_EQ(used, expected);
}

void each_member_of_a_team_has_a_number() {
  for (const int threads : {1, 2, 5, 3}) {
    const int expected = kSerial ? 1 : threads;
    std::vector<std::atomic<int>> calls(static_cast<std::size_t>(threads));
    std::atomic<int> arrived{0};
    std::thread::id first;
    const int used = adafactor::on_team(threads, [&](int number) {
      ++calls[static_cast<std::size_t>(number)];
      if (number == 0) first = std::this_thread::get_id();
      ++arrived;
      while (arrived < expected) std::this_thread::yield();
    });
    CHECK_EQ(used, expected);
    CHECK(first == std::this_thread::get_id());
    for (int i = 0; i < threads; ++i) CHECK_EQ(calls[static_cast<std::size_t>(i)], i < expected ? 1 : 0);
  }
}

void a_team_grows_and_shrinks() {
  for (const int threads : {2, 5, 3, 1, 20}) {
    std::vector<std::thread::id> ids(static_cast<std::size_t>(threads));
    on_each_thread(threads, [&](std::int64_t i) { ids[static_cast<std::size_t>(i)] = std::this_thread::get_id(); });
    if (kSerial) ids.resize(1);
    for (std::size_t i = 0; i < ids.size(); ++i) {
      for (std::size_t j = 0; j < i; ++j) CHECK(ids[i] != ids[j]);
    }
  }
}

// The default is 3 here, as main() sees to.
void the_number_of_threads_is_kept_and_bounded() {
  CHECK_EQ(adafactor::get_num_threads(), kSerial ? 1 : 3);
  adafactor::set_num_threads(4);
  CHECK_EQ(adafactor::get_num_threads(), kSerial ? 1 : 4);
  adafactor::set_num_threads(1 << 30);
  CHECK_EQ(adafactor::get_num_threads(), kSerial ? 1 : adafactor::kMostThreads);
  adafactor::set_num_threads(-1);
  CHECK_EQ(adafactor::get_num_threads(), kSerial ? 1 : 3);
  adafactor::set_num_threads(2);
  adafactor::set_num_threads(0);
  CHECK_EQ(adafactor::get_num_threads(), kSerial ? 1 : 3);
  for (const int limit : {2, 1, 0, 5}) {
    static int least = 0;
    least = limit;
    adafactor::set_thread_limit([] { return least; });
    CHECK_EQ(adafactor::get_num_threads(), kSerial ? 1 : limit > 0 ? std::min(limit, 3) : 3);
    adafactor::set_num_threads(4);
    CHECK_EQ(adafactor::get_num_threads(), kSerial ? 1 : 4);
    adafactor::set_num_threads(0);
  }
  adafactor::set_thread_limit(nullptr);
  CHECK_EQ(adafactor::get_num_threads(), kSerial ? 1 : 3);
#if defined(_OPENMP)
  omp_set_num_threads(2);
  CHECK_EQ(adafactor::get_num_threads(), 2);
#endif
}

#if defined(__SSE2__)
constexpr unsigned kDefault = 0x1f80;
// Denormals read and written as zero, rounding towards zero.
constexpr unsigned kChanged = kDefault | 0x8040 | 0x6000;

void the_environment_is_the_default_inside_and_restored_after() {
  // A thread that is started inherits the environment: among thirty there are new ones.
  for (const int threads : {1, 2, 30}) {
    const unsigned before = _mm_getcsr();
    _mm_setcsr(kChanged);
    std::vector<unsigned> inside(30, kDefault);
    std::vector<float> halves(30, 0x1p-140f);
    volatile float denormal = 0x1p-140f;
    volatile float one = 1;
    on_each_thread(threads, [&](std::int64_t i) {
      inside[static_cast<std::size_t>(i)] = _mm_getcsr() & ~0x3fU;  // the lowest six say what has happened
      halves[static_cast<std::size_t>(i)] = denormal * one;
    });
    const unsigned after = _mm_getcsr() & ~0x3fU;
    _mm_setcsr(before);
    CHECK_EQ(after, kChanged);
    CHECK(inside == std::vector<unsigned>(30, kDefault));
    CHECK(halves == std::vector<float>(30, 0x1p-140f));
  }
}

// Threads of the pool keep what somebody set in them.
void threads_of_the_pool_get_their_own_back() {
#if defined(_OPENMP)
#pragma omp parallel num_threads(3)
  _mm_setcsr(kChanged);
  std::vector<unsigned> inside(50);
  parallel_for(0, 50, 3, [&](std::int64_t i) { inside[static_cast<std::size_t>(i)] = _mm_getcsr() & ~0x3fU; });
  std::atomic<int> kept{0};
#pragma omp parallel num_threads(3)
  {
    if ((_mm_getcsr() & ~0x3fU) == kChanged) ++kept;
    _mm_setcsr(kDefault);
  }
  _mm_setcsr(kDefault);
  CHECK(inside == std::vector<unsigned>(50, kDefault));
  CHECK_EQ(kept.load(), 3);
#endif
}
#endif

void the_rounding_mode_is_restored() {
  const int before = std::fegetround();
  std::fesetround(FE_UPWARD);
  volatile double third = 0;
  parallel_for(0, 1, 1, [&](std::int64_t) {
    volatile double one = 1;
    volatile double three = 3;
    third = one / three;
  });
  const int after = std::fegetround();
  std::fesetround(before);
  CHECK_EQ(after, FE_UPWARD);
#if defined(__SSE2__) || defined(__aarch64__)
  CHECK_EQ(third, 0x1.5555555555555p-2);  // upwards it would end in 6
#endif
}

// One state belongs to one thread, but several threads may step at once.
void loops_of_several_callers_do_not_mix() {
  std::vector<std::thread> callers;
  std::atomic<int> good{0};
  for (int caller = 0; caller < 3; ++caller) {
    callers.emplace_back([&] {
      int used = 0;
      for (int round = 0; round < 10; ++round) {
        if (visits(0, 100, 2, used) == std::vector<int>(100, 1)) ++good;
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  CHECK_EQ(good.load(), 30);
}

void a_loop_inside_a_loop_is_done() {
  std::atomic<int> sum{0};
  parallel_for(0, 8, 3,
               [&](std::int64_t) { parallel_for(0, 8, 3, [&](std::int64_t i) { sum += static_cast<int>(i); }); });
  CHECK_EQ(sum.load(), 8 * 28);
}

// Long enough pauses that the threads are asleep, and none.
void no_wakeup_is_lost() {
  std::atomic<int> sum{0};
  for (int round = 0; round < 2000; ++round) {
    if (round % 100 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    parallel_for(0, 4, 3, [&](std::int64_t) { ++sum; });
  }
  CHECK_EQ(sum.load(), 8000);
}

}  // namespace

int main() {
#if defined(_OPENMP)
  omp_set_num_threads(3);
#elif defined(__unix__) || defined(__APPLE__)
  setenv("OMP_NUM_THREADS", "3", 1);
#else
  _putenv_s("OMP_NUM_THREADS", "3");
#endif
  each_index_is_visited_once();
  an_empty_range_calls_nobody();
  each_member_of_a_team_has_a_number();
  a_team_grows_and_shrinks();
  the_number_of_threads_is_kept_and_bounded();
#if defined(__SSE2__)
  the_environment_is_the_default_inside_and_restored_after();
  threads_of_the_pool_get_their_own_back();
#endif
  the_rounding_mode_is_restored();
  loops_of_several_callers_do_not_mix();
  a_loop_inside_a_loop_is_done();
  no_wakeup_is_lost();
  return check::report();
}
