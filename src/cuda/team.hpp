// What a team of threads adds up together, in the order that one thread of a CPU has.
#pragma once

#include <cstdint>

#include "adafactor/cpu/runs/loops.hpp"
#include "adafactor/step/decide.hpp"
#include "adafactor/step/leaf.hpp"
#include "threads.hpp"

namespace adafactor::cuda {

// The total of number(0), number(1), ...; each thread of the team has it.
struct TeamTotal {
  template <class Number>
  ADAFACTOR_KERNEL double operator()(std::int64_t count, const Number& number) const {
    if (count == 1) return number(0);
    double sum = 0;
    for_blocks(count, [&](std::int64_t first, std::int64_t n) {
      Lanes<double> lanes = fill(0.0);
      for_lanes(n, [&](std::int64_t i, auto amount) {
        lanes = lanes + Lanes<double>{{has_lane(amount) ? number(first + i + lane()) : 0.0}};
      });
      sum += fold(lanes);
    });
    return sum;
  }
};

namespace thread_detail {

// Of the lanes first, first + apart, first + 2 apart, ... their sum as a tree; those beyond `count` are zero.
template <int first, int apart, class Number>
ADAFACTOR_KERNEL double fold_from(std::int64_t count, const Number& number) {
  if constexpr (apart == kLanes) {
    return first < count ? number(first) : 0;
  } else {
    return fold_from<first, 2 * apart>(count, number) + fold_from<first + apart, 2 * apart>(count, number);
  }
}

}  // namespace thread_detail

// What one thread makes of up to fifteen numbers: the sum that fold() makes of the lanes.
template <class Number>
ADAFACTOR_KERNEL double fold_few(std::int64_t count, const Number& number) {
  return thread_detail::fold_from<0, 1>(count, number);
}

// The range of what the threads of a team have found.
ADAFACTOR_KERNEL MomentRange team_range(MomentRange range) {
  for (int distance = kLanes / 2; distance >= 1; distance /= 2) {
    range.smallest = smaller(range.smallest, adafactor::exchange(range.smallest, distance));
    range.largest = larger(range.largest, adafactor::exchange(range.largest, distance));
  }
  return range;
}

ADAFACTOR_KERNEL MomentRange no_range() { return {__builtin_inf(), 0}; }
ADAFACTOR_KERNEL MomentRange wider(const MomentRange& a, const MomentRange& b) {
  return {smaller(a.smallest, b.smallest), larger(a.largest, b.largest)};
}

// What the tiles of a leaf have found together; made by all threads of a team, for the one that decides.
class TeamTiles {
 public:
  ADAFACTOR_KERNEL TeamTiles(const LeafShape& shape, const TileSums* sums) {
    const TileSums* first = sums + shape.first_tile;
    const auto total = [&](double TileSums::* number) {
      return TeamTotal{}(shape.tile_count, [&](std::int64_t t) { return first[t].*number; });
    };
    sums_.gradient_squares = total(&TileSums::gradient_squares);
    sums_.update_squares = total(&TileSums::update_squares);
    sums_.parameter_squares = total(&TileSums::parameter_squares);
    ranges_ = {no_range(), no_range()};
    for (std::int64_t t = lane(); t < shape.tile_count; t += kLanes) {
      ranges_ = {wider(ranges_.rows, first[t].rows), wider(ranges_.cols, first[t].cols)};
    }
    ranges_ = {team_range(ranges_.rows), team_range(ranges_.cols)};
  }

  ADAFACTOR_DEVICE double total(double TileSums::* number) const { return sums_.*number; }
  ADAFACTOR_DEVICE MomentRanges ranges() const { return ranges_; }

 private:
  TileSums sums_;
  MomentRanges ranges_;
};

}  // namespace adafactor::cuda
