// The table of devices, and the words for one that is not in it.
#include "devices.hpp"

#include <algorithm>
#include <array>
#include <string>
#include <utility>

namespace adafactor::bindings {

namespace {

std::string name_of(dlpack::Device device) {
  static constexpr std::pair<std::int32_t, const char*> names[] = {
      {dlpack::kCuda, "cuda"},     {dlpack::kOpenCl, "opencl"},
      {dlpack::kVulkan, "vulkan"}, {dlpack::kMetal, "metal"},
      {dlpack::kRocm, "rocm"},     {dlpack::kOneApi, "oneapi"},
      {dlpack::kCpu, "cpu"},       {dlpack::kCudaManaged, "cuda_managed"}};
  const auto* found = std::ranges::find(names, device.kind, &std::pair<std::int32_t, const char*>::first);
  const std::string kind = found != std::end(names) ? found->second : "device type " + std::to_string(device.kind);
  return kind + ":" + std::to_string(device.index);
}

}  // namespace

std::span<const DeviceBackend> devices() {
  static const std::array table{DeviceBackend{DeviceType::cpu, "cpu", nullptr}, cuda::backend()};
  return table;
}

Device device_of(dlpack::Device device, const Request& request) {
  // Pinned memory of the host is the CPU's: what is off-loaded from a GPU lies there.
  if (device.kind == dlpack::kCpu || device.kind == dlpack::kCudaHost || device.kind == dlpack::kRocmHost) return {};
  std::string missing;
  if (device.kind == dlpack::kCuda || device.kind == dlpack::kCudaManaged) {
    const auto row = std::ranges::find(devices(), DeviceType::cuda, &DeviceBackend::type);
    if (!row->missing) return {DeviceType::cuda, device.index};
    missing = std::string(" (") + row->missing + ")";
  }
  request.refuse(ErrorKind::value, "one in the CPU's memory", "an array on " + name_of(device) + missing);
}

}  // namespace adafactor::bindings
