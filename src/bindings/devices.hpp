// The devices on which a step may run, one row each; an array on any other is refused.
#pragma once

#include <span>

#include "../cuda/devices.hpp"
#include "dlpack.hpp"
#include "raw_array.hpp"

namespace adafactor::bindings {

std::span<const DeviceBackend> devices();

// The device of a tensor of DLPack; throws the request's refusal where no step can run on it.
Device device_of(dlpack::Device device, const Request& request);

}  // namespace adafactor::bindings
