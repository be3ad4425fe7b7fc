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
  // The arrays of one call. The views were held against the plan; one without data is absent.
  struct Arrays {
    std::span<const TensorView> written;
    std::span<const TensorView> gradients;
    std::span<const TensorView> read;   // parameters that are not written in place
    std::span<const TensorView> state;  // that the call brings along, kStateKinds of each leaf
    std::span<const std::byte> memory;  // of a state that has its own
  };

  // Throws Error{buffer} for an array whose own elements share memory, Error{value} for two arrays that do.
  void refuse_shared(const Arrays& arrays);

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

  // `each`: how many views a leaf has.
  ADAFACTOR_EACH_CALL std::int64_t* add_regions(std::span<const TensorView> views, Role role, bool written,
                                                std::int64_t* strides, std::size_t each = 1) {
    for (std::size_t i = 0; i < views.size(); ++i) {
      const TensorView& view = views[i];
      if (!view.data) continue;
      std::int64_t buffer[kMaxRank];
      std::copy_n(detail::strides_of(view, buffer), view.rank, strides);
      regions_.push_back({view.data, item_size(view.dtype), view.rank, view.shape, strides, written});
      places_.push_back({name(role), static_cast<std::int64_t>(i / each)});
      strides += view.rank;
    }
    return strides;
  }

  ADAFACTOR_EACH_CALL void refuse_overlap(std::span<const std::byte> memory) {
    for (std::size_t i = 0; i < regions_.size(); ++i) {
      if (regions_[i].written && self_overlap(regions_[i]) != Overlap::none) {
        throw Error({.kind = ErrorKind::buffer,
                     .role = places_[i].role,
                     .leaf = places_[i].leaf,
                     .expected = "an array whose elements each have memory of their own",
                     .found = "some elements share memory"});
      }
    }
    const auto nbytes = static_cast<std::int64_t>(memory.size());
    const std::int64_t stride = 1;
    regions_.push_back({memory.data(), 1, 1, &nbytes, &stride, true});
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

ADAFACTOR_FUNCTION void MemoryCheck::refuse_shared(const Arrays& arrays) {
  regions_.clear();
  places_.clear();
  strides_.resize(room(arrays.written) + room(arrays.gradients) + room(arrays.read) + room(arrays.state));
  std::int64_t* strides = strides_.data();
  strides = add_regions(arrays.written, Role::params, true, strides);
  strides = add_regions(arrays.gradients, Role::grads, false, strides);
  strides = add_regions(arrays.read, Role::params, false, strides);
  add_regions(arrays.state, Role::state, true, strides, kStateKinds);
  refuse_overlap(arrays.memory);
}

}}  // namespace adafactor::ADAFACTOR_ABI

#endif  // ADAFACTOR_DEFINES_STEP
