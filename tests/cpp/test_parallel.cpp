// The loop over threads: each index once, as many threads as asked for, and the default floating-point environment
// inside whatever the process has set outside.
#include <atomic>
#include <cfenv>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "adafactor/parallel.hpp"
#include "check.hpp"

namespace {

std::vector<int> visits(std::int64_t first, std::int64_t last, int threads, int& used) {
  const auto count = static_cast<std::size_t>(last > first ? last - first : 0);
  std::vector<std::atomic<int>> seen(count);
  used = adafactor::parallel_for(first, last, threads,
                                 [&](std::int64_t i) { ++seen[static_cast<std::size_t>(i - first)]; });
  return {seen.begin(), seen.end()};
}

void each_index_is_visited_once() {
  for (const int threads : {1, 2, 3, 7}) {
    for (const std::int64_t count : {1, 2, 3, 7, 1000}) {
      for (const std::int64_t first : {std::int64_t{0}, std::int64_t{5}, std::int64_t{1} << 40}) {
        int used = 0;
        CHECK(visits(first, first + count, threads, used) == std::vector<int>(static_cast<std::size_t>(count), 1));
#if defined(_OPENMP)
        CHECK_EQ(used, count > 1 ? threads : 1);
#else
        CHECK_EQ(used, 1);
#endif
      }
    }
  }
}

void an_empty_range_calls_nobody() {
  int used = -1;
  CHECK(visits(3, 3, 4, used).empty());
  CHECK_EQ(used, 0);
}

void the_number_of_threads_is_kept_and_bounded() {
  adafactor::set_num_threads(3);
  CHECK_EQ(adafactor::get_num_threads(), 3);
  adafactor::set_num_threads(1 << 30);
  CHECK_EQ(adafactor::get_num_threads(), adafactor::kMostThreads);
  adafactor::set_num_threads(-1);
  CHECK(adafactor::get_num_threads() >= 1);
  adafactor::set_num_threads(0);
  CHECK(adafactor::get_num_threads() >= 1);
#if defined(_OPENMP)
  omp_set_num_threads(2);
  CHECK_EQ(adafactor::get_num_threads(), 2);
#else
  CHECK_EQ(adafactor::get_num_threads(), 1);
#endif
}

#if defined(__SSE2__)
constexpr unsigned kDefault = 0x1f80;
// Denormals read and written as zero, rounding towards zero.
constexpr unsigned kChanged = kDefault | 0x8040 | 0x6000;

void the_environment_is_the_default_inside_and_restored_after() {
  for (const int threads : {1, 2, 4}) {
    const unsigned before = _mm_getcsr();
    _mm_setcsr(kChanged);
    std::vector<unsigned> inside(100);
    std::vector<float> halves(100);
    volatile float denormal = 0x1p-140f;
    volatile float one = 1;
    adafactor::parallel_for(0, 100, threads, [&](std::int64_t i) {
      inside[static_cast<std::size_t>(i)] = _mm_getcsr() & ~0x3fU;  // the lowest six say what has happened
      halves[static_cast<std::size_t>(i)] = denormal * one;
    });
    const unsigned after = _mm_getcsr() & ~0x3fU;
    _mm_setcsr(before);
    CHECK_EQ(after, kChanged);
    CHECK(inside == std::vector<unsigned>(100, kDefault));
    CHECK(halves == std::vector<float>(100, 0x1p-140f));
  }
}

// Threads of the pool keep what somebody set in them.
void threads_of_the_pool_get_their_own_back() {
#if defined(_OPENMP)
#pragma omp parallel num_threads(3)
  _mm_setcsr(kChanged);
  std::vector<unsigned> inside(50);
  adafactor::parallel_for(0, 50, 3,
                          [&](std::int64_t i) { inside[static_cast<std::size_t>(i)] = _mm_getcsr() & ~0x3fU; });
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
  adafactor::parallel_for(0, 1, 1, [&](std::int64_t) {
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

}  // namespace

int main() {
  each_index_is_visited_once();
  an_empty_range_calls_nobody();
  the_number_of_threads_is_kept_and_bounded();
#if defined(__SSE2__)
  the_environment_is_the_default_inside_and_restored_after();
  threads_of_the_pool_get_their_own_back();
#endif
  the_rounding_mode_is_restored();
  loops_of_several_callers_do_not_mix();
  return check::report();
}
