// Phase `moments` for leaves whose rows are shorter than the lanes: the sums of a row keep the order that longer rows
// have, but the loops run along the columns (of many rows one after the other) or, where slices are small too, along
// sixteen slices at a time.
#pragma once

#include <cstdint>
#include <cstring>

#include "adafactor/exact_begin.hpp"
#include "adafactor/gradient.hpp"
#include "adafactor/kernels.hpp"
#include "adafactor/leaf.hpp"
#include "adafactor/narrow.hpp"

namespace adafactor::inline ADAFACTOR_ABI {

// Column sums are kept in T over this many rows, then added up in double.
inline constexpr std::int64_t kRowGroup = 16;

namespace detail {

// The total of squares above which some column's sum may have left T although no row's has.
template <class T>
inline constexpr double kSafeTotal = sizeof(T) == 4 ? 1e38 : 1e307;

// A tile of one slice, or of a part of one. Means of rows are made for many at a time.
template <class T, int cols>
class NarrowMoments {
 public:
  NarrowMoments(const Leaf& leaf, const Tile& tile)
      : leaf_(leaf), tile_(tile), scale_(static_cast<T>(Gradient<T>::scale(leaf))) {}

  // The sum of squares of the tile; writes its row and column sums.
  double operator()() {
    for (std::int64_t slice = tile_.slice; slice < tile_.slice + tile_.slices; ++slice) add_slice(slice);
    return total_;
  }

 private:
  void add_slice(std::int64_t slice) {
    const Slice<const T> gradient(leaf_.gradient, slice);
    const std::int64_t end = tile_.row + tile_.rows;
    T* means = static_cast<T*>(leaf_.row_moment) + slice * leaf_.rows + tile_.row;
    double totals[cols] = {};
    for (std::int64_t row = tile_.row; row < end; row += kRowGroup) {
      T sums[cols] = {};
      for (std::int64_t r = row; r < end && r < row + kRowGroup; ++r) add_row(gradient.row(r).data, sums);
      for (int i = 0; i < cols; ++i) totals[i] += static_cast<double>(sums[i]);
      if (rows_ > kBlock - kRowGroup) means = finish_rows(means);
    }
    finish_rows(means);
    if (!(total_ < kSafeTotal<T>)) total_ += 0 * sum_of(totals, cols);
    if (leaf_.row_blocks == 1) {
      store_means(totals, static_cast<double>(leaf_.rows), static_cast<T*>(leaf_.col_moment) + slice * cols, cols);
    } else {
      double* partial = leaf_.col_partial + (slice * leaf_.row_blocks + tile_.row_block) * cols;
      std::memcpy(partial, totals, sizeof totals);
    }
  }

  ADAFACTOR_INLINE void add_row(const T* g, T (&sums)[cols]) {
    double lanes[cols];
    for (int i = 0; i < cols; ++i) {
      const T x = load<T>(g + i, One{}) * scale_;
      const T square = x * x;
      sums[i] += square;
      lanes[i] = static_cast<double>(square);
    }
    row_sums_[rows_++] = fold_few<cols>(lanes);
  }

  // Writes the means of the rows so far and returns where the next ones belong.
  T* finish_rows(T* means) {
    total_ += sum_of(row_sums_, rows_);
    store_means(row_sums_, static_cast<double>(cols), means, rows_);
    means += rows_;
    rows_ = 0;
    return means;
  }

  const Leaf& leaf_;
  const Tile& tile_;
  T scale_;
  double total_ = 0;
  std::int64_t rows_ = 0;
  double row_sums_[kBlock];
};

// A tile of small slices, sixteen at a time: lane = place of the slice in the tile mod 16.
template <class T, int cols>
class SmallSliceMoments {
 public:
  SmallSliceMoments(const Leaf& leaf, const Tile& tile) : leaf_(leaf), tile_(tile), rows_(static_cast<int>(leaf.rows)) {}

  // The sum of squares of the tile; writes its row and column means.
  double operator()() {
    const std::int64_t end = tile_.slice + tile_.slices;
    for (std::int64_t slice = tile_.slice; slice < end; slice += kLanes) {
      const int count = end - slice < kLanes ? static_cast<int>(end - slice) : kLanes;
      read(slice, count);
      add_up();
      write(row_means_, static_cast<T*>(leaf_.row_moment) + slice * rows_, rows_, count);
      write(col_means_, static_cast<T*>(leaf_.col_moment) + slice * cols, cols, count);
    }
    const double total = fold(total_);
    return total < kSafeTotal<T> ? total : total + 0 * fold(columns_total_);
  }

 private:
  // elements_[element of a slice][lane]
  void read(std::int64_t slice, int count) {
    if (count < kLanes) std::memset(elements_, 0, sizeof elements_);
    for (int lane = 0; lane < count; ++lane) {
      const Slice<const T> gradient(leaf_.gradient, slice + lane);
      T* to = elements_ + lane;
      for (int row = 0; row < rows_; ++row) {
        const T* g = gradient.row(row).data;
        for (int i = 0; i < cols; ++i, to += kLanes) *to = load<T>(g + i, One{});
      }
    }
  }

  void add_up() {
    const T scale = static_cast<T>(Gradient<T>::scale(leaf_));
    for (int i = 0; i < cols; ++i) store(col_sums_ + i * kLanes, fill(T{}), Full{});
    for (int row = 0; row < rows_; ++row) {
      Lanes<double> lanes[cols];
      for (int i = 0; i < cols; ++i) {
        const Lanes<T> x = load<T>(elements_ + (row * cols + i) * kLanes, Full{}) * scale;
        const Lanes<T> square = x * x;
        T* column = col_sums_ + i * kLanes;
        store(column, load<T>(column, Full{}) + square, Full{});
        lanes[i] = widen(square);
      }
      const Lanes<double> sum = fold_few<cols>(lanes);
      total_ = total_ + sum;
      store(row_means_ + row * kLanes, sum / static_cast<double>(cols), Full{});
    }
    for (int i = 0; i < cols; ++i) {
      const Lanes<double> sum = load<double>(col_sums_ + i * kLanes, Full{});
      columns_total_ = columns_total_ + sum;
      store(col_means_ + i * kLanes, sum / static_cast<double>(rows_), Full{});
    }
  }

  // From [element][lane] to the order of the state.
  static void write(const T* from, T* to, int elements, int count) {
    for (int lane = 0; lane < count; ++lane) {
      for (int i = 0; i < elements; ++i) *to++ = from[i * kLanes + lane];
    }
  }

  const Leaf& leaf_;
  const Tile& tile_;
  int rows_;
  Lanes<double> total_ = fill(0.0);
  Lanes<double> columns_total_ = fill(0.0);
  T elements_[kLanes * cols * kLanes];
  T row_means_[kLanes * kLanes];
  T col_means_[cols * kLanes];
  T col_sums_[cols * kLanes];
};

// The first phase on one tile of short rows that each lie in one piece.
template <class T>
double narrow_moments(const Leaf& leaf, const Tile& tile) {
  double total = 0;
  with_constant(leaf.cols, [&](auto cols) {
    total = has_small_slices(leaf) ? SmallSliceMoments<T, cols.value>(leaf, tile)()
                                   : NarrowMoments<T, cols.value>(leaf, tile)();
  });
  return total;
}

}  // namespace detail

}  // namespace adafactor::inline ADAFACTOR_ABI

#include "adafactor/exact_end.hpp"
