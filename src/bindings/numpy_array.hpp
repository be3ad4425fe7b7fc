// Arrays of NumPy, through its C interface.
#pragma once

#include "raw_array.hpp"

namespace adafactor::bindings {

// What an array's class says of its memory. numpy.ndarray and numpy.memmap: of these the buffer is the array. Other
// subclasses mean something more by it (a mask, a unit), which a raw write would ignore.
enum class NumPyClass { none, plain, subclass };
NumPyClass numpy_class(py::handle type);

// Of an object whose class is plain.
RawArray read_numpy(py::handle object, const Request& request);

// An array of NumPy over memory that `owner` keeps alive: bfloat16, which NumPy lacks, as its bits.
py::object numpy_over(const RawArray& array, const py::object& owner);

}  // namespace adafactor::bindings
