// Which arrays of a call may not share memory: one that is written with itself, with another, or with the state.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "adafactor/door/overlap.hpp"
#include "adafactor/door/view.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI {

// Keeps its memory from check to check.
class MemoryCheck {
 public:
  // The views were held against the plan; one without data is absent. `written` and `read` are parameters, `read` those
  // that are not written in place. Throws Error{buffer} for an array whose own elements share memory, Error{value} for
  // two arrays that do.
  void refuse_shared(std::span<const std::byte> state, std::span<const TensorView> written,
                     std::span<const TensorView> gradients, std::span<const TensorView> read);

 private:
  // Which array a region is.
  struct Place {
    const char* role;
    std::int64_t leaf;
  };

  static std::size_t room(std::span<const TensorView> views) {
    std::size_t room = 0;
    for (const TensorView& view : views) room += view.data ? static_cast<std::size_t>(view.rank) : 0;
    return room;
  }

  std::int64_t* add_regions(std::span<const TensorView> views, const char* role, bool written, std::int64_t* strides) {
    for (std::size_t i = 0; i < views.size(); ++i) {
      const TensorView& view = views[i];
      if (!view.data) continue;
      std::int64_t buffer[kMaxRank];
      std::copy_n(detail::strides_of(view, buffer), view.rank, strides);
      regions_.push_back({view.data, item_size(view.dtype), view.rank, view.shape, strides, written});
      places_.push_back({role, static_cast<std::int64_t>(i)});
      strides += view.rank;
    }
    return strides;
  }

  void refuse_overlap(std::span<const std::byte> state) {
    for (std::size_t i = 0; i < regions_.size(); ++i) {
      if (regions_[i].written && self_overlap(regions_[i]) != Overlap::none) {
        throw Error({.kind = ErrorKind::buffer,
                     .role = places_[i].role,
                     .leaf = places_[i].leaf,
                     .expected = "an array whose elements each have memory of their own",
                     .found = "some elements share memory"});
      }
    }
    const auto nbytes = static_cast<std::int64_t>(state.size());
    const std::int64_t stride = 1;
    regions_.push_back({state.data(), 1, 1, &nbytes, &stride, true});
    places_.push_back({"the state", -1});
    if (const auto pair = finder_.find(regions_)) {
      const bool sure = pair->verdict == Overlap::some;
      throw Error(
          {.role = places_[pair->first].role,
           .leaf = places_[pair->first].leaf,
           .expected = "memory of its own",
           .found = sure ? "shares memory with" : "may share memory with (its strides are too intricate to tell)",
           .other_role = places_[pair->second].role,
           .other_leaf = places_[pair->second].leaf});
    }
  }

  std::vector<StridedRegion> regions_;
  std::vector<Place> places_;
  std::vector<std::int64_t> strides_;
  OverlapFinder finder_;
};

}}  // namespace adafactor::ADAFACTOR_ABI

#if ADAFACTOR_DEFINES_STEP

namespace adafactor { inline namespace ADAFACTOR_ABI {

ADAFACTOR_FUNCTION void MemoryCheck::refuse_shared(std::span<const std::byte> state,
                                                   std::span<const TensorView> written,
                                                   std::span<const TensorView> gradients,
                                                   std::span<const TensorView> read) {
  regions_.clear();
  places_.clear();
  strides_.resize(room(written) + room(gradients) + room(read));
  std::int64_t* strides = strides_.data();
  strides = add_regions(written, "params", true, strides);
  strides = add_regions(gradients, "grads", false, strides);
  add_regions(read, "params", false, strides);
  refuse_overlap(state);
}

}}  // namespace adafactor::ADAFACTOR_ABI

#endif  // ADAFACTOR_DEFINES_STEP
