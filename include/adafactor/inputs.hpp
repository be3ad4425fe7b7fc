// The caller's arrays at the door: each is held against the plan before a phase sees it, and then laid out in the order
// of its leaf's layout. Bad input never reaches a loop.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "adafactor/plan.hpp"
#include "adafactor/tensor.hpp"

namespace adafactor::inline ADAFACTOR_ABI {

namespace detail {

// The strides of a view in elements; those of C order are written into `buffer` where the view has none.
inline const std::int64_t* strides_of(const TensorView& view, std::int64_t (&buffer)[kMaxRank]) {
  if (view.strides) return view.strides;
  std::int64_t stride = 1;
  for (int axis = view.rank - 1; axis >= 0; --axis) {
    buffer[axis] = stride;
    stride *= view.shape[axis];
  }
  return buffer;
}

}  // namespace detail

// The view in the order of the layout. `axes` has room for the larger of 1 and the rank, and outlives the walk.
ADAFACTOR_FUNCTION Walk make_walk(const TensorView& view, const Layout& layout, Axis* axes);

// Throws Error{role, leaf, expected, found} unless the view is what the plan says of the leaf.
ADAFACTOR_FUNCTION void check_view(const TensorView& view, const LeafPlan& plan, Role role, std::int64_t leaf);

}  // namespace adafactor::inline ADAFACTOR_ABI

#if ADAFACTOR_DEFINES_STEP

namespace adafactor::inline ADAFACTOR_ABI {

namespace detail {

// Appends an axis; one of which the last appended is the continuation becomes part of it.
inline void append_axis(Axis* axes, int& rank, std::int64_t extent, std::int64_t stride) {
  if (extent == 1) return;
  if (rank > 0 && axes[rank - 1].stride == extent * stride) {
    axes[rank - 1] = {axes[rank - 1].extent * extent, stride};
  } else {
    axes[rank++] = {extent, stride};
  }
}

}  // namespace detail

ADAFACTOR_FUNCTION Walk make_walk(const TensorView& view, const Layout& layout, Axis* axes) {
  Walk walk;
  walk.data = static_cast<std::byte*>(view.data);
  walk.dtype = view.dtype;
  std::int64_t buffer[kMaxRank] = {};
  const std::int64_t* strides = detail::strides_of(view, buffer);
  if (layout.factored) {
    walk.row_stride = strides[layout.row_axis];
    for (int axis = 0; axis < view.rank; ++axis) {
      if (axis == layout.row_axis || axis == layout.col_axis) continue;
      detail::append_axis(axes, walk.slice_rank, view.shape[axis], strides[axis]);
    }
    walk.slice_axes = axes;
    walk.col_axes = axes + walk.slice_rank;
    detail::append_axis(axes + walk.slice_rank, walk.col_rank, layout.cols, strides[layout.col_axis]);
  } else {
    for (int axis = 0; axis < view.rank; ++axis) {
      detail::append_axis(axes, walk.col_rank, view.shape[axis], strides[axis]);
    }
    walk.col_axes = axes;
  }
  walk.contiguous = walk.col_rank == 0 || (walk.col_rank == 1 && walk.col_axes[0].stride == 1);
  const bool rows_touch = layout.rows == 1 || walk.row_stride == layout.cols;
  const bool slices_touch =
      walk.slice_rank == 0 || (walk.slice_rank == 1 && walk.slice_axes[0].stride == layout.rows * layout.cols);
  walk.whole = walk.contiguous && rows_touch && slices_touch;
  return walk;
}

ADAFACTOR_FUNCTION void check_view(const TensorView& view, const LeafPlan& plan, Role role, std::int64_t leaf) {
  const std::vector<std::int64_t>& shape = plan.spec.shape;
  // A gradient is held against its parameter, which the message names; a parameter against what the state was made for.
  const bool written = role == Role::params;
  const auto of_state = [&] { return std::string(written ? " as in the state" : ""); };
  const auto refuse = [&](ErrorKind kind, const std::string& expected, const std::string& found) {
    throw Error({.kind = kind, .role = name(role), .leaf = leaf, .expected = expected, .found = found});
  };
  if (written ? view.dtype != plan.spec.dtype : !takes_gradient(plan.spec.dtype, view.dtype)) {
    const char* expected = written ? name(plan.spec.dtype) : gradients_of(plan.spec.dtype);
    refuse(ErrorKind::type, expected + of_state(), std::string("dtype ") + name(view.dtype));
  }
  if (view.rank != static_cast<int>(shape.size()) || !std::equal(shape.begin(), shape.end(), view.shape)) {
    refuse(ErrorKind::value, shape_text(shape.data(), shape.size()) + of_state(),
           "shape " + shape_text(view.shape, static_cast<std::size_t>(view.rank)));
  }
  if (view.device.type != DeviceType::cpu) refuse(ErrorKind::value, "an array in the CPU's memory", "a device array");
  if (!view.strides) return;
  const std::int64_t item = item_size(view.dtype);
  std::int64_t reach = 1;  // from the first element to the last, in elements
  for (int axis = 0; axis < view.rank && plan.layout.size() > 0; ++axis) {
    const std::int64_t steps = view.shape[axis] - 1;
    const std::int64_t stride = view.strides[axis] < 0 ? -(view.strides[axis] + 1) : view.strides[axis];
    if (steps > 0 && stride > ((std::numeric_limits<std::int64_t>::max)() / item - reach) / steps) {
      refuse(ErrorKind::value, "strides within 64 bits", "a stride of " + counted(view.strides[axis], " elements"));
    }
    reach += steps * stride;
  }
}

}  // namespace adafactor::inline ADAFACTOR_ABI

#endif  // ADAFACTOR_DEFINES_STEP
