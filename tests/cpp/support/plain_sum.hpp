// The order of a sum over one run, in plain loops.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include "adafactor/order.hpp"

namespace plain {

// Sixteen numbers as a tree of 8, 4, 2, 1.
inline double fold(std::vector<double> lanes) {
  for (std::size_t half = adafactor::kLanes / 2; half >= 1; half /= 2) {
    for (std::size_t i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  }
  return lanes[0];
}

// Each block of 512 in sixteen partial sums of its own type, folded in double.
template <class T>
double sum(const std::vector<T>& values) {
  double total = 0;
  for (std::size_t first = 0; first < values.size(); first += adafactor::kBlock) {
    std::vector<T> lanes(adafactor::kLanes);
    for (std::size_t i = first; i < std::min<std::size_t>(first + adafactor::kBlock, values.size()); ++i) {
      lanes[(i - first) % adafactor::kLanes] += values[i];
    }
    total += fold({lanes.begin(), lanes.end()});
  }
  return total;
}

}  // namespace plain
