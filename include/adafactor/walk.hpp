// From an array of any strides to runs and back: where a row begins, and the copies into and out of a buffer in L1.
#pragma once

#include <cstdint>

#include "adafactor/kernels.hpp"
#include "adafactor/leaf.hpp"
#include "adafactor/links.hpp"

namespace adafactor::inline ADAFACTOR_ABI {

// The offset, in elements, of the index-th place along axes of which the last runs fastest.
inline std::int64_t offset_along(const Axis* axes, int rank, std::int64_t index) {
  std::int64_t offset = 0;
  for (int k = rank - 1; k > 0; --k) {
    offset += index % axes[k].extent * axes[k].stride;
    index /= axes[k].extent;
  }
  return rank > 0 ? offset + index * axes[0].stride : 0;
}

// One row of an array. T is its storage type.
template <class T>
struct Row {
  T* data = nullptr;
  const Axis* axes = nullptr;
  int rank = 0;
  bool contiguous = false;
};

// One slice of an array, from which its rows are cheap to get.
template <class T>
class Slice {
 public:
  Slice(const Walk& walk, std::int64_t slice)
      : first_{nullptr, walk.col_axes, walk.col_rank, walk.contiguous}, row_stride_(walk.row_stride) {
    if (walk.data) {
      first_.data = reinterpret_cast<T*>(walk.data) + offset_along(walk.slice_axes, walk.slice_rank, slice);
    }
  }

  bool exists() const { return first_.data != nullptr; }
  bool contiguous() const { return first_.contiguous; }
  Row<T> row(std::int64_t index) const {
    Row<T> row = first_;
    row.data += index * row_stride_;
    return row;
  }

 private:
  Row<T> first_;
  std::int64_t row_stride_;
};

namespace detail {

// Calls body(element, i) for the n elements from `first` on. Elements are read and written by memcpy, since nobody
// promises that an array is aligned.
template <class T, class Body>
void for_elements(const Row<T>& row, std::int64_t first, std::int64_t n, const Body& body) {
  const Axis* last = row.axes + (row.rank - 1);
  if (row.rank <= 0) {
    for (std::int64_t i = 0; i < n; ++i) body(row.data, i);
    return;
  }
  for (std::int64_t i = 0; i < n;) {
    const std::int64_t inner = (first + i) % last->extent;
    const std::int64_t count = last->extent - inner < n - i ? last->extent - inner : n - i;
    T* start = row.data + offset_along(row.axes, row.rank, first + i);
    for (std::int64_t k = 0; k < count; ++k) body(start + k * last->stride, i + k);
    i += count;
  }
}

}  // namespace detail

// n elements of a row from `first` on, as a contiguous run: in place, or copied into the buffer.
template <class T>
const T* read_run(const Row<const T>& row, std::int64_t first, std::int64_t n, T* buffer) {
  if (row.contiguous) return row.data + first;
  detail::for_elements(row, first, n, [&](const T* from, std::int64_t i) { std::memcpy(buffer + i, from, sizeof(T)); });
  return buffer;
}

// n elements of the buffer into a row from `first` on.
template <class T>
void write_run(const Row<T>& row, std::int64_t first, std::int64_t n, const T* buffer) {
  detail::for_elements(row, first, n, [&](T* to, std::int64_t i) { std::memcpy(to, buffer + i, sizeof(T)); });
}

}  // namespace adafactor::inline ADAFACTOR_ABI
