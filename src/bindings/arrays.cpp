// From Python objects to views: the one place where arrays come in. Nothing behind it knows where an array is from.
#include <algorithm>
#include <cstddef>
#include <string>

#include "bindings.hpp"
#include "buffer_array.hpp"
#include "numpy_array.hpp"

namespace adafactor::bindings {

void Request::refuse(ErrorKind kind, std::string expected, std::string found) const {
  throw Error(
      {.kind = kind, .role = name(role), .leaf = leaf, .expected = std::move(expected), .found = std::move(found)});
}

std::int64_t RawArray::size() const {
  const bool empty = std::any_of(shape, shape + rank, [](std::int64_t extent) { return extent == 0; });
  std::int64_t size = empty ? 0 : 1;
  for (int axis = 0; axis < rank && !empty; ++axis) {
    if (__builtin_mul_overflow(size, shape[axis], &size)) return std::numeric_limits<std::int64_t>::max();
  }
  return size;
}

std::string type_name(py::handle object) {
  const py::handle type = reinterpret_cast<PyObject*>(Py_TYPE(object.ptr()));
  const auto module = type.attr("__module__").cast<std::string>();
  const auto name = type.attr("__qualname__").cast<std::string>();
  return module == "builtins" ? name : module + "." + name;
}

namespace {

RawArray read_by_route(py::handle object, const Route& route, Loans& loans, const Request& request) {
  switch (route.way) {
    case Way::numpy:
      return read_numpy(object, request);
    case Way::exchanged:
      return read_exchanged(object, *route.api, route.is_negated, request);
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

namespace {

// Keeps what a view of NumPy stands on.
struct Keeper {
  py::object object;
  Lender lender;
};

py::object numpy_view(const py::object& object, bool written) {
  auto keeper = std::make_unique<Keeper>();
  RawArray array;
  try {
    array = keeper->lender.read(object, {written ? Access::write : Access::read, kParameterTypes, {}, -1});
  } catch (const Error& error) {
    throw Error(
        {.kind = error.kind(), .expected = error.expected(), .found = error.found()});  // which one, others know
  }
  keeper->object = object;
  const py::capsule owner(keeper.release(), [](void* pointer) { delete static_cast<Keeper*>(pointer); });
  return numpy_over(array, owner);
}

// Mostly there is one, or two that take turns.
py::list classes_of(const py::list& objects) {
  py::list classes;
  std::vector<PyTypeObject*> found;
  for (const py::handle object : objects) {
    PyTypeObject* type = Py_TYPE(object.ptr());
    if (std::find(found.rbegin(), found.rend(), type) != found.rend()) continue;
    found.push_back(type);
    classes.append(py::handle(reinterpret_cast<PyObject*>(type)));
  }
  return classes;
}

py::list places_of_none(const py::list& objects) {
  py::list places;
  for (std::size_t i = 0; i < objects.size(); ++i) {
    if (PyList_GET_ITEM(objects.ptr(), static_cast<Py_ssize_t>(i)) == Py_None) places.append(i);
  }
  return places;
}

}  // namespace

void bind_arrays(py::module_& m) {
  m.def(
      "inspect_array",
      [](py::handle object, std::int64_t leaf) {
        Lender lender;
        const RawArray array = lender.read(object, {Access::read, kParameterTypes, Role::params, leaf});
        return std::pair(std::vector<std::int64_t>(array.shape, array.shape + array.rank),
                         std::string(name(array.dtype)));
      },
      py::arg("array"), py::arg("leaf"), "(shape, dtype) of an array that may be a parameter.");
  m.def("classes_of", &classes_of, py::arg("objects"), "The different classes of the objects in a list.");
  m.def("places_of_none", &places_of_none, py::arg("objects"), "Where None stands in a list.");
  m.def("numpy_view", &numpy_view, py::arg("array"), py::arg("written") = false,
        "An array of NumPy over the same memory, without a copy; of bfloat16 the bits, as uint16.");
}

}  // namespace adafactor::bindings
