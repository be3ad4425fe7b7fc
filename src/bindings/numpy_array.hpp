// Arrays of NumPy, through its C interface.
#pragma once

#include <pybind11/numpy.h>

#include "raw_array.hpp"

namespace adafactor::bindings {

// What an array's class says of its memory. numpy.ndarray and numpy.memmap: of these the buffer is the array. Other
// subclasses mean something more by it (a mask, a unit), which a raw write would ignore.
enum class NumPyClass { none, plain, subclass };
NumPyClass numpy_class(py::handle type);

// The array that an object is whose class is plain.
RawArray read_numpy(py::handle object, const Request& request);

// The dtype of NumPy that arrays of a type are handed out in; of a type that NumPy lacks that of its bits.
py::dtype numpy_dtype(DType dtype);

// An array of NumPy over memory that `owner` keeps alive.
py::object numpy_over(const RawArray& array, const py::object& owner);

}  // namespace adafactor::bindings
