// How the phases read a gradient: run by run, in place where it can be, otherwise through a buffer in L1 where the
// gradient links have made G of it.
#pragma once

#include <cstdint>
#include <cstring>

#include "adafactor/links.hpp"
#include "adafactor/walk.hpp"

namespace adafactor::inline ADAFACTOR_LOOPS {

// The gradient links of the elements from `first` on, in the order of the state, with or without clipping by value.
template <class T>
GradientLinks<T> gradient_links(const Leaf& leaf, std::int64_t first, bool clips = true) {
  const double limit = clips && leaf.clip_value > 0 ? leaf.clip_value : __builtin_inf();
  return {leaf.accumulates ? static_cast<const T*>(leaf.before.accumulator) + first : nullptr,
          static_cast<T>(leaf.multiplier), static_cast<T>(leaf.mean_factor), static_cast<T>(limit)};
}

// buffer <- G of n elements of a row from `first` on. Where loops read the row in place, the
// buffer may be the accumulator itself: each element is read before it is written.
template <class T>
void make_gradient(const Row& row, std::int64_t first, std::int64_t n, const GradientLinks<T>& links, T* buffer) {
  if (row.contiguous && has_loops<T>(row.dtype)) {
    with_loops<T>(row.dtype, [&](auto storage) {
      using G = typename decltype(storage)::type;
      store_gradient(row.at<const G>(first), links, buffer, n);
    });
  } else {
    store_gradient(read_run(row, first, n, buffer), links, buffer, n);
  }
}

// The gradient of one slice of a leaf.
template <class T>
class Gradient {
 public:
  Gradient(const Leaf& leaf, std::int64_t slice)
      : leaf_(leaf),
        slice_(leaf.gradient, slice),
        first_element_(slice * leaf.rows * leaf.cols),
        linked_(leaf.links_gradient()) {}

  // Whether loops read runs as they lie in memory, in whatever type; these may be longer than a block.
  bool in_place() const { return slice_.in_place<T>() && !linked_; }

  // The elements of a row from `first` on, where they are in place and stored as S.
  template <class S>
  const S* at(std::int64_t row, std::int64_t first) const {
    return slice_.row(row).at<const S>(first);
  }

  // Whether they do so through the links, where there are any.
  bool in_place_with_links() const { return slice_.in_place<T>() && (!linked_ || loops_read_links<T>(slice_.dtype())); }

  // The links of a row's elements from `first` on.
  GradientLinks<T> links(std::int64_t row, std::int64_t first, bool clips = true) const {
    return gradient_links<T>(leaf_, first_element_ + row * leaf_.cols + first, clips);
  }

  // A run of G, or of G before clipping by value; with links it lies in the buffer (of at least n, at most kBlock
  // elements).
  const T* run(std::int64_t row, std::int64_t first, std::int64_t n, T* buffer, bool clips = true) const {
    if (!slice_.exists()) {
      std::memset(buffer, 0, static_cast<std::size_t>(n) * sizeof(T));
      if (linked_) store_gradient(buffer, links(row, first, clips), buffer, n);
      return buffer;
    }
    if (!linked_) return read_run(slice_.row(row), first, n, buffer);
    make_gradient(slice_.row(row), first, n, links(row, first, clips), buffer);
    return buffer;
  }
  const T* unclipped(std::int64_t row, std::int64_t first, std::int64_t n, T* buffer) const {
    return run(row, first, n, buffer, false);
  }

 private:
  const Leaf& leaf_;
  Slice slice_;
  std::int64_t first_element_;
  bool linked_;
};

}  // namespace adafactor::inline ADAFACTOR_LOOPS
