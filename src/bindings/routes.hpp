// How the arrays of a type are read. Found out once for each type, by its attributes, and remembered: a step asks for
// hundreds of arrays of one type.
#pragma once

#include <vector>

#include "dlpack_array.hpp"
#include "raw_array.hpp"

namespace adafactor::bindings {

enum class Way { numpy, exchanged, managed, capsule, buffer };

struct Route {
  py::object type;
  Way way = Way::capsule;
  const dlpack::ExchangeApi* api = nullptr;
  py::object is_negated;                      // of torch's tensors
  Permission legacy = Permission::read_only;  // of a capsule without flags
  bool immutable = false;                     // whatever a capsule says
  bool is_cupy = false;
};

class Routes {
 public:
  // The route of an object's type; throws the request's refusal where it is no array, or one that means more than its
  // memory.
  const Route& of(py::handle object, const Request& request) {
    const py::handle type = reinterpret_cast<PyObject*>(Py_TYPE(object.ptr()));
    for (const Route& route : known_) {
      if (route.type.is(type)) return route;
    }
    return find(object, type, request);
  }

 private:
  const Route& find(py::handle object, py::handle type, const Request& request);

  static constexpr std::size_t kMost = 8;

  std::vector<Route> known_;
};

}  // namespace adafactor::bindings
