// The words for devices, and for one on which no step can run.
#include "devices.hpp"

#include <algorithm>
#include <charconv>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include "../cuda/library.hpp"
#include "bindings.hpp"

namespace adafactor::bindings {

namespace {

constexpr std::string_view kCudaName = "cuda:";

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

Device device_of(dlpack::Device device, const Request& request) {
  // Pinned memory of the host is the CPU's: what is off-loaded from a GPU lies there.
  if (device.kind == dlpack::kCpu || device.kind == dlpack::kCudaHost || device.kind == dlpack::kRocmHost) return {};
  std::string missing;
  if (device.kind == dlpack::kCuda || device.kind == dlpack::kCudaManaged) {
    missing = cuda::library().missing;
    if (missing.empty()) return {DeviceType::cuda, device.index};
    missing = " (" + missing + ")";
  }
  request.refuse(ErrorKind::value, "one in the CPU's memory", "an array on " + name_of(device) + missing);
}

std::string device_name(Device device) {
  return device.type == DeviceType::cpu ? "cpu" : std::string(kCudaName) + std::to_string(device.index);
}

std::unique_ptr<Gpu> gpu_named(const std::string& device, py::object allocate) {
  if (device == device_name({})) return nullptr;
  const char* first = device.data() + kCudaName.size();
  const char* last = device.data() + device.size();
  int index = 0;
  const bool is_cuda = device.starts_with(kCudaName);
  if (!is_cuda || std::from_chars(first, last, index).ptr != last || first == last) {
    throw py::value_error("device: cpu, or cuda: and a number");
  }
  return std::make_unique<Gpu>(Device{DeviceType::cuda, index}, std::move(allocate));
}

}  // namespace adafactor::bindings
