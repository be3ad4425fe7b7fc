// How the phases read a gradient: run by run, in place where it can be, otherwise through a buffer in L1 where the
// gradient links have made G of it.
#pragma once

#include <cstdint>
#include <cstring>

#include "adafactor/cpu/runs/links.hpp"
#include "adafactor/cpu/runs/loops.hpp"
#include "adafactor/cpu/runs/walk.hpp"
#include "adafactor/cpu/short/rows.hpp"

namespace adafactor { inline namespace ADAFACTOR_LOOPS {

// buffer <- G of n elements of a row from `first` on. Where loops read the row in place, the
// buffer may be the accumulator itself: each element is read before it is written.
template <class T>
void make_gradient(const Row& row, std::int64_t first, std::int64_t n, const GradientLinks<T>& links, T* buffer) {
  if (row.contiguous && has_loops<T>(row.dtype)) {
    with_loops<T>(row.dtype, [&](auto storage) {
      using G = typename decltype(storage)::type;
      store_gradient(row.run<G>(first), links, buffer, n);
    });
  } else {
    store_gradient(read_run(row, first, n, buffer), links, buffer, n);
  }
}

// The gradient of one slice of a leaf.
template <class T>
class Gradient {
 public:
  Gradient(const Leaf& leaf, std::int64_t slice, std::ptrdiff_t ahead = 0)
      : leaf_(leaf),
        slice_(leaf.at.gradient, slice, ahead),
        first_element_(slice * leaf.shape.rows * leaf.shape.cols),
        linked_(leaf.links_gradient()) {}

  // Whether loops read runs as they lie in memory, in whatever type, and through the links where there are any; such
  // runs may be longer than a block.
  bool is_direct() const { return slice_.is_direct<T>() && (!linked_ || loops_read_links<T>(slice_.dtype())); }
  // Whether they do, and there are no links.
  bool is_bare() const { return slice_.is_direct<T>() && !linked_; }

  DType dtype() const { return slice_.dtype(); }

  // The elements of a row from `first` on, where they are direct and stored as S.
  template <class S>
  Run<S> at(std::int64_t row, std::int64_t first) const {
    return slice_.row(row).run<S>(first);
  }

  // The links of a row's elements from `first` on.
  GradientLinks<T> links(std::int64_t row, std::int64_t first, bool clips = true) const {
    return gradient_links<T>(leaf_, first_element_ + row * leaf_.shape.cols + first, clips);
  }

  // A run of G, or of G before clipping by value; with links it lies in the buffer (of at least n, at most kBlock
  // elements).
  Run<T> run(std::int64_t row, std::int64_t first, std::int64_t n, T* buffer, bool clips = true) const {
    if (!slice_.exists()) {
      std::memset(buffer, 0, static_cast<std::size_t>(n) * sizeof(T));
      if (linked_) store_gradient(Run<T>(buffer), links(row, first, clips), buffer, n);
      return buffer;
    }
    if (!linked_) return read_run(slice_.row(row), first, n, buffer);
    make_gradient(slice_.row(row), first, n, links(row, first, clips), buffer);
    return buffer;
  }
  Run<T> unclipped(std::int64_t row, std::int64_t first, std::int64_t n, T* buffer) const {
    return run(row, first, n, buffer, false);
  }

 private:
  const Leaf& leaf_;
  Slice slice_;
  std::int64_t first_element_;
  bool linked_;
};

// Adds the squares of what a slice's gradient is before it is clipped by value, times a scale, of at most a block.
template <class T>
void add_gradient_squares(const Gradient<T>& gradient, T scale, std::int64_t row, std::int64_t first, std::int64_t n,
                          double* sum) {
  if (gradient.is_bare()) {
    with_loops<T>(gradient.dtype(), [&](auto storage) {
      add_squares(gradient.template at<typename decltype(storage)::type>(row, first), scale, n, sum);
    });
  } else {
    T buffer[kBlock];
    add_squares(gradient.unclipped(row, first, n, buffer), scale, n, sum);
  }
}

namespace loop_detail {

template <class T>
Run<T> copy_rows(const Leaf& leaf, const Walk& walk, RowRange range, T* buffer) {
  for_slices(leaf, range, [&](std::int64_t slice, std::int64_t row, std::int64_t count, std::int64_t offset) {
    const Slice from(walk, slice);
    for (std::int64_t r = 0; r < count; ++r) {
      read_into(buffer + (offset + r) * leaf.shape.cols, from.row(row + r), 0, leaf.shape.cols);
    }
  });
  return buffer;
}

template <class T>
Run<T> make_gradient_rows(const Leaf& leaf, RowRange range, T* buffer, bool clips) {
  if (leaf.at.gradient.data && leaf.at.gradient.whole) {
    const std::int64_t first = range.first * leaf.shape.cols;
    const std::int64_t n = range.count * leaf.shape.cols;
    make_gradient(whole_row(leaf.at.gradient), first, n, gradient_links<T>(leaf, first, clips), buffer);
    return buffer;
  }
  for_slices(leaf, range, [&](std::int64_t slice, std::int64_t row, std::int64_t count, std::int64_t offset) {
    const Gradient<T> gradient(leaf, slice);
    for (std::int64_t r = 0; r < count; ++r) {
      T* to = buffer + (offset + r) * leaf.shape.cols;
      const T* g = gradient.run(row + r, 0, leaf.shape.cols, to, clips).at;
      if (g != to) std::memcpy(to, g, static_cast<std::size_t>(leaf.shape.cols) * sizeof(T));
    }
  });
  return buffer;
}

}  // namespace loop_detail

// The rows of a range as one run: in place, or copied into the buffer.
template <class T>
ADAFACTOR_INLINE Run<T> read_rows(const Leaf& leaf, const Walk& walk, RowRange range, T* buffer) {
  if (walk.whole)
    return read_run(whole_row(walk), range.first * leaf.shape.cols, range.count * leaf.shape.cols, buffer);
  return loop_detail::copy_rows(leaf, walk, range, buffer);
}

// The rows of a range of G, or of G before it is clipped by value, as one run.
template <class T>
ADAFACTOR_INLINE Run<T> read_gradient_rows(const Leaf& leaf, RowRange range, T* buffer, bool clips = true) {
  if (!leaf.links_gradient() && leaf.at.gradient.data) return read_rows(leaf, leaf.at.gradient, range, buffer);
  return loop_detail::make_gradient_rows(leaf, range, buffer, clips);
}

}}  // namespace adafactor::ADAFACTOR_LOOPS
