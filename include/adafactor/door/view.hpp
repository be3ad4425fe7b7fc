// The caller's arrays at the door: each is held against the plan before a phase sees it. Bad input never reaches a
// loop.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "adafactor/error.hpp"
#include "adafactor/plan/layout.hpp"
#include "adafactor/tensor.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI {

// What keeps a view from being stepped on a device; `found` is empty where nothing does.
struct Obstacle {
  ErrorKind kind = ErrorKind::value;
  std::string expected;
  std::string found;
};

// It lies elsewhere, or has elements that a GPU cannot load.
ADAFACTOR_FUNCTION Obstacle obstacle_of(const TensorView& view, Device device);

// Nothing where its elements lie at multiples of their size. Where it has none its address means nothing.
ADAFACTOR_FUNCTION Obstacle misalignment_of(const TensorView& view);

// Throws Error{role, leaf, expected, found} unless the view is what the plan says of the leaf, and lies on the device.
ADAFACTOR_FUNCTION void check_view(const TensorView& view, const LeafPlan& plan, Role role, std::int64_t leaf,
                                   Device device = {});

}}  // namespace adafactor::ADAFACTOR_ABI

#if ADAFACTOR_DEFINES_STEP

namespace adafactor { inline namespace ADAFACTOR_ABI {

ADAFACTOR_EACH_CALL ADAFACTOR_FUNCTION Obstacle obstacle_of(const TensorView& view, Device device) {
  const auto place = [](Device each) {
    return (each.type == DeviceType::cpu ? "an array in " : "an array on ") + words(each);
  };
  if (view.device != device) return {ErrorKind::value, place(device), place(view.device)};
  return device.type == DeviceType::cpu ? Obstacle{} : misalignment_of(view);
}

ADAFACTOR_EACH_CALL ADAFACTOR_FUNCTION Obstacle misalignment_of(const TensorView& view) {
  const auto item = static_cast<std::uintptr_t>(item_size(view.dtype));
  const bool is_empty = std::find(view.shape, view.shape + view.rank, 0) != view.shape + view.rank;
  if (is_empty || reinterpret_cast<std::uintptr_t>(view.data) % item == 0) return {};
  return {ErrorKind::buffer, "elements at multiples of their size", "a misaligned array"};
}

ADAFACTOR_EACH_CALL ADAFACTOR_FUNCTION void check_view(const TensorView& view, const LeafPlan& plan, Role role,
                                                       std::int64_t leaf, Device device) {
  const std::vector<std::int64_t>& shape = plan.spec.shape;
  // A gradient is held against its parameter, which the message names; a parameter against what the state was made for.
  const bool written = role == Role::params;
  const auto of_state = [&] { return std::string(written ? " as in the state" : ""); };
  const auto refuse = [&](ErrorKind kind, const std::string& expected, const std::string& found) {
    throw Error({.kind = kind, .role = name(role), .leaf = leaf, .expected = expected, .found = found});
  };
  if (written ? view.dtype != plan.spec.dtype : !takes_gradient(plan.spec.dtype, view.dtype)) {
    const DTypes expected = written ? only(plan.spec.dtype) : gradients_of(plan.spec.dtype);
    refuse(ErrorKind::type, words(expected) + of_state(), std::string("dtype ") + name(view.dtype));
  }
  if (view.rank != static_cast<int>(shape.size()) || !std::equal(shape.begin(), shape.end(), view.shape)) {
    refuse(ErrorKind::value, shape_text(shape.data(), shape.size()) + of_state(),
           "shape " + shape_text(view.shape, static_cast<std::size_t>(view.rank)));
  }
  const Obstacle obstacle = obstacle_of(view, device);
  if (!obstacle.found.empty()) refuse(obstacle.kind, obstacle.expected, obstacle.found);
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

}}  // namespace adafactor::ADAFACTOR_ABI

#endif  // ADAFACTOR_DEFINES_STEP
