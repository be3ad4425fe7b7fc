// The arrays of a state that belong to somebody else, and come along with each call: each is held against the plan, if
// it has moved.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "adafactor/door/view.hpp"
#include "adafactor/error.hpp"
#include "adafactor/plan.hpp"
#include "adafactor/plan/arrays.hpp"
#include "adafactor/step/leaf.hpp"
#include "adafactor/step/places.hpp"
#include "adafactor/tensor.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI {

// Throws Error{state, leaf, expected, found} unless the view is an array of this kind that a state on the device keeps
// for the leaf: with the leaf's axes, of which the ones that a moment lacks are 1 long, and without gaps in the core's
// order.
ADAFACTOR_FUNCTION void check_lent(const TensorView& view, const LeafPlan& plan, StateKind kind, std::int64_t leaf,
                                   Device device = {});

// What is known of them from one call to the next.
class LentState {
 public:
  explicit LentState(const Plan& plan, Device device = {});

  // Takes the arrays of a call. `renew(leaf, kind, view, strides)` makes a view that of an array, its strides written
  // to `strides`, and says whether it was another. Each that was another is checked.
  template <class Renew>
  void take(const Renew& renew) {
    std::int64_t* strides = strides_.data();
    for (std::size_t i = 0; i < arrays_.size(); ++i) {
      const LeafPlan& leaf = plan_.leaves()[i];
      for (std::size_t kind = 0; kind < kStateKinds; ++kind) {
        if (!leaf.state[kind].exists()) continue;
        std::int64_t* own = std::exchange(strides, strides + leaf.spec.shape.size());
        take_one(i, static_cast<StateKind>(kind), own, renew);
      }
    }
  }

  // Those of each leaf, before a call and after it: it is in place.
  const StateSlots* arrays() const { return arrays_.data(); }
  // kStateKinds of each leaf; without data where it has none.
  std::span<const TensorView> views() const { return views_; }

 private:
  template <class Renew>
  void take_one(std::size_t leaf, StateKind kind, std::int64_t* strides, const Renew& renew) {
    TensorView& view = views_[leaf * kStateKinds + static_cast<std::size_t>(kind)];
    if (!renew(leaf, kind, view, strides)) return;
    const TensorView found = std::exchange(view, {});  // nothing that fails the check is kept
    check_lent(found, plan_.leaves()[leaf], kind, static_cast<std::int64_t>(leaf), device_);
    view = found;
    std::int64_t* shape = shapes_.data() + (strides - strides_.data());
    view.shape = shape;  // a copy of its own, since the array may get another shape while the step runs
    shape_of_state(plan_.leaves()[leaf], kind, shape);
    const TensorView* views = views_.data() + leaf * kStateKinds;
    const StateArrays arrays =
        detail::state_arrays([&](StateKind each) { return views[static_cast<std::size_t>(each)].data; });
    arrays_[leaf] = {arrays, arrays};
  }

  const Plan& plan_;
  Device device_;
  std::vector<StateSlots> arrays_;
  std::vector<TensorView> views_;
  std::vector<std::int64_t> strides_;
  std::vector<std::int64_t> shapes_;
};

}}  // namespace adafactor::ADAFACTOR_ABI

#if ADAFACTOR_DEFINES_STEP

namespace adafactor { inline namespace ADAFACTOR_ABI {

ADAFACTOR_RARE ADAFACTOR_FUNCTION void check_lent(const TensorView& view, const LeafPlan& plan, StateKind kind,
                                                  std::int64_t leaf, Device device) {
  const auto refuse = [&](ErrorKind error, const std::string& expected, const std::string& found) {
    throw Error({.kind = error,
                 .role = name(Role::state),
                 .leaf = leaf,
                 .knob = kStateKindNames[static_cast<std::size_t>(kind)],
                 .expected = expected,
                 .found = found});
  };
  const std::size_t rank = plan.spec.shape.size();
  std::array<std::int64_t, kMaxRank> shape;
  std::array<std::int64_t, kMaxRank> strides;
  shape_of_state(plan, kind, shape.data());
  strides_of_state(plan, kind, strides.data());
  const DType dtype = plan.state[static_cast<std::size_t>(kind)].dtype;
  if (view.dtype != dtype) refuse(ErrorKind::type, name(dtype), std::string("dtype ") + name(view.dtype));
  if (view.rank != static_cast<int>(rank) || !std::equal(view.shape, view.shape + rank, shape.data())) {
    refuse(ErrorKind::value, shape_text(shape.data(), rank),
           "shape " + shape_text(view.shape, static_cast<std::size_t>(view.rank)));
  }
  for (const Obstacle& obstacle : {obstacle_of(view, device), misalignment_of(view)}) {
    if (!obstacle.found.empty()) refuse(obstacle.kind, obstacle.expected, obstacle.found);
  }
  std::int64_t buffer[kMaxRank];
  const std::int64_t* found = detail::strides_of(view, buffer);
  for (std::size_t axis = 0; axis < rank; ++axis) {
    if (shape[axis] <= 1 || found[axis] == strides[axis] || plan.state[static_cast<std::size_t>(kind)].count == 0)
      continue;
    refuse(ErrorKind::buffer, "strides of " + shape_text(strides.data(), rank),
           "strides of " + shape_text(found, rank));
  }
}

ADAFACTOR_FUNCTION LentState::LentState(const Plan& plan, Device device)
    : plan_(plan), device_(device), arrays_(plan.leaves().size()), views_(plan.leaves().size() * kStateKinds) {
  std::size_t room = 0;
  for (const LeafPlan& leaf : plan.leaves()) {
    for (const StateArray& array : leaf.state) room += array.exists() ? leaf.spec.shape.size() : 0;
  }
  strides_.resize(room);
  shapes_.resize(room);
}

}}  // namespace adafactor::ADAFACTOR_ABI

#endif  // ADAFACTOR_DEFINES_STEP
