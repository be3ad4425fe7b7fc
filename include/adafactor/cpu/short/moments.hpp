// Phase `moments` for leaves whose rows are shorter than the lanes: the sums of a row keep the order that longer rows
// have, but sixteen rows, or sixteen slices where they are small too, go through the loops together.
#pragma once

#include <cstdint>
#include <cstring>

#include "adafactor/cpu/runs/cells.hpp"
#include "adafactor/cpu/runs/gradient.hpp"
#include "adafactor/cpu/runs/loops.hpp"
#include "adafactor/cpu/short/rows.hpp"
#include "adafactor/cpu/short/slice_factors.hpp"
#include "adafactor/cpu/short/slices.hpp"
#include "adafactor/step/leaf.hpp"
#include "adafactor/step/totals.hpp"

#include "adafactor/compiler/exact_begin.hpp"

namespace adafactor { inline namespace ADAFACTOR_LOOPS { namespace loop_detail {

// Sixteen rows of a tile, or fewer at its end, of at most `width` numbers, or of just as many where they are `exact`.
// No wider than needed: what was stored in another shape is slow to read again.
template <class T, int width, bool exact>
class RowGroup {
 public:
  explicit RowGroup(const Leaf& leaf) : leaf_(leaf), scale_(static_cast<T>(leaf.gradient_scale())) {}

  // Reads at most sixteen rows.
  ADAFACTOR_INLINE void read(RowRange rows) {
    count_ = static_cast<int>(rows.count);
    g_ = read_gradient_rows(leaf_, rows, squares_);
    g_.ask(0, rows.count * leaf_.shape.cols);
    if constexpr (!exact) {  // a row is read beyond its end, of what is the group's own
      const std::int64_t n = rows.count * leaf_.shape.cols;
      for_each(n, [&](std::int64_t i, auto amount)
                      ADAFACTOR_INLINE_LAMBDA { store(squares_ + i, square(load<T>(g_, i, amount)), amount); });
      store(squares_ + n, fill(T{}), Full{});  // what is read past the last row
    }
  }

