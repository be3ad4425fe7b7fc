// Sums of numbers that come one after another: of the cells of a tile, the tiles of a leaf, the leaves of a step.
#pragma once

#include <cstdint>

#include "adafactor/compiler/abi.hpp"
#include "adafactor/order.hpp"

namespace adafactor { inline namespace ADAFACTOR_DATA {

// The bits of the sum that a run of the same numbers has (sum_of): lane = place mod 16, and the lanes are folded as a
// tree of 8, 4, 2, 1 after each 512 numbers. So no number waits for all before it, and one number is its own sum.
class Total {
 public:
  ADAFACTOR_ALWAYS_INLINE Total() {}  // NOLINT: no lane is read before it is written

  ADAFACTOR_ALWAYS_INLINE void add(double x) {
    const int lane = count_ % kLanes;
    lanes_[lane] = count_ < kLanes ? x : lanes_[lane] + x;
    if (++count_ == kBlock) {
      folded_ = sum();
      count_ = 0;
    }
  }

  ADAFACTOR_ALWAYS_INLINE double sum() const {
    if (count_ == 0) return folded_;
    if (count_ == 1) return folded_ + lanes_[0];
    double lanes[kLanes];
    int count = count_ < kLanes ? count_ : kLanes;
    for (int i = 0; i < count; ++i) lanes[i] = lanes_[i];
    for (int half = kLanes / 2; half >= 1; half /= 2) {
      for (int i = half; i < count; ++i) lanes[i - half] += lanes[i];
      if (count > half) count = half;
    }
    return folded_ + lanes[0];
  }

 private:
  double lanes_[kLanes];
  double folded_ = 0;
  int count_ = 0;  // since the last fold
};

// The total of `count` numbers, of which number(i) is one; of one number it is that.
template <class Number>
ADAFACTOR_ALWAYS_INLINE double total_of(std::int64_t count, const Number& number) {
  if (count == 1) return number(0);
  Total total;
  for (std::int64_t i = 0; i < count; ++i) total.add(number(i));
  return total.sum();
}

}}  // namespace adafactor::ADAFACTOR_DATA
