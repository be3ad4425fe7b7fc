// The devices on which a step may run; an array on any other is refused.
#pragma once

#include <string>

#include "dlpack.hpp"
#include "raw_array.hpp"

namespace adafactor::bindings {

// The device of a tensor of DLPack; throws the request's refusal where no step can run on it.
Device device_of(dlpack::Device device, const Request& request);

// "cpu", or "cuda:0".
std::string device_name(Device device);

}  // namespace adafactor::bindings
