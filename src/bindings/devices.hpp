// The devices on which a step may run; an array on any other is refused.
#pragma once

#include <string>

#include "dlpack.hpp"
#include "raw_array.hpp"

namespace adafactor::bindings {

// The device of a tensor of DLPack; throws the request's refusal where no step can run on it.
Device device_of(dlpack::Device device, const Request& request);

// Throws the request's refusal of an array on a device of that name.
[[noreturn]] void refuse_device(const std::string& name, const Request& request);

// "cpu", or "cuda:0".
std::string device_name(Device device);

}  // namespace adafactor::bindings
