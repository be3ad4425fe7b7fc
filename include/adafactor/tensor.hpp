// An array that belongs to somebody else, as the core sees it: where it lies and how it is laid out, nothing more.
#pragma once

#include <cstdint>

#include "adafactor/dtype.hpp"

namespace adafactor::inline ADAFACTOR_ABI {

// Where an array lies. The CPU's memory is the only place that a step takes now.
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

// Which of a call's trees an array is from.
enum class Role : std::uint8_t { params, grads };

// The word at the head of messages about it.
constexpr const char* name(Role role) { return role == Role::params ? "params" : "grads"; }

// Ranks up to NumPy's own limit.
inline constexpr int kMaxRank = 64;

}  // namespace adafactor::inline ADAFACTOR_ABI
