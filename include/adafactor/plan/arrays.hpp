// How an array of a state is laid out, for whoever hands one out or brings one along.
#pragma once

#include <cstddef>
#include <cstdint>

#include "adafactor/plan/leaf_plan.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI {

// Whether an array of this kind has an axis of its leaf; the means over an axis lack it.
inline bool has_axis(StateKind kind, const Layout& layout, int axis) {
  if (kind == StateKind::row) return axis != layout.col_axis;
  if (kind == StateKind::col) return axis != layout.row_axis;
  return true;
}

// Its shape, with the leaf's axes; those that it lacks are 1 long.
inline void shape_of_state(const LeafPlan& leaf, StateKind kind, std::int64_t* shape) {
  for (std::size_t axis = 0; axis < leaf.spec.shape.size(); ++axis) {
    shape[axis] = has_axis(kind, leaf.layout, static_cast<int>(axis)) ? leaf.spec.shape[axis] : 1;
  }
}

// The strides of these axes, in elements: in memory the slice axes come first, then rows, then columns, without gaps.
inline void strides_of_state(const LeafPlan& leaf, StateKind kind, std::int64_t* strides) {
  std::int64_t next = 1;
  const auto place = [&](int axis) {
    if (axis < 0) return;
    const auto index = static_cast<std::size_t>(axis);
    strides[index] = next;
    if (has_axis(kind, leaf.layout, axis)) next *= leaf.spec.shape[index];
  };
  place(leaf.layout.col_axis);
  place(leaf.layout.row_axis);
  for (int axis = static_cast<int>(leaf.spec.shape.size()) - 1; axis >= 0; --axis) {
    if (axis != leaf.layout.col_axis && axis != leaf.layout.row_axis) place(axis);
  }
}

}}  // namespace adafactor::ADAFACTOR_ABI
