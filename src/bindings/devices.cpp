// The words for devices, and for one on which no step can run.
#include "devices.hpp"

#include <algorithm>
#include <charconv>
#include <stdexcept>
#include <string>
#include <string_view>

#include "../cuda/library.hpp"
#include "bindings.hpp"

namespace adafactor::bindings {

namespace {

constexpr std::string_view kCudaName = "cuda:";

struct Kind {
  std::int32_t number;  // as in DLPack
  const char* name;
  const char* maker = "";
};

// A device as "metal:0 (of Apple, mps)": what DLPack calls it, whose it is, and torch's name where that is another.
std::string name_of(dlpack::Device device) {
  static constexpr Kind kinds[] = {{dlpack::kCuda, "cuda"},
                                   {dlpack::kCudaManaged, "cuda_managed"},
                                   {dlpack::kRocm, "rocm", " (of AMD)"},
                                   {dlpack::kMetal, "metal", " (of Apple, mps)"},
                                   {dlpack::kOneApi, "oneapi", " (of Intel, xpu)"},
                                   {dlpack::kOpenCl, "opencl"},
                                   {dlpack::kVulkan, "vulkan"},
                                   {dlpack::kCpu, "cpu"}};
  const auto* found = std::ranges::find(kinds, device.kind, &Kind::number);
  const bool is_known = found != std::end(kinds);
  const std::string name = is_known ? found->name : "device type " + std::to_string(device.kind);
  return name + ":" + std::to_string(device.index) + (is_known ? found->maker : "");
}

}  // namespace

Device device_of(dlpack::Device device, const Request& request) {
  // Pinned memory of the host is the CPU's: what is off-loaded from a GPU lies there.
  if (device.kind == dlpack::kCpu || device.kind == dlpack::kCudaHost || device.kind == dlpack::kRocmHost) return {};
  const std::string& missing = cuda::library().missing;
  const bool is_cuda = device.kind == dlpack::kCuda || device.kind == dlpack::kCudaManaged;
  if (is_cuda && missing.empty()) return {DeviceType::cuda, device.index};
  refuse_device(name_of(device) + (is_cuda ? " (" + missing + ")" : ""), request);
}

void refuse_device(const std::string& name, const Request& request) {
  const bool has_gpus = cuda::library().missing.empty();
  request.refuse(ErrorKind::value, std::string("one in the CPU's memory") + (has_gpus ? " or on a GPU of NVIDIA" : ""),
                 "an array on " + name);
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
