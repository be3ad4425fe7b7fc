// How the phases read a gradient: run by run, in place where it can be, otherwise through a buffer in L1 where the
// gradient links have made G of it.
#pragma once

#include <cstdint>
#include <cstring>

#include "adafactor/links.hpp"
#include "adafactor/walk.hpp"

namespace adafactor::inline ADAFACTOR_ABI {

template <class T>
class GradientRow {
 public:
  GradientRow(const Leaf& leaf, std::int64_t slice, std::int64_t row)
      : leaf_(leaf), row_(row_of<const T>(leaf.gradient, slice, row)), linked_(leaf.links_gradient()) {
    if (leaf.accumulates) {
      accumulator_ = static_cast<const T*>(leaf.before.accumulator) + (slice * leaf.rows + row) * leaf.cols;
    }
  }

  // What the elements of a run still have to be multiplied by to be G.
  static double scale(const Leaf& leaf) { return leaf.links_gradient() ? 1 : leaf.multiplier; }

  // Whether runs lie in memory as they are and may be longer than a block.
  bool in_place() const { return row_.contiguous && !linked_; }

  // A run of G before clipping by value; with links it lies in the buffer (of at least n, at most kBlock elements).
  const T* unclipped(std::int64_t first, std::int64_t n, T* buffer) const {
    if (!linked_) return read_run(row_, first, n, buffer);
    if (!row_.data) {
      std::memset(buffer, 0, static_cast<std::size_t>(n) * sizeof(T));
    } else if (const T* run = read_run(row_, first, n, buffer); run != buffer) {
      std::memcpy(buffer, run, static_cast<std::size_t>(n) * sizeof(T));
    }
    const T multiplier = static_cast<T>(leaf_.multiplier);
    if (leaf_.accumulates) {
      add_accumulator(buffer, accumulator_ + first, multiplier, static_cast<T>(leaf_.mean_factor), n);
    } else {
      multiply(buffer, multiplier, n);
    }
    return buffer;
  }

  // A run of G.
  const T* operator()(std::int64_t first, std::int64_t n, T* buffer) const {
    const T* run = unclipped(first, n, buffer);
    if (leaf_.clip_value > 0) clip_by_value(buffer, static_cast<T>(leaf_.clip_value), n);
    return run;
  }

 private:
  const Leaf& leaf_;
  Row<const T> row_;
  const T* accumulator_ = nullptr;
  bool linked_;
};

}  // namespace adafactor::inline ADAFACTOR_ABI
