// The shape of small slices, sixteen of which go through a loop together. Most are those of square kernels: there the
// compiler knows the shape, and the loops over rows and columns, which are no longer than this, cost nothing.
#pragma once

#include <cstdint>
#include <cstring>

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

// Calls body(slice, count) for the slices of a tile, of which sixteen, or fewer at its end, go through a loop together.
template <class Body>
ADAFACTOR_INLINE void for_groups_of_slices(const Tile& tile, const Body& body) {
  const std::int64_t end = tile.slice + tile.slices;
  for (std::int64_t slice = tile.slice; slice < end; slice += kLanes) {
    body(slice, end - slice < kLanes ? static_cast<int>(end - slice) : kLanes);
  }
}

// Reads sixteen numbers, each `apart` after the last.
template <class T>
ADAFACTOR_INLINE Lanes<T> load_apart(const T* from, std::int64_t apart) {
  return {loop_detail::group_of<T, kLanes>([&](int i) ADAFACTOR_INLINE_LAMBDA {
    T one;
    std::memcpy(&one, from + i * apart, sizeof one);
    return one;
  })};
}

// to[lane][k] = from[k][lane], for `lanes` runs of n numbers that follow each other.
template <class T>
ADAFACTOR_OWN_FRAME void gather_from_lanes(const T* from, int n, int lanes, T* to) {
  for (int lane = 0; lane < lanes; ++lane) {
    for (int k = 0; k < n; ++k) std::memcpy(to++, from + k * kLanes + lane, sizeof(T));
  }
}

// What fold() gives, of sixteen sums at once: `count` vectors have a number of each. Overwrites them.
ADAFACTOR_INLINE Lanes<double> fold_vectors(double* vectors, int count) {
  if (ADAFACTOR_COMPILED_ONCE && count <= 4) {  // so few are added up in registers
    Lanes<double> even = load<double>(vectors, Full{});
    if (count == 1) return even;
    Lanes<double> odd = load<double>(vectors + kLanes, Full{});
    if (count > 2) even = even + load<double>(vectors + 2 * kLanes, Full{});
    if (count > 3) odd = odd + load<double>(vectors + 3 * kLanes, Full{});
    return even + odd;
  }
  for (int half = kLanes / 2; half >= 1; half /= 2) {
    for (int i = half; i < count; ++i) {
      double* sum = vectors + (i - half) * kLanes;
      store(sum, load<double>(sum, Full{}) + load<double>(vectors + i * kLanes, Full{}), Full{});
    }
    if (count > half) count = half;
  }
  return load<double>(vectors, Full{});
}

}}  // namespace adafactor::ADAFACTOR_LOOPS

#include "adafactor/compiler/exact_end.hpp"
