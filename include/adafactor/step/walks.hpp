// The caller's arrays in the order of their leaves' layouts.
#pragma once

#include <cstddef>
#include <cstdint>

#include "adafactor/plan/leaf_plan.hpp"
#include "adafactor/step/leaf.hpp"
#include "adafactor/tensor.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI {

// The view in the order of the layout. `axes` has room for the larger of 1 and the rank, and outlives the walk.
ADAFACTOR_FUNCTION Walk make_walk(const TensorView& view, const Layout& layout, Axis* axes);

}}  // namespace adafactor::ADAFACTOR_ABI

#if ADAFACTOR_DEFINES_STEP

namespace adafactor { inline namespace ADAFACTOR_ABI {

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

}}  // namespace adafactor::ADAFACTOR_ABI

#endif  // ADAFACTOR_DEFINES_STEP
