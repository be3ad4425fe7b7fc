// Phase `factors` of small slices, whose R, C and factors sixteen slices make together.
#pragma once

#include <cstdint>

#include "adafactor/cpu/moment_rule.hpp"
#include "adafactor/cpu/short/slices.hpp"
#include "adafactor/step/leaf.hpp"

#include "adafactor/compiler/exact_begin.hpp"

namespace adafactor { inline namespace ADAFACTOR_LOOPS { namespace loop_detail {

// The range of moments of which sixteen come at a time.
class RangeOfLanes {
 public:
  ADAFACTOR_INLINE void include(const Lanes<double>& moments) {
    smallest_ = smaller(smallest_, select_less(0.0, moments, moments, smallest_));
    largest_ = larger(largest_, moments);
  }
  // Those, and what is in `other`.
  ADAFACTOR_OWN_FRAME MomentRange range_with(const MomentRange& other) const {
    double lows[kLanes];
    double highs[kLanes];
    store(lows, smallest_, Full{});
    store(highs, largest_, Full{});
    MomentRange all = other;
    for (int lane = 0; lane < kLanes; ++lane) {
      all = {smaller(all.smallest, lows[lane]), larger(all.largest, highs[lane])};
    }
    return all;
  }

 private:
  Lanes<double> smallest_ = fill(__builtin_inf());
  Lanes<double> largest_ = fill(0.0);
};

// The first slice stands for those that are not there.
template <class T>
ADAFACTOR_OWN_FRAME void fill_up(T* lanes, int n, int count) {
  for (int k = 0; k < n; ++k) {
    for (int lane = count; lane < kLanes; ++lane) lanes[k * kLanes + lane] = lanes[k * kLanes];
  }
}

// Takes n numbers of each of at most sixteen slices apart.
template <class T>
ADAFACTOR_OWN_FRAME void take_apart(const T* from, int n, int count, T* lanes) {
  if (count == kLanes) {
    for (int k = 0; k < n; ++k) store(lanes + k * kLanes, load_apart(from + k, n), Full{});
    return;
  }
  for (int k = 0; k < n; ++k) {
    for (int lane = 0; lane < count; ++lane) lanes[k * kLanes + lane] = from[lane * n + k];
  }
  fill_up(lanes, n, count);
}

// moments <- the new ones, n of each slice, where they are the means. Takes them into a range.
template <class T>
ADAFACTOR_OWN_FRAME void make_moments(const MomentRule& rule, const T* old, T* moments, int n, RangeOfLanes& range) {
  RangeOfLanes own = range;
  for (int k = 0; k < n; ++k) {
    T* const of_lanes = moments + k * kLanes;
    const auto mean = load<double>(of_lanes, Full{});
    store(of_lanes, next_moment(rule, load<double>(old + k * kLanes, Full{}), mean), Full{});
    own.include(load<double>(of_lanes, Full{}));  // as it is stored
  }
  range = own;
}

// Makes R, C and the factors of sixteen slices at a time: lane = place of the slice in the tile mod 16. Their M, of the
// means of their rows, is not kept. The factors of rows are rounded to T twice: here, and with what they are multiplied
// by.
template <class T, class Shape>
class SliceFactors {
 public:
  SliceFactors(const Leaf& leaf, Shape shape) : leaf_(leaf), rule_(moment_rule(leaf)), shape_(shape) {}

  // Writes those of at most sixteen slices. `row_means` and `col_means` are those of G^2, number by number of all
  // lanes; they are overwritten.
  ADAFACTOR_OWN_FRAME void operator()(std::int64_t slice, int count, T* row_means, T* col_means) {
    const LeafArrays& at = leaf_.at;
    const std::int64_t first_row = slice * shape_.rows;
    take_apart(static_cast<const T*>(at.before.row) + first_row, shape_.rows, count, old_);
    if (count < kLanes) fill_up(row_means, shape_.rows, count);
    const Lanes<double> means = mean_moment(leaf_, rule_, mean_of_rows(old_), mean_of_rows(row_means));
    make_moments(rule_, old_, row_means, shape_.rows, rows_);
    for (int row = 0; row < shape_.rows; ++row) {
      const auto moment = load<double>(row_means + row * kLanes, Full{});
      store(factors_ + row * kLanes, select_less(0.0, moment, square_root(means / moment), fill(0.0)), Full{});
    }
    gather_from_lanes(row_means, shape_.rows, count, static_cast<T*>(at.row_moment) + first_row);
    gather_from_lanes(factors_, shape_.rows, count, static_cast<T*>(at.row_factor) + first_row);
    const std::int64_t first_col = slice * shape_.cols;
    take_apart(static_cast<const T*>(at.before.col) + first_col, shape_.cols, count, old_);
    if (count < kLanes) fill_up(col_means, shape_.cols, count);
    make_moments(rule_, old_, col_means, shape_.cols, cols_);
    for (int col = 0; col < shape_.cols; ++col) {
      store(factors_ + col * kLanes, inverse_root(load<double>(col_means + col * kLanes, Full{})), Full{});
    }
    gather_from_lanes(col_means, shape_.cols, count, static_cast<T*>(at.col_moment) + first_col);
    gather_from_lanes(factors_, shape_.cols, count, static_cast<T*>(at.col_factor) + first_col);
  }

  // The same of slices whose means lie where their moments are going to.
  void operator()(std::int64_t slice, int count) {
    T row_means[Shape::most * kLanes];
    T col_means[Shape::most * kLanes];
    take_apart(static_cast<const T*>(leaf_.at.row_moment) + slice * shape_.rows, shape_.rows, count, row_means);
    take_apart(static_cast<const T*>(leaf_.at.col_moment) + slice * shape_.cols, shape_.cols, count, col_means);
    operator()(slice, count, row_means, col_means);
  }

  // Takes all R and C into the ranges of a tile.
  void add_ranges(TileSums& sums) const {
    sums.rows = rows_.range_with(sums.rows);
    sums.cols = cols_.range_with(sums.cols);
  }

 private:
  ADAFACTOR_INLINE Lanes<double> mean_of_rows(const T* numbers) {
    for (int row = 0; row < shape_.rows; ++row) {
      store(vectors_ + row * kLanes, load<double>(numbers + row * kLanes, Full{}), Full{});
    }
    return fold_vectors(vectors_, shape_.rows) / static_cast<double>(shape_.rows);
  }

  const Leaf& leaf_;
  const MomentRule rule_;
  Shape shape_;
  RangeOfLanes rows_;
  RangeOfLanes cols_;
  T old_[Shape::most * kLanes];
  T factors_[Shape::most * kLanes];
  double vectors_[Shape::most * kLanes];
};

// The phase on one tile, and the range of its moments.
template <class T>
void factors_of_slices(const Leaf& leaf, const Tile& tile, TileSums& sums) {
  with_small_slice<T>(leaf, [&](auto shape) {
    SliceFactors<T, decltype(shape)> make_factors(leaf, shape);
    for_groups_of_slices(tile, [&](std::int64_t slice, int count) { make_factors(slice, count); });
    make_factors.add_ranges(sums);
  });
}

}}}  // namespace adafactor::ADAFACTOR_LOOPS::loop_detail

#include "adafactor/compiler/exact_end.hpp"
