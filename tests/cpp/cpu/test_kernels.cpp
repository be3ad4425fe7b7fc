// The loops over runs against plain loops, for every length up to a few blocks' ends: the sum in sixteen partial sums,
// the range of moments, and the factors of rows.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "adafactor/cpu/factors.hpp"
#include "adafactor/cpu/row_factors.hpp"
#include "adafactor/cpu/runs/loops.hpp"
#include "adafactor/step/totals.hpp"
#include "support/check.hpp"
#include "support/plain_sum.hpp"

namespace {

using adafactor::kBlock;
using adafactor::kLanes;

std::vector<std::int64_t> lengths() {
  std::vector<std::int64_t> result;
  for (std::int64_t n = 0; n <= 3 * kLanes; ++n) result.push_back(n);
  for (const std::int64_t n : {kBlock - 1, kBlock, kBlock + 1, kBlock + 8, 2 * kBlock + 3}) result.push_back(n);
  return result;
}

// Moments of many sizes, some of them zero.
template <class T>
std::vector<T> moments(std::int64_t n, int salt) {
  std::vector<T> result;
  for (std::int64_t i = 0; i < n; ++i) {
    const std::int64_t k = i * 7 + salt * 13 + 1;
    const double number = std::ldexp(1.0 + static_cast<double>(k) / 3.0, static_cast<int>(k % 21) - 10);
    result.push_back(k % 5 == 0 ? T{0} : static_cast<T>(number));
  }
  return result;
}

bool same_bits(double a, double b) { return std::memcmp(&a, &b, sizeof a) == 0; }

template <class T>
void a_sum_is_that_of_sixteen_lanes() {
  for (const std::int64_t n : lengths()) {
    for (int salt = 0; salt < 5; ++salt) {
      const std::vector<T> values = moments<T>(n, salt);
      const std::vector<double> wide(values.begin(), values.end());
      CHECK(same_bits(adafactor::sum_of(values.data(), n), plain::sum(wide)));
    }
  }
}

// And so is that of numbers which come one by one.
void a_total_is_the_sum_of_a_run() {
  for (const std::int64_t n : lengths()) {
    const std::vector<double> values = moments<double>(n, 2);
    adafactor::Total total;
    for (const double value : values) total.add(value);
    CHECK(same_bits(total.sum(), plain::sum(values)));
    CHECK(same_bits(total.sum(), total.sum()));
  }
}

template <class T>
void the_range_of_moments_leaves_zeros_and_nan_out() {
  constexpr adafactor::MomentRule keeps_means{0, 1, 1, 0};
  for (const std::int64_t n : lengths()) {
    for (int salt = 0; salt < 5; ++salt) {
      std::vector<T> values = moments<T>(n, salt);
      if (salt == 4 && n > 0) values[static_cast<std::size_t>(n / 2)] = std::numeric_limits<T>::quiet_NaN();
      double smallest = std::numeric_limits<double>::infinity();
      double largest = 0;
      for (const T moment : values) {
        if (moment > 0) smallest = std::min(smallest, static_cast<double>(moment));
        if (moment > 0) largest = std::max(largest, static_cast<double>(moment));
      }
      const std::vector<T> old(values.size(), T{1});
      const adafactor::MomentRange range = adafactor::update_moments(old.data(), values.data(), keeps_means, n);
      CHECK_EQ(range.smallest, smallest);
      CHECK_EQ(range.largest, largest);
    }
  }
}

template <class T>
void factors_of_rows_are_rounded_once() {
  constexpr double mean = 0.7;
  constexpr double scale = -1.3;
  for (const std::int64_t n : lengths()) {
    const std::vector<T> values = moments<T>(n, 3);
    std::vector<T> factors(values.size() + 1, T{-7});
    adafactor::store_row_factors(values.data(), mean, scale, factors.data(), n);
    for (std::size_t i = 0; i < values.size(); ++i) {
      const double bare = values[i] > 0 ? std::sqrt(mean / static_cast<double>(values[i])) : 0;
      CHECK_EQ(factors[i], static_cast<T>(bare * scale));
    }
    CHECK_EQ(factors.back(), T{-7});  // nothing is written past the last
  }
}

template <class T>
void test_all() {
  a_sum_is_that_of_sixteen_lanes<T>();
  the_range_of_moments_leaves_zeros_and_nan_out<T>();
  factors_of_rows_are_rounded_once<T>();
}

}  // namespace

int main() {
  a_total_is_the_sum_of_a_run();
  if (!check::runs_here()) return check::kSkipped;
  test_all<float>();
  test_all<double>();
  return check::report();
}
