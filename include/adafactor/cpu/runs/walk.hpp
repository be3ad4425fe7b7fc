// From an array of any strides and storage to runs and back: where a row begins, and the copies into and out of a
// buffer in L1.
#pragma once

#include <cstdint>
#include <cstring>

#include "adafactor/lanes/lanes.hpp"
#include "adafactor/lanes/run.hpp"
#include "adafactor/lanes/stored.hpp"
#include "adafactor/order.hpp"
#include "adafactor/step/leaf.hpp"

namespace adafactor { inline namespace ADAFACTOR_LOOPS {

// The offset, in elements, of the index-th place along axes of which the last runs fastest.
ADAFACTOR_DEVICE inline std::int64_t offset_along(const Axis* axes, int rank, std::int64_t index) {
  std::int64_t offset = 0;
  ADAFACTOR_KEEP_ROLLED
  for (int k = rank - 1; k > 0; --k) {
    offset += index % axes[k].extent * axes[k].stride;
    index /= axes[k].extent;
  }
  return rank > 0 ? offset + index * axes[0].stride : 0;
}

// How far ahead of a tile's elements memory is asked for, in bytes: some elements on where its rows follow each other,
// some rows on, in the same column, where other elements lie between them.
inline std::ptrdiff_t ahead_of(const Walk& walk, const Leaf& leaf, const Tile& tile) {
  constexpr std::ptrdiff_t page = 4096;
  constexpr std::int64_t worth_it = 1024;  // of a shorter row asking for pages costs more than it saves
  const std::int64_t row = tile.cols * item_size(walk.dtype);
  const std::ptrdiff_t ahead = leaf.at.asks_for_pages && row >= worth_it ? page : bytes_ahead();
  if (ahead == 0 || tile.rows == 1 || (walk.whole && tile.cols == leaf.shape.cols)) return ahead;
  return (ahead + row - 1) / row * walk.row_stride * item_size(walk.dtype);
}

// One row of an array.
struct Row {
  std::byte* data = nullptr;
  const Axis* axes = nullptr;
  int rank = 0;
  DType dtype = DType::float32;
  bool contiguous = false;
  std::ptrdiff_t ahead = 0;

  // The elements from `first` on, where they lie side by side and are stored as T.
  template <class T>
  T* at(std::int64_t first) const {
    return reinterpret_cast<T*>(data) + first;
  }
  // The same, to be read.
  template <class T>
  Run<T> run(std::int64_t first) const {
    return {at<const T>(first), ahead};
  }
  template <class T>
  bool is_run_of() const {
    return contiguous && dtype == dtype_of<T>;
  }
};

// One slice of an array, from which its rows are cheap to get.
class Slice {
 public:
  Slice(const Walk& walk, std::int64_t slice, std::ptrdiff_t ahead = 0)
      : first_{nullptr, walk.col_axes, walk.col_rank, walk.dtype, walk.contiguous, ahead},
        row_bytes_(walk.row_stride * item_size(walk.dtype)) {
    if (walk.data) {
      first_.data = walk.data + offset_along(walk.slice_axes, walk.slice_rank, slice) * item_size(walk.dtype);
    }
  }

  bool exists() const { return first_.data != nullptr; }
  bool contiguous() const { return first_.contiguous; }
  DType dtype() const { return first_.dtype; }
  // Whether loops in T read and write the rows where they lie.
  template <class T>
  bool is_direct() const {
    return first_.contiguous && has_loops<T>(first_.dtype);
  }
  Row row(std::int64_t index) const {
    Row row = first_;
    row.data += index * row_bytes_;
    return row;
  }

