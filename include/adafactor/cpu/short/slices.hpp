// The shape of small slices, sixteen of which go through a loop together. Most are those of square kernels: there the
// compiler knows the shape, and the loops over rows and columns, which are no longer than this, cost nothing.
#pragma once

#include "adafactor/lanes/lanes.hpp"
#include "adafactor/lanes/stored.hpp"
#include "adafactor/step/leaf.hpp"

#include "adafactor/compiler/exact_begin.hpp"

namespace adafactor { inline namespace ADAFACTOR_LOOPS {

// A slice whose shape is known when the step runs.
struct SmallSlice {
  static constexpr int most = kLanes - 1;  // rows, and columns
  int rows;
  int cols;
};

// A square slice, whose shape the compiler knows.
template <int size>
struct SquareSlice {
  static constexpr int most = size;
  static constexpr int rows = size;
  static constexpr int cols = size;
};

// The largest square that the compiler knows; larger kernels are rare.
inline constexpr int kLargestSquare = 5;

// Calls body(shape) with that of a leaf's slices.
template <class T, int size = kSpecialLoops<T> ? kLargestSquare : 0, class Body>
ADAFACTOR_INLINE auto with_small_slice(const Leaf& leaf, const Body& body) {
  if constexpr (size == 0) {
    return body(SmallSlice{static_cast<int>(leaf.shape.rows), static_cast<int>(leaf.shape.cols)});
  } else {
    if (leaf.shape.rows == size && leaf.shape.cols == size) return body(SquareSlice<size>{});
    return with_small_slice<T, size - 1>(leaf, body);
  }
}

}}  // namespace adafactor::ADAFACTOR_LOOPS

#include "adafactor/compiler/exact_end.hpp"