  // row_sums <- the sums of the squares of the rows; totals <- totals + those of the columns, which are made in T;
  // those past the last column mean nothing.
  ADAFACTOR_INLINE void add_up(double* row_sums, double* totals) const {
    constexpr Exactly<width> amount;
    constexpr T places[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const std::int64_t cols = leaf_.shape.cols;
    const auto zeros = fill<T, width>(T{});
    const auto end = fill<T, width>(static_cast<T>(cols));
    const auto place = load<T>(places, amount);
    auto sums = zeros;
    const auto add_row = [&](int row) ADAFACTOR_INLINE_LAMBDA {
      if constexpr (exact) {
        const auto squares = square(load<T>(g_, row * width, amount));
        sums = sums + squares;
        return fold(squares);
      } else {
        const auto squares = load<T>(squares_ + row * cols, amount);
        sums = sums + squares;
        return fold(select_less(place, end, squares, zeros));
      }
    };
    int row = 0;
    if constexpr (ADAFACTOR_COMPILED_ONCE) {
      for (; row + 8 <= count_; row += 8) {
        store(row_sums + row, Lanes<double, 8>{group_of<double, 8>(add_row, row)}, Exactly<8>{});
      }
    }
    for (; row < count_; ++row) row_sums[row] = add_row(row);
    store(totals, load<double>(totals, amount) + widen(sums), amount);
  }

 private:
  template <class Numbers>
  ADAFACTOR_INLINE Numbers square(const Numbers& g) const {
    const Numbers x = g * scale_;
    return x * x;
  }

  const Leaf& leaf_;
  int count_ = 0;
  T scale_;
  Run<T> g_ = nullptr;
  T squares_[kRowGroup * kLanes + kLanes];
};

// A tile's part of one slice.
template <class T, int width, bool exact>
ADAFACTOR_OWN_FRAME void add_narrow_slice(const Leaf& leaf, const Tile& tile, std::int64_t slice,
                                          TileSquares& squares) {
  const std::int64_t cols = exact ? width : leaf.shape.cols;
  T* means = static_cast<T*>(leaf.at.row_moment) + slice * leaf.shape.rows;
  RowGroup<T, width, exact> group(leaf);
  double column_totals[kLanes] = {};
  Total of_slice;
  for (std::int64_t done = 0; done < tile.rows; done += kRowGroup) {
    const std::int64_t left = tile.rows - done;
    const auto count = static_cast<int>(left < kRowGroup ? left : kRowGroup);
    const std::int64_t row = tile.row + done;
    group.read({slice * leaf.shape.rows + row, count});
    double sums[kRowGroup];
    group.add_up(sums, column_totals);
    const double cell = sum_of(sums, count);
    squares.clipped.add(cell);
    if (leaf.shape.tiles_hold_slices()) of_slice.add(cell);
    if (!leaf.at.row_partial) {
      store_means(sums, static_cast<double>(cols), means + row, count);
    } else {  // rows that are short are not cut by tiles
      std::memcpy(leaf.at.row_partial + slice * leaf.shape.rows + row, sums,
                  static_cast<std::size_t>(count) * sizeof(double));
    }
  }
  if (leaf.shape.tiles_hold_slices()) leaf.at.mean_moment[slice] = of_slice.sum();
  if (!(squares.clipped.sum() < kSafeTotal<T>)) squares.spoilt += 0 * sum_of(column_totals, cols);
  if (!leaf.at.col_partial) {
    store_means(column_totals, static_cast<double>(leaf.shape.rows), static_cast<T*>(leaf.at.col_moment) + slice * cols,
                cols);
  } else {
    double* partial = leaf.at.col_partial + (slice * leaf.shape.row_blocks + tile.row_block) * cols;
    std::memcpy(partial, column_totals, static_cast<std::size_t>(cols) * sizeof(double));
  }
}

// The function for rows of so many.
template <class T>
auto narrow_slice_adder(std::int64_t cols) {
  if constexpr (kSpecialLoops<T>) {
    if (cols == 8) return &add_narrow_slice<T, 8, true>;
    if (cols == 4) return &add_narrow_slice<T, 4, true>;
    if (cols < 4) return &add_narrow_slice<T, 4, false>;
    if (cols < 8) return &add_narrow_slice<T, 8, false>;
  }
  return &add_narrow_slice<T, 16, false>;
}

// The elements of at most sixteen slices, in `buffer` unless they lie in the gradient; those that are not there zero.
template <class T>
ADAFACTOR_OWN_FRAME const T* read_slices(const Leaf& leaf, std::int64_t slice, int count, T* buffer) {
  const std::int64_t size = leaf.shape.rows * leaf.shape.cols;
  if (count == kLanes && !leaf.links_gradient() && leaf.at.gradient.whole &&
      whole_row(leaf.at.gradient).is_run_of<T>()) {
    return whole_row(leaf.at.gradient).at<const T>(slice * size);
  }
  const auto nbytes = static_cast<std::size_t>(size) * sizeof(T);
  if (count < kLanes) std::memset(buffer, 0, kLanes * nbytes);
  for (int lane = 0; lane < count; ++lane) {
    T* to = buffer + lane * size;
    const T* g = read_gradient_rows(leaf, {(slice + lane) * leaf.shape.rows, leaf.shape.rows}, to).at;
    if (g != to) std::memcpy(to, g, nbytes);
  }
  return buffer;
}

// A tile of small slices, sixteen at a time: lane = place of the slice in the tile mod 16.
template <class T, class Shape>
class SmallSliceMoments {
 public:
  SmallSliceMoments(const Leaf& leaf, const Tile& tile, Shape shape) : leaf_(leaf), tile_(tile), shape_(shape) {}

  // Adds the squares of the tile. Two groups of sixteen slices are a cell. Writes its row and column means, or gives
  // them to `make_factors`, if there is such, group by group.
  ADAFACTOR_OWN_FRAME void operator()(TileSquares& squares, SliceFactors<T, Shape>* make_factors) {
    Lanes<double> cell = fill(0.0);
    for_groups_of_slices(tile_, [&](std::int64_t slice, int count) ADAFACTOR_INLINE_LAMBDA {
      cell = cell + add_up(read_slices(leaf_, slice, count, buffer_));
      const std::int64_t done = slice - tile_.slice + kLanes;
      if (done / kLanes % 2 == 0 || done >= tile_.slices) {
        squares.clipped.add(fold(cell));
        cell = fill(0.0);
      }
      if (ADAFACTOR_COMPILED_ONCE && make_factors) {
        (*make_factors)(slice, count, row_means_, col_means_);
      } else {
        gather_from_lanes(row_means_, shape_.rows, count, static_cast<T*>(leaf_.at.row_moment) + slice * shape_.rows);
        gather_from_lanes(col_means_, shape_.cols, count, static_cast<T*>(leaf_.at.col_moment) + slice * shape_.cols);
      }
    });
    if (!(squares.clipped.sum() < kSafeTotal<T>)) squares.spoilt += 0 * fold(columns_total_);
  }

