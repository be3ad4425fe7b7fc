// Where the elements of a run lie, and the arrays of the caller's read and written there, in any type and with any
// strides: each thread finds the address of its own element.
#pragma once

#include <cstddef>
#include <cstdint>

#include "adafactor/cpu/runs/philox.hpp"
#include "adafactor/cpu/runs/walk.hpp"
#include "adafactor/dtype.hpp"
#include "adafactor/lanes/lanes.hpp"
#include "adafactor/lanes/stored.hpp"
#include "adafactor/step/leaf.hpp"
#include "cells.hpp"
#include "threads.hpp"

namespace adafactor::cuda {

// A run of one row of a slice, from a column on.
class RowPlaces {
 public:
  ADAFACTOR_KERNEL RowPlaces(const LeafShape& shape, std::int64_t slice, std::int64_t row, std::int64_t col)
      : slice_(slice), row_(row), col_(col), first_((slice * shape.rows + row) * shape.cols + col) {}

  // The number of its first element in the order of the state.
  ADAFACTOR_KERNEL std::int64_t first() const { return first_; }
  // The offset of its i-th element in an array.
  ADAFACTOR_KERNEL std::int64_t offset(const Walk& walk, std::int64_t i) const {
    const std::int64_t begin = offset_along(walk.slice_axes, walk.slice_rank, slice_) + row_ * walk.row_stride;
    return begin + (walk.contiguous ? col_ + i : offset_along(walk.col_axes, walk.col_rank, col_ + i));
  }

 private:
  std::int64_t slice_, row_, col_, first_;
};

// A run of whole short rows that follow each other, slice after slice; at most a block of elements.
class RowsPlaces {
 public:
  ADAFACTOR_KERNEL RowsPlaces(const LeafShape& shape, std::int64_t first_row)
      : shape_(shape),
        slice_(first_row / shape.rows),
        row_(first_row - slice_ * shape.rows),
        first_(first_row * shape.cols),
        cols_(static_cast<int>(shape.cols)) {}

  struct Place {
    std::int64_t slice;
    std::int64_t row;
    int col;
  };

  ADAFACTOR_KERNEL std::int64_t first() const { return first_; }
  // Of the i-th element. A run has no more than a block of rows, so that small numbers are divided.
  ADAFACTOR_KERNEL Place at(std::int64_t i) const {
    const int rows_on = static_cast<int>(i) / cols_;
    Place place{slice_, row_ + rows_on, static_cast<int>(i) - rows_on * cols_};
    if (shape_.rows >= kBlock) {
      if (place.row >= shape_.rows) {
        place.row -= shape_.rows;
        ++place.slice;
      }
    } else {
      const int slices_on = static_cast<int>(place.row) / static_cast<int>(shape_.rows);
      place.slice += slices_on;
      place.row -= slices_on * shape_.rows;
    }
    return place;
  }
  ADAFACTOR_KERNEL std::int64_t offset(const Walk& walk, std::int64_t i) const {
    if (walk.whole) return first_ + i;
    const Place place = at(i);
    return RowPlaces(shape_, place.slice, place.row, place.col).offset(walk, 0);
  }

 private:
  const LeafShape& shape_;
  std::int64_t slice_;
  std::int64_t row_;
  std::int64_t first_;
  int cols_;
};

// The numbers of an array at the places of a run, as numbers of T; where there is no array they are zero.
template <class T, class Places>
class Numbers {
 public:
  ADAFACTOR_KERNEL Numbers(const Walk& walk, const Places& places) : walk_(walk), places_(places) {}

  ADAFACTOR_KERNEL void ask(std::int64_t, std::int64_t) const {}
  ADAFACTOR_KERNEL Numbers from(std::int64_t first) const { return {walk_, places_, first_ + first}; }

  ADAFACTOR_KERNEL T at(std::int64_t i) const {
    if (!walk_.data) return T{};
    T number{};
    const std::int64_t offset = places_.offset(walk_, first_ + i);
    with_storage<T>(walk_.dtype, [&](auto storage) {
      using S = typename decltype(storage)::type;
      number = load<T>(reinterpret_cast<const S*>(walk_.data) + offset, One{});
    });
    return number;
  }

 private:
  ADAFACTOR_KERNEL Numbers(const Walk& walk, const Places& places, std::int64_t first)
      : walk_(walk), places_(places), first_(first) {}

  const Walk& walk_;
  const Places& places_;
  std::int64_t first_ = 0;
};

template <class T, class Places, class Amount>
ADAFACTOR_KERNEL Lanes<T> load(const Numbers<T, Places>& numbers, std::int64_t i, Amount amount) {
  return {{has_lane(amount) ? numbers.at(i + lane()) : T{}}};
}

// The rows of a cell, of an array that is stored as S and has the elements of a row side by side.
template <class S>
class CellRows {
 public:
  ADAFACTOR_KERNEL CellRows(const Walk& walk, const LeafShape& shape, const Cell& cell)
      : first_(reinterpret_cast<S*>(walk.data) + RowPlaces(shape, cell.slice, cell.row, cell.col).offset(walk, 0)),
        stride_(walk.row_stride) {}

  ADAFACTOR_KERNEL S* operator[](std::int64_t row) const { return in_device_memory(first_ + row * stride_); }

 private:
  S* first_;
  std::int64_t stride_;
};

// Writes one number; `element` is what its noise depends on. It is not a part of each loop that calls it, since it is
// long and takes the compiler long.
template <class T>
ADAFACTOR_KERNEL_CALL T write_number(std::byte* array, std::int64_t offset, DType dtype, T number, const Rule& rule,
                                     std::int64_t element) {
  with_storage<T>(dtype, [&](auto storage) {
    using S = typename decltype(storage)::type;
    S* to = reinterpret_cast<S*>(array) + offset;
    if constexpr (Formatted<S>) {
      if (rule.rounds_by_noise) {
        *to = round_to<S>(static_cast<float>(number), noise_of(rule.noise, element));
        number = load<T>(static_cast<const S*>(to), One{});
        return;
      }
    }
    store(to, number, One{});
    number = load<T>(static_cast<const S*>(to), One{});
  });
  return number;
}

// The outputs at the places of a run.
template <class T, class Places>
class Outputs {
 public:
  ADAFACTOR_KERNEL Outputs(const Leaf& leaf, const Places& places) : leaf_(leaf), places_(places) {}

  // Writes one, rounded to nearest or by noise where it is stored in fewer bits. Returns what it is then.
  ADAFACTOR_KERNEL T write(std::int64_t i, T number) const {
    const Walk& walk = leaf_.at.parameter_out;
    const bool by_noise = leaf_.rule.rounds_by_noise;
    const std::int64_t element = by_noise ? leaf_.rule.noise.first + places_.offset(leaf_.at.elements, i) : 0;
    return write_number(walk.data, places_.offset(walk, i), walk.dtype, number, leaf_.rule, element);
  }

  // Writes the parameter as it is, to the bit.
  ADAFACTOR_KERNEL void copy(std::int64_t i) const {
    const Walk& from = leaf_.at.parameter;
    const Walk& to = leaf_.at.parameter_out;
    with_storage<T>(from.dtype, [&](auto storage) {
      using S = typename decltype(storage)::type;
      reinterpret_cast<S*>(to.data)[places_.offset(to, i)] =
          reinterpret_cast<const S*>(from.data)[places_.offset(from, i)];
    });
  }

 private:
  const Leaf& leaf_;
  const Places& places_;
};

}  // namespace adafactor::cuda
