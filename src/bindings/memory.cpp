// Which arrays of a call may not share memory: one that is written with itself, with another, or with the state.
#include "bindings.hpp"

namespace adafactor::bindings {

void Arrays::add_regions(const std::vector<TensorView>& views, const char* role, bool written) {
  for (std::size_t i = 0; i < views.size(); ++i) {
    const TensorView& view = views[i];
    if (!view.data) continue;
    regions_.push_back({view.data, item_size(view.dtype), view.rank, view.shape, view.strides, written});
    places_.push_back({role, static_cast<std::int64_t>(i)});
  }
}

// Whether every array lies where it lay when the last check passed; its shape follows from its place.
bool Arrays::same_as_checked() {
  if (checked_data_.size() != regions_.size() || checked_strides_ != strides || checked_places_ != places_)
    return false;
  for (std::size_t i = 0; i < regions_.size(); ++i) {
    if (checked_data_[i] != regions_[i].data) return false;
  }
  return true;
}

void Arrays::check_memory(State& state, bool in_place) {
  regions_.clear();
  places_.clear();
  add_regions(outputs, "params", true);
  add_regions(gradients, "grads", false);
  if (!in_place) add_regions(parameters, "params", false);
  if (same_as_checked()) return;
  checked_data_.clear();

  for (std::size_t i = 0; i < regions_.size(); ++i) {
    if (regions_[i].written && self_overlap(regions_[i]) != Overlap::none) {
      throw Error({.kind = ErrorKind::buffer,
                   .role = places_[i].role,
                   .leaf = places_[i].leaf,
                   .expected = "an array whose elements each have memory of their own",
                   .found = "some elements share memory"});
    }
  }
  const std::int64_t nbytes = state.plan().state_nbytes();
  const std::int64_t stride = 1;
  regions_.push_back({state.memory(), 1, 1, &nbytes, &stride, true});
  places_.push_back({"the state", -1});
  if (const auto pair = finder_.find(regions_)) {
    const bool sure = pair->verdict == Overlap::some;
    throw Error({.role = places_[pair->first].role,
                 .leaf = places_[pair->first].leaf,
                 .expected = "memory of its own",
                 .found = sure ? "shares memory with" : "may share memory with (its strides are too intricate to tell)",
                 .other_role = places_[pair->second].role,
                 .other_leaf = places_[pair->second].leaf});
  }
  regions_.pop_back();
  places_.pop_back();
  for (const StridedRegion& region : regions_) checked_data_.push_back(region.data);
  checked_strides_ = strides;
  checked_places_ = places_;
}

}  // namespace adafactor::bindings
