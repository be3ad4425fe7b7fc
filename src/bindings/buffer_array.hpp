// Arrays that come in through Python's own buffer protocol: memoryview, array.array, ctypes.
#pragma once

#include "loans.hpp"
#include "raw_array.hpp"

namespace adafactor::bindings {

RawArray read_buffer(py::handle object, Loans& loans, const Request& request);

}  // namespace adafactor::bindings
