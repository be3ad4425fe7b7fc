// Sixteen plain numbers for the tests of lanes: drawn, special, and compared to the bit.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "adafactor/lanes/lanes.hpp"

namespace sixteen {

template <class T>
using Sixteen = std::array<T, adafactor::kLanes>;

template <class T>
bool same_bits(const T& a, const T& b) {
  return std::memcmp(&a, &b, sizeof a) == 0;
}

// Numbers of many sizes and both signs, each different.
template <class T>
Sixteen<T> numbers(int salt) {
  Sixteen<T> result;
  for (int i = 0; i < adafactor::kLanes; ++i) {
    const int k = i * 7 + salt * 13 + 1;
    result[static_cast<std::size_t>(i)] = static_cast<T>(std::ldexp(1.0 + k / 3.0, k % 21 - 10) * (k % 3 ? 1 : -1));
  }
  return result;
}

template <class T>
Sixteen<T> special_numbers(int salt) {
  constexpr T nan = std::numeric_limits<T>::quiet_NaN();
  constexpr T inf = std::numeric_limits<T>::infinity();
  constexpr T tiny = std::numeric_limits<T>::denorm_min();
  Sixteen<T> result{0, -T{0}, 1, -1, nan, inf, -inf, tiny, -tiny, 2, nan, 0, -T{0}, inf, 3, -3};
  std::rotate(result.begin(), result.begin() + salt % adafactor::kLanes, result.end());
  return result;
}

template <class T>
adafactor::Lanes<T> lanes_of(const Sixteen<T>& values) {
  return adafactor::load<T>(values.data(), adafactor::Full{});
}

template <class T>
Sixteen<T> values_of(const adafactor::Lanes<T>& lanes) {
  Sixteen<T> result;
  adafactor::store(result.data(), lanes, adafactor::Full{});
  return result;
}

// A NaN's sign and payload are the CPU's own affair, and no result has one that was not in the input.
template <class T>
bool same(const Sixteen<T>& a, const Sixteen<T>& b) {
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (!(same_bits(a[i], b[i]) || (std::isnan(a[i]) && std::isnan(b[i])))) return false;
  }
  return true;
}

}  // namespace sixteen
