// The row for NVIDIA's GPUs in the table of devices. Of the source files that define it a build links one.
#pragma once

#include "adafactor/tensor.hpp"

namespace adafactor {

// A kind of device on which a step may run. `missing` says why a build cannot, and is null where it can.
struct DeviceBackend {
  DeviceType type;
  const char* name;
  const char* missing;
};

namespace cuda {

const DeviceBackend& backend();

}  // namespace cuda

}  // namespace adafactor
