// The pieces that leaves are cut into.
#pragma once

#include <cstdint>

#include "adafactor/compiler/abi.hpp"

namespace adafactor { inline namespace ADAFACTOR_DATA {

// A half-open range of indices.
struct Indices {
  std::int64_t first = 0;
  std::int64_t last = 0;
};

// A part of a leaf: rows and columns of one slice, or whole slices. Its shape depends on the leaf's shape alone.
struct Tile {
  std::int64_t leaf = 0;
  std::int64_t slice = 0, slices = 0;
  std::int64_t row = 0, rows = 0;
  std::int64_t col = 0, cols = 0;
  std::int64_t row_block = 0, col_block = 0;

  ADAFACTOR_ALWAYS_INLINE std::int64_t size() const { return slices * rows * cols; }
};

// What the parts of a leaf add up, for a part of this shape: where each kind of numbers begins among those of the leaf.
struct SharedNumbers {
  std::int64_t slices = 0;
  std::int64_t rows = 0;
  std::int64_t cols = 0;

  static constexpr std::int64_t kTotals = 3;   // the sum of G^2; whether there is a gradient; 1
  static constexpr std::int64_t kSquares = 2;  // the sums of U^2 and of P^2

  ADAFACTOR_ALWAYS_INLINE std::int64_t totals() const { return 0; }
  ADAFACTOR_ALWAYS_INLINE std::int64_t squares() const { return kTotals; }
  ADAFACTOR_ALWAYS_INLINE std::int64_t slice_squares() const { return squares() + kSquares; }    // [slice], of g^2
  ADAFACTOR_ALWAYS_INLINE std::int64_t old_moments() const { return slice_squares() + slices; }  // [slice], of R
  ADAFACTOR_ALWAYS_INLINE std::int64_t row_sums() const { return old_moments() + slices; }       // [slice][row]
  ADAFACTOR_ALWAYS_INLINE std::int64_t col_sums() const { return row_sums() + slices * rows; }   // [slice][col]
  ADAFACTOR_ALWAYS_INLINE std::int64_t count() const { return col_sums() + slices * cols; }
};

}}  // namespace adafactor::ADAFACTOR_DATA
