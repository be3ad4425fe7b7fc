// The door for arrays of every library.
#pragma once

#include "loans.hpp"
#include "raw_array.hpp"
#include "routes.hpp"

namespace adafactor::bindings {

// Makes arrays of Python objects, and holds what the objects lend for it.
class ArrayReader {
 public:
  // The array that an object is; throws the request's refusal where it cannot be had as wanted. Valid until `give_back`
  // and as long as the object is.
  RawArray read(py::handle object, const Request& request);

  // Makes a view that of the array, unless it is that already; returns whether it was another. What lies where it lay
  // is not asked whether it is negated: see `reader.cpp`. The view's strides, in elements, are written to `strides`; of
  // an array with more axes than `room` they are left out.
  bool renew(TensorView& view, py::handle object, const Request& request, std::int64_t* strides, int room);

  void give_back() noexcept { loans_.give_back(); }

 private:
  Routes routes_;
  Loans loans_;
};

}  // namespace adafactor::bindings
