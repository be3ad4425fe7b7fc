// Sixteen numbers at a time against plain numbers, bit for bit: loads, stores, tails, arithmetic, NaN, and the order in
// which a sum is folded.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "adafactor/cpu/short/slices.hpp"
#include "adafactor/lanes/formats.hpp"
#include "adafactor/lanes/lanes.hpp"
#include "support/check.hpp"
#include "support/sixteen.hpp"

namespace {

using adafactor::Exactly;
using adafactor::Full;
using adafactor::kLanes;
using adafactor::Lanes;
using adafactor::One;
using adafactor::Part;
using sixteen::lanes_of;
using sixteen::numbers;
using sixteen::same;
using sixteen::same_bits;
using sixteen::Sixteen;
using sixteen::special_numbers;
using sixteen::values_of;

template <class T, class Operation>
Sixteen<T> by_element(const Sixteen<T>& a, const Sixteen<T>& b, const Operation& operation) {
  Sixteen<T> result;
  for (std::size_t i = 0; i < result.size(); ++i) result[i] = operation(a[i], b[i]);
  return result;
}

template <class T>
void arithmetic_is_by_element() {
  for (int salt = 0; salt < kLanes; ++salt) {
    for (const bool special : {false, true}) {
      const Sixteen<T> a = special ? special_numbers<T>(0) : numbers<T>(salt);
      const Sixteen<T> b = special ? special_numbers<T>(salt) : numbers<T>(salt + 5);
      const Lanes<T> x = lanes_of(a);
      const Lanes<T> y = lanes_of(b);
      CHECK(same(values_of(x + y), by_element<T>(a, b, [](T p, T q) { return p + q; })));
      CHECK(same(values_of(x - y), by_element<T>(a, b, [](T p, T q) { return p - q; })));
      CHECK(same(values_of(x * y), by_element<T>(a, b, [](T p, T q) { return p * q; })));
      CHECK(same(values_of(x / y), by_element<T>(a, b, [](T p, T q) { return p / q; })));
      CHECK(same(values_of(smaller(x, y)), by_element<T>(a, b, [](T p, T q) { return q < p ? q : p; })));
      CHECK(same(values_of(larger(x, y)), by_element<T>(a, b, [](T p, T q) { return q > p ? q : p; })));
      CHECK(same(values_of(where_nonzero(x, y)), by_element<T>(a, b, [](T p, T q) { return q == 0 ? T{0} : p; })));
      CHECK(same(values_of(select_less(x, y, y, x)), by_element<T>(a, b, [](T p, T q) { return p < q ? q : p; })));
      CHECK(same(values_of(square_root(x)), by_element<T>(a, b, [](T p, T) { return std::sqrt(p); })));
      CHECK(same(values_of(x + b[3]), by_element<T>(a, b, [&](T p, T) { return p + b[3]; })));
      CHECK(same(values_of(x * b[3]), by_element<T>(a, b, [&](T p, T) { return p * b[3]; })));
      CHECK(same(values_of(b[3] / x), by_element<T>(a, b, [&](T p, T) { return b[3] / p; })));
      CHECK(same(values_of(x / b[3]), by_element<T>(a, b, [&](T p, T) { return p / b[3]; })));
    }
  }
}

template <class T>
void single_numbers_obey_the_same_functions() {
  for (int salt = 0; salt < kLanes; ++salt) {
    const Sixteen<T> a = special_numbers<T>(0);
    const Sixteen<T> b = special_numbers<T>(salt);
    const Lanes<T> x = lanes_of(a);
    const Lanes<T> y = lanes_of(b);
    CHECK(same(values_of(smaller(x, y)), by_element<T>(a, b, [](T p, T q) { return adafactor::smaller(p, q); })));
    CHECK(same(values_of(larger(x, y)), by_element<T>(a, b, [](T p, T q) { return adafactor::larger(p, q); })));
    CHECK(same(values_of(where_nonzero(x, y)),
               by_element<T>(a, b, [](T p, T q) { return adafactor::where_nonzero(p, q); })));
    CHECK(same(values_of(square_root(x)), by_element<T>(a, b, [](T p, T) { return adafactor::square_root(p); })));
  }
}

template <class T>
void a_nan_of_the_first_is_kept() {
  const Lanes<T> nan = adafactor::fill(std::numeric_limits<T>::quiet_NaN());
  const Lanes<T> one = adafactor::fill(T{1});
  for (const T value : values_of(smaller(nan, one))) CHECK(std::isnan(value));
  for (const T value : values_of(larger(nan, one))) CHECK(std::isnan(value));
}

template <class T>
void filled_lanes_have_the_number_to_the_bit() {
  for (const T value : special_numbers<T>(0)) {
    Sixteen<T> expected;
    expected.fill(value);
    CHECK(same(values_of(adafactor::fill(value)), expected));
  }
}

// What is stored as S and computed as T, from any address, and never a byte beyond.
template <class T, class S>
void loads_and_stores_keep_to_their_elements() {
  std::vector<std::byte> memory((2 * kLanes + 1) * sizeof(S));
  auto* place = reinterpret_cast<S*>(memory.data() + 1);
  const Sixteen<T> values = numbers<T>(1);
  for (int count = 1; count <= kLanes; ++count) {
    std::ranges::fill(memory, std::byte{0x5a});
    const std::vector<std::byte> before = memory;
    if (count == kLanes) {
      adafactor::store(place, lanes_of(values), Full{});
    } else if (count == 1) {
      adafactor::store(place, values[0], One{});
    } else {
      adafactor::store(place, lanes_of(values), Part{count});
    }
    const auto end = static_cast<std::ptrdiff_t>(1 + static_cast<std::size_t>(count) * sizeof(S));
    CHECK(std::equal(memory.begin() + end, memory.end(), before.begin() + end));
    CHECK(memory[0] == std::byte{0x5a});

    Sixteen<T> expected{};
    for (int i = 0; i < count; ++i) {
      const auto k = static_cast<std::size_t>(i);
      S stored;
      std::memcpy(&stored, memory.data() + 1 + k * sizeof(S), sizeof stored);
      CHECK(same_bits(stored, static_cast<S>(values[k])));
      expected[k] = static_cast<T>(stored);
    }
    if (count == kLanes) {
      CHECK(same(values_of(adafactor::load<T>(static_cast<const S*>(place), Full{})), expected));
    } else {
      CHECK(same(values_of(adafactor::load<T>(static_cast<const S*>(place), Part{count})), expected));
    }
    CHECK(same_bits(adafactor::load<T>(static_cast<const S*>(place), One{}), expected[0]));
  }
}

// 8, 4, 2, 1: lane i and lane i + 8 first.
template <class T>
double folded(const Sixteen<T>& values) {
  std::array<double, kLanes> sums;
  std::ranges::copy(values, sums.begin());
  for (std::size_t half = kLanes / 2; half >= 1; half /= 2) {
    for (std::size_t i = 0; i < half; ++i) sums[i] += sums[i + half];
  }
  return sums[0];
}

template <class T>
void a_sum_is_folded_in_one_order() {
  int differs_in_another_order = 0;
  for (int salt = 0; salt < 200; ++salt) {
    const Sixteen<T> values = numbers<T>(salt);
    CHECK(same_bits(adafactor::fold(lanes_of(values)), folded(values)));
    double in_a_row = 0;
    for (const T value : values) in_a_row += static_cast<double>(value);
    if (in_a_row != folded(values)) ++differs_in_another_order;
  }
  if (sizeof(T) == 8) CHECK(differs_in_another_order > 0);
}

// What is added up is squares, so no lane is -0, which a missing +0 would leave.
template <class T, int n>
void fewer_lanes_fold_as_sixteen_with_zeros() {
  for (int salt = 0; salt < 50; ++salt) {
    Sixteen<T> values{};
    for (std::size_t i = 0; i < std::size_t{n}; ++i) values[i] = std::abs(numbers<T>(salt)[i]);
    const Lanes<T, n> few = adafactor::load<T>(values.data(), Exactly<n>{});
    CHECK(same_bits(adafactor::fold(few), adafactor::fold(lanes_of(values))));
  }
}

int count_of(One) { return 1; }
template <int n>
int count_of(Exactly<n>) {
  return n;
}

void the_loops_visit_each_element_once() {
  for (std::int64_t n = 0; n <= 70; ++n) {
    std::vector<int> by_lanes(static_cast<std::size_t>(n));
    std::vector<int> by_element(static_cast<std::size_t>(n));
    const auto visit = [](std::vector<int>& seen, std::int64_t first, int count) {
      for (int i = 0; i < count; ++i) ++seen[static_cast<std::size_t>(first + i)];
    };
    adafactor::for_lanes(n, [&](std::int64_t i, auto amount) {
      CHECK_EQ(i % kLanes, 0);
      if constexpr (std::is_same_v<decltype(amount), Part>) {
        CHECK(amount.count > 0 && amount.count < kLanes);
        visit(by_lanes, i, amount.count);
      } else {
        visit(by_lanes, i, kLanes);
      }
    });
    adafactor::for_each(n, [&](std::int64_t i, auto amount) { visit(by_element, i, count_of(amount)); });
    CHECK(by_lanes == std::vector<int>(static_cast<std::size_t>(n), 1));
    CHECK(by_element == by_lanes);
  }
}

// Every number of 16 bits, and every upper half of a float with some lower ones: what lanes do is what one number does.
template <class Half>
void halves_are_those_of_single_numbers() {
  int wrong = 0;
  for (std::uint32_t first = 0; first < 0x10000; first += kLanes) {
    Sixteen<Half> halves;
    for (std::size_t i = 0; i < halves.size(); ++i) halves[i].bits = static_cast<std::uint16_t>(first + i);
    const Sixteen<float> wide = values_of(adafactor::load<float>(halves.data(), Full{}));
    for (std::size_t i = 0; i < halves.size(); ++i) wrong += !same_bits(wide[i], adafactor::to_float(halves[i]));

    for (const std::uint32_t lower : {0x0000U, 0x0001U, 0x0fffU, 0x1000U, 0x1001U, 0x7fffU, 0x8000U, 0xd555U}) {
      Sixteen<float> values;
      Sixteen<std::uint16_t> noise;
      for (std::size_t i = 0; i < values.size(); ++i) {
        const auto upper = static_cast<std::uint32_t>(first + i);
        const std::uint32_t bits = upper << 16 | lower;
        std::memcpy(&values[i], &bits, sizeof bits);
        noise[i] = static_cast<std::uint16_t>(upper * 40503U + lower);
      }
      const Lanes<float> lanes = lanes_of(values);
      Sixteen<Half> nearest;
      Sixteen<Half> by_noise;
      adafactor::store(nearest.data(), lanes, Full{});
      adafactor::loop_detail::store_format_group(by_noise.data(), lanes.group, noise.data());
      for (std::size_t i = 0; i < values.size(); ++i) {
        wrong += nearest[i].bits != adafactor::round_to<Half>(values[i]).bits;
        wrong += by_noise[i].bits != adafactor::round_to<Half>(values[i], noise[i]).bits;
      }
    }
  }
  CHECK_EQ(wrong, 0);
}

// For each distance, run by run, there and back; 225 is that of the largest small slices.
template <class T>
void runs_are_loaded_across_and_gathered_again() {
  for (const int n : {1, 2, 3, 9, 15, 225}) {
    std::vector<T> runs(static_cast<std::size_t>(n) * kLanes);
    for (std::size_t i = 0; i < runs.size(); ++i) runs[i] = static_cast<T>(i);
    std::vector<T> across(runs.size());
    for (int k = 0; k < n; ++k) {
      const Sixteen<T> loaded = values_of(adafactor::load_apart(runs.data() + k, n));
      for (int lane = 0; lane < kLanes; ++lane) {
        CHECK_EQ(loaded[static_cast<std::size_t>(lane)], runs[static_cast<std::size_t>(lane * n + k)]);
      }
      std::ranges::copy(loaded, across.begin() + k * kLanes);
    }
    for (const int lanes : {1, 5, kLanes}) {
      const auto count = static_cast<std::size_t>(lanes * n);
      std::vector<T> gathered(count + 1, T{-1});
      adafactor::gather_from_lanes(across.data(), n, lanes, gathered.data());
      CHECK(std::equal(gathered.begin(), gathered.end() - 1, runs.begin()));
      CHECK_EQ(gathered[count], T{-1});
    }
  }
}

template <class T>
void test_all() {
  arithmetic_is_by_element<T>();
  single_numbers_obey_the_same_functions<T>();
  a_nan_of_the_first_is_kept<T>();
  filled_lanes_have_the_number_to_the_bit<T>();
  loads_and_stores_keep_to_their_elements<T, float>();
  loads_and_stores_keep_to_their_elements<T, double>();
  a_sum_is_folded_in_one_order<T>();
  fewer_lanes_fold_as_sixteen_with_zeros<T, 8>();
  fewer_lanes_fold_as_sixteen_with_zeros<T, 4>();
  runs_are_loaded_across_and_gathered_again<T>();
}

}  // namespace

int main() {
  if (!check::runs_here()) return check::kSkipped;
  test_all<float>();
  test_all<double>();
  halves_are_those_of_single_numbers<adafactor::Bfloat16>();
  halves_are_those_of_single_numbers<adafactor::Float16>();
  the_loops_visit_each_element_once();
  return check::report();
}
