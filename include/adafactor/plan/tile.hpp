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

}}  // namespace adafactor::ADAFACTOR_DATA
