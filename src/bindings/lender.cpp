// From Python objects to views: the one place where arrays come in. Nothing behind it knows where an array is from.
#include "lender.hpp"

#include <algorithm>
#include <cstddef>
#include <string>

#include "buffer_array.hpp"
#include "numpy_array.hpp"

namespace adafactor::bindings {

namespace {

RawArray read_by_route(py::handle object, const Route& route, Loans& loans, const Request& request) {
  switch (route.way) {
    case Way::numpy:
      return read_numpy(object, request);
    case Way::exchanged:
      return read_exchanged(object, *route.api, request);
    case Way::managed:
      return read_managed(object, *route.api, loans, request);
    case Way::capsule: {
      // A tensor that requires a gradient exports none of its own; without the interface it goes through a view.
      if (route.is_negated) return read_capsule(object.attr("detach")(), route.legacy, loans, request);
      return read_capsule(object, route.legacy, loans, request);
    }
    case Way::buffer:
      return read_buffer(object, loans, request);
  }
  return {};
}

// Of a function without other arguments.
bool says_yes(py::handle function, py::handle object) {
  const auto answer = py::reinterpret_steal<py::object>(PyObject_CallOneArg(function.ptr(), object.ptr()));
  if (!answer) throw py::error_already_set();
  return answer.ptr() == Py_True;
}

const char* obstacle(Permission permission) {
  switch (permission) {
    case Permission::read_only:
      return "a read-only array";
    case Permission::copy:
      return "a copy, in which a write would be lost";
    case Permission::immutable:
      return "an immutable array";
    case Permission::granted:
      break;
  }
  return nullptr;
}

}  // namespace

RawArray Lender::read(py::handle object, const Request& request) {
  const Route& route = routes_.of(object, request);
  RawArray array = read_by_route(object, route, loans_, request);
  if (route.is_negated && says_yes(route.is_negated, object)) {
    request.refuse(ErrorKind::type, "a tensor whose memory holds its values (resolve_neg() makes one)",
                   "a " + type_name(object) + " that is negated lazily");
  }
  if (route.immutable) array.permission = Permission::immutable;
  const char* found = request.access == Access::write ? obstacle(array.permission) : nullptr;
  if (found) {
    request.refuse(ErrorKind::buffer, "an array that can be written (adafactor.update returns new ones)", found);
  }
  return array;
}

TensorView Lender::view(py::handle object, const Request& request, std::int64_t* strides, int room) {
  const RawArray array = read(object, request);
  // A view without data stands for an array that is missing; one without elements may lie at any address.
  static std::byte nowhere;
  TensorView view{array.data ? array.data : &nowhere, array.dtype, array.device, array.rank, array.shape, nullptr};
  if (!array.strides || array.rank > room) return view;
  const std::int64_t item = item_size(array.dtype);
  const bool empty = std::find(array.shape, array.shape + array.rank, 0) != array.shape + array.rank;
  for (int axis = 0; axis < array.rank; ++axis) {
    // Where an axis has no second element its stride means nothing, and libraries leave anything there.
    const bool counts = array.shape[axis] > 1 && !empty;
    if (!counts) {
      strides[axis] = 1;
    } else if (array.stride_unit == item) {
      strides[axis] = array.strides[axis];
    } else if (array.strides[axis] % item == 0) {
      strides[axis] = array.strides[axis] / item;
    } else {
      request.refuse(ErrorKind::buffer, "strides that are multiples of " + std::to_string(item) + " bytes",
                     "a stride of " + std::to_string(array.strides[axis]) + " bytes");
    }
  }
  view.strides = strides;
  return view;
}

}  // namespace adafactor::bindings
