// Leaves whose rows are shorter than the lanes, as those of a 3x3 kernel: the rows of a tile follow each other, slice
// after slice, and as many as fit in a block make one run, in which each element has its own factors beside it. Lane =
// place in the run mod 16.
#pragma once

#include <cstdint>
#include <cstring>

#include "adafactor/cpu/row_factors.hpp"
#include "adafactor/cpu/runs/loops.hpp"
#include "adafactor/cpu/short/permuted.hpp"
#include "adafactor/cpu/short/rows.hpp"
#include "adafactor/step/leaf.hpp"

#include "adafactor/compiler/exact_begin.hpp"

namespace adafactor { inline namespace ADAFACTOR_LOOPS {

// The factors of each element of one run, and with them U.
template <class T>
class NarrowFactors {
 public:
  NarrowFactors(const Leaf& leaf, const Tile& tile, double scale)
      : leaf_(leaf), scale_(leaf.gradient_scale() * leaf.found.norm_factor * scale) {
    if constexpr (kPermutes<T>) {
      permutes_ = has_small_slices(leaf) && table_.make(tile.slices, leaf.shape.rows, leaf.shape.cols);
    }
  }

  // A range has at most so many rows: those that fit in a block, and where slices are small too, whole slices.
  static std::int64_t most_rows(const Leaf& leaf) {
    const std::int64_t most = kBlock / leaf.shape.cols;
    return has_small_slices(leaf) ? most - most % leaf.shape.rows : most;
  }

  // Makes the factors of these rows.
  void prepare(RowRange range) {
    if (permutes_) {
      read_row_factors(range);
      columns_ = static_cast<const T*>(leaf_.at.col_factor) + range.first / leaf_.shape.rows * leaf_.shape.cols;
      return;
    }
    if (leaf_.shape.cols > 8) {
      prepare_rows<16>(range);
    } else if (leaf_.shape.cols > 4) {
      prepare_rows<8>(range);
    } else {
      prepare_rows<4>(range);
    }
  }

  // Calls body(u_of) with U as a function of lanes.
  template <class Body>
  ADAFACTOR_INLINE void with_lanes(const Body& body) const {
    if constexpr (kPermutes<T>) {
      if (permutes_) return body(SmallSliceTable::U<T>{factors_, columns_, table_});
    }
    body(Plain{rows_, cols_});
  }

 private:
  struct Plain {
    const T* rows;
    const T* cols;

    template <class Numbers, class Amount>
    ADAFACTOR_INLINE Numbers operator()(const Numbers& g, std::int64_t i, Amount amount) const {
      return (g * load<T>(rows + i, amount)) * load<T>(cols + i, amount);
    }
  };

  // `width` elements are written at once for each row; what is written past its end, the next row overwrites.
  template <int width>
  void prepare_rows(RowRange range) {
    const std::int64_t cols = leaf_.shape.cols;
    for_slices(leaf_, range, [&](std::int64_t slice, std::int64_t, std::int64_t count, std::int64_t offset) {
      const auto columns = loop_detail::load_group<T, width>(static_cast<const T*>(leaf_.at.col_factor) + slice * cols);
      for (std::int64_t r = offset; r < offset + count; ++r) loop_detail::store_group(cols_ + r * cols, columns);
      if (!has_small_slices(leaf_)) make_row_factors(slice, range.first + offset, count, offset);
    });
    if (has_small_slices(leaf_)) read_row_factors(range);
    spread<width>(factors_, range.count, rows_);
  }

  // Each factor to the elements of its row.
  template <int width>
  void spread(const T* factors, std::int64_t count, T* elements) const {
    for (std::int64_t r = 0; r < count; ++r) {
      loop_detail::store_group(elements + r * leaf_.shape.cols, loop_detail::fill_group<T, width>(factors[r]));
    }
  }

  // The factors of rows of one slice.
  void make_row_factors(std::int64_t slice, std::int64_t first, std::int64_t count, std::int64_t offset) {
    store_row_factors(static_cast<const T*>(leaf_.at.row_moment) + first, leaf_.at.mean_moment[slice], scale_,
                      factors_ + offset, count);
  }

  // Takes the factors of rows from those that `factors` has kept.
  void read_row_factors(RowRange range) {
    const T* kept = static_cast<const T*>(leaf_.at.row_factor) + range.first;
    scale_row_factors(kept, scale_, factors_, range.count);
  }

  const Leaf& leaf_;
  double scale_;
  bool permutes_ = false;  // small slices
  const T* columns_ = nullptr;
  SmallSliceTable table_;
  T factors_[kBlock + kLanes];
  T rows_[kBlock + kLanes];
  T cols_[kBlock + kLanes];
};

}}  // namespace adafactor::ADAFACTOR_LOOPS

#include "adafactor/compiler/exact_end.hpp"
