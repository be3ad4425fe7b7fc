// An array that belongs to somebody else, as the core sees it: where it lies and how it is laid out, nothing more.
#pragma once

#include <cstdint>
#include <string>

#include "adafactor/dtype.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI {

// Where an array lies. Devices of which a build has no backend are refused.
enum class DeviceType : std::uint8_t { cpu, cuda };

// One device of a type; the index is 0 for the CPU.
struct Device {
  DeviceType type = DeviceType::cpu;
  int index = 0;
  friend bool operator==(const Device&, const Device&) = default;
};

// A view; `shape` and `strides` point into memory that must outlive it. `data` null stands for an absent array.
struct TensorView {
  void* data = nullptr;
  DType dtype = DType::float32;
  Device device;
  int rank = 0;
  const std::int64_t* shape = nullptr;
  const std::int64_t* strides = nullptr;  // in elements; null means C order without gaps
};

// Which of a call's trees an array is from, or that it is one of a state that the call brings along.
enum class Role : std::uint8_t { params, grads, state };

// The word at the head of messages about it.
constexpr const char* name(Role role) {
  return role == Role::params ? "params" : role == Role::grads ? "grads" : "state";
}

// "the CPU's memory", or "cuda:0".
ADAFACTOR_FUNCTION std::string words(Device device);

// "float32, bfloat16 or float16", of these three.
ADAFACTOR_FUNCTION std::string words(DTypes dtypes);

// Ranks up to NumPy's own limit.
inline constexpr int kMaxRank = 64;

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

}}  // namespace adafactor::ADAFACTOR_ABI

#if ADAFACTOR_DEFINES_STEP

namespace adafactor { inline namespace ADAFACTOR_ABI {

ADAFACTOR_FUNCTION std::string words(Device device) {
  return device.type == DeviceType::cpu ? "the CPU's memory" : "cuda:" + std::to_string(device.index);
}

ADAFACTOR_FUNCTION std::string words(DTypes dtypes) {
  std::string text;
  for (const DType dtype : kDTypes) {
    if (!dtypes.contains(dtype)) continue;
    const bool is_last = dtypes.bits >> static_cast<unsigned>(dtype) == 1;
    text.append(text.empty() ? "" : is_last ? " or " : ", ").append(name(dtype));
  }
  return text;
}

}}  // namespace adafactor::ADAFACTOR_ABI

#endif  // ADAFACTOR_DEFINES_STEP
