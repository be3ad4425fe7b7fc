// How a leaf is factored: its shape becomes slices x rows x cols, or one long row that is not factored.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <string>
#include <vector>

#include "adafactor/config.hpp"
#include "adafactor/plan/leaf_plan.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI {

// "(3, 4)", as Python writes a shape.
ADAFACTOR_FUNCTION std::string shape_text(const std::int64_t* shape, std::size_t rank);

// More elements than the memory of any machine has room for, and so few that sums of their bytes stay in 64 bits.
inline constexpr std::int64_t kMostElements = std::int64_t{1} << 48;

// The number of elements; throws Error where there are more than kMostElements. Moments of a leaf without elements may
// have some, so extents of 0 do not hide how long the others are.
ADAFACTOR_FUNCTION std::int64_t checked_size(const std::vector<std::int64_t>& shape);

// The layout of a shape of any rank from 0 by the rule in `config.factored`: unfactored below two axes, with
// Factored::off, and where an axis is shorter than `min_dim_size_to_factor`. Source: Shazeer and Stern 2018, section 3,
// for two axes; the rules for more are those of Keras, of optax and of timm.
ADAFACTOR_FUNCTION Layout make_layout(const std::vector<std::int64_t>& shape, const Config& config);

// The layout of a part, of this shape, of a leaf that is laid out so.
ADAFACTOR_FUNCTION Layout part_of(const Layout& whole, const std::vector<std::int64_t>& shape);

// The groups that cut the slices, rows and columns of a leaf, from those that cut its axes.
ADAFACTOR_FUNCTION Cuts cuts_of(const Layout& layout, const std::vector<std::uint32_t>& split);

}}  // namespace adafactor::ADAFACTOR_ABI

#if ADAFACTOR_DEFINES_STEP

namespace adafactor { inline namespace ADAFACTOR_ABI {

ADAFACTOR_RARE ADAFACTOR_FUNCTION std::string shape_text(const std::int64_t* shape, std::size_t rank) {
  std::string text = "(";
  for (std::size_t axis = 0; axis < rank; ++axis) {
    text += (axis ? ", " : "") + std::to_string(shape[axis]);
  }
  return text + (rank == 1 ? ",)" : ")");
}

ADAFACTOR_RARE ADAFACTOR_FUNCTION std::int64_t checked_size(const std::vector<std::int64_t>& shape) {
  std::int64_t size = 1;
  bool empty = false;
  for (const std::int64_t extent : shape) {
    if (extent < 0) throw Error({.expected = "extents >= 0", .found = "extent " + std::to_string(extent)});
    empty = empty || extent == 0;
  }
  for (const std::int64_t extent : shape) {
    if (extent == 0) continue;
    if (size > kMostElements / extent) {
      throw Error({.expected = "at most 2**48 elements", .found = "shape " + shape_text(shape.data(), shape.size())});
    }
    size *= extent;
  }
  return empty ? 0 : size;
}

namespace detail {

struct FactoredAxes {
  int row = -1;
  int col = -1;
};

// The two largest axes: sorted by (size, index) the largest is the column axis, so of equal ones the later is.
inline FactoredAxes largest_two(const std::vector<std::int64_t>& shape) {
  FactoredAxes axes{-1, 0};
  const auto at = [&](int axis) { return shape[static_cast<std::size_t>(axis)]; };
  for (int axis = 1; axis < static_cast<int>(shape.size()); ++axis) {
    if (at(axis) >= at(axes.col)) {
      axes = {axes.col, axis};
    } else if (axes.row < 0 || at(axis) >= at(axes.row)) {
      axes.row = axis;
    }
  }
  return axes;
}

inline FactoredAxes choose_axes(const std::vector<std::int64_t>& shape, Factored rule, std::int64_t min_size) {
  const int rank = static_cast<int>(shape.size());
  if (rank < 2 || rule == Factored::off) return {};
  const auto long_enough = [&](FactoredAxes axes) {
    return shape[static_cast<std::size_t>(axes.row)] >= min_size &&
           shape[static_cast<std::size_t>(axes.col)] >= min_size;
  };
  const FactoredAxes last_two{rank - 2, rank - 1};
  if (rule == Factored::leading_two_or_last_two && long_enough({0, 1})) return {0, 1};
  const FactoredAxes axes = rule == Factored::largest_two ? largest_two(shape) : last_two;
  return long_enough(axes) ? axes : FactoredAxes{};
}

// What an axis of a leaf is part of: the slices, rows or columns of something that has these three.
template <class Parts>
auto& of_axis(const Layout& layout, std::size_t axis, Parts& parts) {
  const auto index = static_cast<int>(axis);
  if (layout.factored && index == layout.row_axis) return parts.rows;
  return !layout.factored || index == layout.col_axis ? parts.cols : parts.slices;
}

}  // namespace detail

ADAFACTOR_RARE ADAFACTOR_FUNCTION Layout make_layout(const std::vector<std::int64_t>& shape, const Config& config) {
  Layout layout;
  const auto axes = detail::choose_axes(shape, config.factored, config.min_dim_size_to_factor);
  layout.factored = axes.row >= 0;
  layout.row_axis = axes.row;
  layout.col_axis = axes.col;
  return part_of(layout, shape);
}

ADAFACTOR_RARE ADAFACTOR_FUNCTION Layout part_of(const Layout& whole, const std::vector<std::int64_t>& shape) {
  Layout part = whole;
  part.slices = part.rows = part.cols = 1;
  for (std::size_t axis = 0; axis < shape.size(); ++axis) detail::of_axis(whole, axis, part) *= shape[axis];
  return part;
}

ADAFACTOR_RARE ADAFACTOR_FUNCTION Cuts cuts_of(const Layout& layout, const std::vector<std::uint32_t>& split) {
  Cuts cuts;
  for (std::size_t axis = 0; axis < split.size(); ++axis) detail::of_axis(layout, axis, cuts) |= split[axis];
  return cuts;
}

}}  // namespace adafactor::ADAFACTOR_ABI

#endif  // ADAFACTOR_DEFINES_STEP
