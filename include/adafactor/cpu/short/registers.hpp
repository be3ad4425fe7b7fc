// Rows of four or eight of one slice, of which sixteen elements hold whole ones: the factors of their elements are made
// in registers, from one number a row and from the columns' that all rows share.
#pragma once

#include <cstddef>
#include <cstdint>

#include "adafactor/cpu/row_factors.hpp"
#include "adafactor/cpu/runs/loops.hpp"
#include "adafactor/cpu/short/rows.hpp"
#include "adafactor/step/leaf.hpp"

#include "adafactor/compiler/exact_begin.hpp"

namespace adafactor { inline namespace ADAFACTOR_LOOPS {

namespace loop_detail {

// n elements of rows of `width`, each with its row's number. Of what was stored a moment ago no more is read than was
// stored at once: it would be waited for.
template <class T, int n, int width>
ADAFACTOR_INLINE Group<T, n> spread_rows(const T* rows) {
  Group<T, n> group;
  if constexpr (n <= width) {
    group = fill_group<T, n>(rows[0]);
  } else if constexpr (n > kNativeWidth<T>) {
    group.low = spread_rows<T, n / 2, width>(rows);
    group.high = spread_rows<T, n / 2, width>(rows + n / 2 / width);
  } else {
    group = group_of<T, n>([&](int i) ADAFACTOR_INLINE_LAMBDA { return rows[i / width]; });
  }
  return group;
}

}  // namespace loop_detail

// U with the factors of the rows from some row on, and with those of the columns, as a function for one run.
template <class T, int width>
class ShortRowU {
 public:
  ShortRowU(const T* rows, const T* cols) : rows_(rows) {
    for (int lane = 0; lane < kLanes; ++lane) cols_[lane] = cols[lane % width];
    all_cols_ = load<T>(cols_, Full{});
  }

  ADAFACTOR_INLINE Lanes<T> operator()(const Lanes<T>& g, std::int64_t i, Full) const {
    return (g * Lanes<T>{loop_detail::spread_rows<T, kLanes, width>(rows_ + i / width)}) * all_cols_;
  }
  // The end of a run takes fewer than sixteen.
  template <class Numbers, class Amount>
  ADAFACTOR_INLINE Numbers operator()(const Numbers& g, std::int64_t i, Amount amount) const {
    T rows[kLanes] = {};
    for (int k = 0; k < count_of(amount); ++k) rows[k] = rows_[(i + k) / width];
    return (g * load<T>(rows, amount)) * load<T>(cols_ + i % kLanes, amount);
  }

 private:
  template <int n>
  static constexpr int count_of(Exactly<n>) {
    return n;
  }
  static constexpr int count_of(One) { return 1; }
  static constexpr int count_of(Part part) { return part.count; }

  const T* rows_;
  T cols_[kLanes];
  Lanes<T> all_cols_;
};

// The factors of a range of such rows, and with them U.
template <class T, int width>
class ShortRowFactors {
 public:
  ShortRowFactors(const Leaf& leaf, const Tile&, double scale)
      : moments_(static_cast<const T*>(leaf.at.row_moment)),
        mean_(leaf.at.mean_moment[0]),
        scale_(leaf.gradient_scale() * leaf.found.norm_factor * scale),
        u_of_(factors_, static_cast<const T*>(leaf.at.col_factor)) {}

  ShortRowFactors(const ShortRowFactors&) = delete;  // U knows where the factors are
  ShortRowFactors& operator=(const ShortRowFactors&) = delete;

  // A range has at most so many rows.
  static constexpr std::int64_t most_rows(const Leaf&) { return kBlock / width; }

  // Makes the factors of these rows.
  void prepare(RowRange range) { store_row_factors(moments_ + range.first, mean_, scale_, factors_, range.count); }

  // Calls body(u_of) with U as a function of lanes.
  template <class Body>
  ADAFACTOR_INLINE void with_lanes(const Body& body) const {
    body(u_of_);
  }

 private:
  const T* moments_;
  double mean_;
  double scale_;
  ShortRowU<T, width> u_of_;
  T factors_[std::size_t{kBlock / width + kLanes}];
};

}}  // namespace adafactor::ADAFACTOR_LOOPS

#include "adafactor/compiler/exact_end.hpp"
