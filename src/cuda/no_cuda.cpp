// A build without CUDA: its arrays are refused by name.
#include "devices.hpp"

namespace adafactor::cuda {

const DeviceBackend& backend() {
  static constexpr DeviceBackend row{DeviceType::cuda, "cuda", "this build has no CUDA"};
  return row;
}

}  // namespace adafactor::cuda
