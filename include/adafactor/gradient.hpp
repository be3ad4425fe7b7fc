// How the phases read a gradient: run by run, in place where it can be, otherwise through a buffer in L1 where the
// gradient links have made G of it.
#pragma once

#include <cstdint>
#include <cstring>

#include "adafactor/links.hpp"
#include "adafactor/walk.hpp"

namespace adafactor::inline ADAFACTOR_ABI {

// The gradient of one slice of a leaf.
template <class T>
class Gradient {
 public:
  Gradient(const Leaf& leaf, std::int64_t slice)
      : leaf_(leaf), slice_(leaf.gradient, slice), linked_(leaf.links_gradient()) {
    if (leaf.accumulates) {
      accumulator_ = static_cast<const T*>(leaf.before.accumulator) + slice * leaf.rows * leaf.cols;
    }
  }

  // What the elements of a run still have to be multiplied by to be G.
  static double scale(const Leaf& leaf) { return leaf.links_gradient() ? 1 : leaf.multiplier; }

  // Whether runs lie in memory as they are, in whatever type, and may be longer than a block.
  bool in_place() const { return slice_.contiguous() && !linked_; }

  // The elements of a row from `first` on, where they are in place and stored as S.
  template <class S>
  const S* at(std::int64_t row, std::int64_t first) const {
    return slice_.row(row).at<const S>(first);
  }

  // A run of G before clipping by value; with links it lies in the buffer (of at least n, at most kBlock elements).
  const T* unclipped(std::int64_t row, std::int64_t first, std::int64_t n, T* buffer) const {
    return linked_ ? linked(row, first, n, buffer) : read_run(slice_.row(row), first, n, buffer);
  }

  // A run of G.
  const T* run(std::int64_t row, std::int64_t first, std::int64_t n, T* buffer) const {
    const T* g = unclipped(row, first, n, buffer);
    if (leaf_.clip_value > 0) clip_by_value(buffer, static_cast<T>(leaf_.clip_value), n);
    return g;
  }

 private:
  const T* linked(std::int64_t row, std::int64_t first, std::int64_t n, T* buffer) const {
    if (!slice_.exists()) {
      std::memset(buffer, 0, static_cast<std::size_t>(n) * sizeof(T));
    } else {
      read_into(buffer, slice_.row(row), first, n);
    }
    const T multiplier = static_cast<T>(leaf_.multiplier);
    if (leaf_.accumulates) {
      const T* accumulator = accumulator_ + row * leaf_.cols + first;
      add_accumulator(buffer, accumulator, multiplier, static_cast<T>(leaf_.mean_factor), n);
    } else {
      multiply(buffer, multiplier, n);
    }
    return buffer;
  }

  const Leaf& leaf_;
  Slice slice_;
  const T* accumulator_ = nullptr;
  bool linked_;
};

}  // namespace adafactor::inline ADAFACTOR_ABI
