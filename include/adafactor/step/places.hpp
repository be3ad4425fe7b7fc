// Where the arrays of a leaf lie: its state and scratch, once; the caller's, in the order of the leaf's layout, when
// they have moved.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "adafactor/host/pages.hpp"
#include "adafactor/plan/leaf_plan.hpp"
#include "adafactor/step/leaf.hpp"
#include "adafactor/tensor.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI {

// The view in the order of the layout. `axes` has room for the larger of 1 and the rank, and outlives the walk.
ADAFACTOR_FUNCTION Walk make_walk(const TensorView& view, const Layout& layout, Axis* axes);

namespace detail {

// The arrays of a leaf's state, of which at(kind) is where each lies, or null.
template <class At>
StateArrays state_arrays(const At& at) {
  return {at(StateKind::row),      at(StateKind::col),     at(StateKind::full),
          at(StateKind::momentum), at(StateKind::average), at(StateKind::accumulator)};
}

// Those in the memory of a state.
inline StateArrays state_arrays(const LeafPlan& leaf, std::byte* memory) {
  return state_arrays([&](StateKind kind) -> void* {
    const StateArray& array = leaf.state[static_cast<std::size_t>(kind)];
    return array.exists() ? memory + array.offset : nullptr;
  });
}

// What lies where it lies in all calls: the moments of a step, and what the parts of a leaf add up.
inline void place_scratch(LeafArrays& at, const LeafPlan& plan, std::byte* moments, double* shared) {
  if (plan.is_cut()) at.shared = shared + plan.shared;
  if (!plan.layout.factored) return;
  at.row_moment = moments + plan.row_moment;
  at.col_moment = moments + plan.col_moment;
  at.col_factor = moments + plan.col_factor;
  if (plan.has_small_slices()) {
    at.row_factor = moments + plan.row_factor;
  } else {
    at.mean_moment = reinterpret_cast<double*>(moments + plan.mean_moment);
  }
}

// Where the elements of a part lie among those of its whole, from the part's first on.
inline Walk walk_of_elements(const LeafSpec& spec, const Layout& layout, Axis* axes) {
  const auto rank = static_cast<int>(spec.shape.size());
  const TensorView whole{nullptr, spec.dtype, {}, rank, spec.whole_shape().data(), nullptr};
  std::int64_t buffer[kMaxRank];
  const TensorView part{nullptr, spec.dtype, {}, rank, spec.shape.data(), strides_of(whole, buffer)};
  return make_walk(part, layout, axes);
}

// The caller's arrays. Walks are costly beside the step of a small leaf, so that none is made twice or in vain. Returns
// the next leaf's axes.
inline Axis* place_arrays(LeafArrays& at, const LeafPlan& plan, const TensorView& parameter, const TensorView& gradient,
                          const TensorView& output, bool by_noise, std::byte* moments, Axis* axes) {
  const auto room = static_cast<std::int64_t>(std::max<std::size_t>(plan.spec.shape.size(), 1));
  at.parameter = make_walk(parameter, plan.layout, axes);
  const bool in_place = output.data == parameter.data && output.strides == parameter.strides;
  at.parameter_out = in_place ? at.parameter : make_walk(output, plan.layout, axes + room);
  if (plan.moves_factors()) {
    std::byte* place = moments + plan.col_factor;
    at.col_factor = place + bytes_apart(place, output.data);
  }
  at.gradient = gradient.data ? make_walk(gradient, plan.layout, axes + 2 * room) : Walk{};
  if (by_noise) at.elements = walk_of_elements(plan.spec, plan.layout, axes + 3 * room);
  return axes + 4 * room;
}

}  // namespace detail

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
