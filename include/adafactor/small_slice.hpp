// The shape of small slices, sixteen of which go through a loop together. Most are those of square kernels: there the
// compiler knows the shape, and the loops over rows and columns, which are no longer than this, cost nothing.
#pragma once

#include "adafactor/exact_begin.hpp"
#include "adafactor/lanes.hpp"
#include "adafactor/leaf.hpp"
#include "adafactor/storage.hpp"

namespace adafactor::inline ADAFACTOR_LOOPS {

// Of any shape.
struct SmallSlice {
  static constexpr int most = kLanes - 1;  // rows, and columns
  int rows;
  int cols;
};

// Of a square.
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
    return body(SmallSlice{static_cast<int>(leaf.rows), static_cast<int>(leaf.cols)});
  } else {
    if (leaf.rows == size && leaf.cols == size) return body(SquareSlice<size>{});
    return with_small_slice<T, size - 1>(leaf, body);
  }
}

}  // namespace adafactor::inline ADAFACTOR_LOOPS

#include "adafactor/exact_end.hpp"