 private:
  // The squares of each slice.
  Lanes<double> add_up(const T* elements) {
    Lanes<double> of_slices = fill(0.0);
    const int size = shape_.rows * shape_.cols;
    const T scale = static_cast<T>(leaf_.gradient_scale());
    for (int i = 0; i < shape_.cols; ++i) store(col_sums_ + i * kLanes, fill(T{}), Full{});
    for (int row = 0; row < shape_.rows; ++row) {
      for (int i = 0; i < shape_.cols; ++i) {
        const Lanes<T> x = load_apart(elements++, size) * scale;
        const Lanes<T> square = x * x;
        T* column = col_sums_ + i * kLanes;
        store(column, load<T>(column, Full{}) + square, Full{});
        store(vectors_ + i * kLanes, widen(square), Full{});
      }
      const Lanes<double> sum = fold_vectors(vectors_, shape_.cols);
      of_slices = of_slices + sum;
      store(row_means_ + row * kLanes, sum / static_cast<double>(shape_.cols), Full{});
    }
    for (int i = 0; i < shape_.cols; ++i) {
      const Lanes<double> sum = load<double>(col_sums_ + i * kLanes, Full{});
      columns_total_ = columns_total_ + sum;
      store(col_means_ + i * kLanes, sum / static_cast<double>(shape_.rows), Full{});
    }
    return of_slices;
  }

  const Leaf& leaf_;
  const Tile& tile_;
  Shape shape_;
  Lanes<double> columns_total_ = fill(0.0);
  T buffer_[Shape::most * Shape::most * kLanes];
  T row_means_[Shape::most * kLanes];
  T col_means_[Shape::most * kLanes];
  T col_sums_[Shape::most * kLanes];
  double vectors_[Shape::most * kLanes] = {};
};

// The first phase on a tile of small slices; `sums`, if any, gets the ranges of the moments that are made along with
// it.
template <class T>
void moments_of_slices(const Leaf& leaf, const Tile& tile, TileSquares& squares, TileSums* sums) {
  with_small_slice<T>(leaf, [&](auto shape) {
    SliceFactors<T, decltype(shape)> make_factors(leaf, shape);
    SmallSliceMoments<T, decltype(shape)>(leaf, tile, shape)(squares, sums ? &make_factors : nullptr);
    if (sums) make_factors.add_ranges(*sums);
  });
}

// The squares of a tile's G before it was clipped by value; each run is a cell.
template <class T>
void add_narrow_squares_before_clipping(const Leaf& leaf, const Tile& tile, TileSquares& squares) {
  const T scale = static_cast<T>(leaf.gradient_scale());
  T buffer[kBlock];
  for_row_ranges(leaf, tile, rows_of_run(leaf), [&](RowRange rows) {
    double cell = 0;
    add_squares(read_gradient_rows(leaf, rows, buffer, false), scale, rows.count * leaf.shape.cols, &cell);
    squares.before_clipping.add(cell);
  });
}

// The first phase on one tile of short rows of long slices, of any layout: the order of the sums must not depend on it.
template <class T>
ADAFACTOR_OWN_FRAME void narrow_moments(const Leaf& leaf, const Tile& tile, TileSquares& squares) {
  const auto add_slice = narrow_slice_adder<T>(leaf.shape.cols);
  for (std::int64_t slice = tile.slice; slice < tile.slice + tile.slices; ++slice) {
    add_slice(leaf, tile, slice, squares);
  }
}

}}}  // namespace adafactor::ADAFACTOR_LOOPS::loop_detail

#include "adafactor/compiler/exact_end.hpp"
