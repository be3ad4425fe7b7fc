// The door for arrays of every library.
#pragma once

#include <vector>

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

  // A second owner of a tensor that its library reads faster then, until who asked lets go of it; else nothing.
  Loan hold(py::handle object, const Request& request);

  void give_back() noexcept { loans_.give_back(); }

  // The stream on which the library of an array works on a GPU now; throws the request's refusal where it is no array.
  Stream stream_of(py::handle object, Device device, const Request& request);
  // Says on which stream of a GPU the arrays that are read from now on are going to be used; null: on none.
  void set_stream(const Stream* stream);
  // The streams on which libraries of these arrays work, as far as they are others and no capsule has seen to them.
  const std::vector<void*>& other_streams() const { return other_streams_; }
  // Whether all libraries of these arrays go on behind what is done on these streams.
  bool are_followed() const { return are_followed_; }

 private:
  RawArray read_by(const Route& route, py::handle object, const Request& request);
  void ask_for_stream(const Route& route, py::handle object, Device device);

  const Stream* stream_ = nullptr;
  std::vector<py::handle> asked_;  // types, of whose libraries the streams are known
  std::vector<void*> other_streams_;
  bool are_followed_ = true;
  Routes routes_;
  Loans loans_;
};

}  // namespace adafactor::bindings