 private:
  Row first_;
  std::int64_t row_bytes_;
};

// All elements of an array that lie side by side.
inline Row whole_row(const Walk& walk) { return {walk.data, nullptr, 0, walk.dtype, true, bytes_ahead()}; }

namespace loop_detail {

// Calls body(element, i) for the n elements from `first` on, which are stored as S. They are read and written by
// memcpy, since nobody promises that an array is aligned.
template <class S, class Body>
void for_elements(const Row& row, std::int64_t first, std::int64_t n, const Body& body) {
  const Axis* last = row.axes + (row.rank - 1);
  if (row.rank <= 0) {
    for (std::int64_t i = 0; i < n; ++i) body(row.at<S>(0), i);
    return;
  }
  for (std::int64_t i = 0; i < n;) {
    const std::int64_t inner = (first + i) % last->extent;
    const std::int64_t count = last->extent - inner < n - i ? last->extent - inner : n - i;
    S* start = row.at<S>(offset_along(row.axes, row.rank, first + i));
    for (std::int64_t k = 0; k < count; ++k) body(start + k * last->stride, i + k);
    i += count;
  }
}

}  // namespace loop_detail

// Copies and converts a run that lies side by side.
template <class S, class T>
void convert_run(Run<S> from, T* to, std::int64_t n) {
  from.ask(0, n);
  for_each(
      n, [&](std::int64_t i, auto amount) ADAFACTOR_INLINE_LAMBDA { store(to + i, load<T>(from, i, amount), amount); });
}

namespace loop_detail {

template <class T>
Run<T> copy_into(const Row& row, std::int64_t first, std::int64_t n, T* buffer) {
  with_storage<T>(row.dtype, [&](auto storage) {
    using S = typename decltype(storage)::type;
    if (row.contiguous) {
      convert_run(row.run<S>(first), buffer, n);
    } else {
      for_elements<const S>(row, first, n, [&](const S* from, std::int64_t i) { buffer[i] = load<T>(from, One{}); });
    }
  });
  return buffer;
}

}  // namespace loop_detail

// n elements of a row from `first` on, as a contiguous run: in place, or copied into the buffer.
template <class T>
ADAFACTOR_INLINE Run<T> read_run(const Row& row, std::int64_t first, std::int64_t n, T* buffer) {
  return row.is_run_of<T>() ? row.run<T>(first) : loop_detail::copy_into(row, first, n, buffer);
}

// Reads such a run into the buffer in any case.
template <class T>
void read_into(T* buffer, const Row& row, std::int64_t first, std::int64_t n) {
  if (const T* run = read_run(row, first, n, buffer).at; run != buffer) {
    std::memcpy(buffer, run, static_cast<std::size_t>(n) * sizeof(T));
  }
}

// n elements of the buffer into a row from `first` on, rounded to nearest where it is stored in fewer bits.
template <class T>
void write_run(const Row& row, std::int64_t first, std::int64_t n, const T* buffer) {
  with_storage<T>(row.dtype, [&](auto storage) {
    using S = typename decltype(storage)::type;
    if (row.contiguous) {
      for_each(n, [&](std::int64_t i, auto amount)
                      ADAFACTOR_INLINE_LAMBDA { store(row.at<S>(first) + i, load<T>(buffer + i, amount), amount); });
    } else {
      loop_detail::for_elements<S>(row, first, n, [&](S* to, std::int64_t i) { store(to, buffer[i], One{}); });
    }
  });
}

// n elements, as they are stored, into a row from `first` on.
template <class S>
void write_elements(const Row& row, std::int64_t first, std::int64_t n, const S* elements) {
  if (row.contiguous) {
    std::memcpy(row.at<S>(first), elements, static_cast<std::size_t>(n) * sizeof(S));
  } else {
    loop_detail::for_elements<S>(row, first, n,
                                 [&](S* to, std::int64_t i) { std::memcpy(to, elements + i, sizeof(S)); });
  }
}

// At most a block of the elements of one row into another of the same type, to the bit.
template <class S>
void copy_elements(const Row& from, const Row& to, std::int64_t first, std::int64_t n) {
  S buffer[kBlock];
  if (!from.contiguous) {
    loop_detail::for_elements<const S>(
        from, first, n, [&](const S* element, std::int64_t i) { std::memcpy(buffer + i, element, sizeof(S)); });
  }
  write_elements(to, first, n, from.contiguous ? from.at<const S>(first) : buffer);
}
template <class T>
void copy_run(const Row& from, const Row& to, std::int64_t first, std::int64_t n) {
  with_storage<T>(from.dtype,
                  [&](auto storage) { copy_elements<typename decltype(storage)::type>(from, to, first, n); });
}

}}  // namespace adafactor::ADAFACTOR_LOOPS
