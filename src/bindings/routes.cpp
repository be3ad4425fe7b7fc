// Which attributes of a type tell how its arrays are read.
#include "routes.hpp"

#include <algorithm>
#include <string>
#include <string_view>

#include "numpy_array.hpp"

namespace adafactor::bindings {

namespace {

std::string attribute_text(py::handle type, const char* attribute) {
  const py::object text = py::getattr(type, attribute, py::none());
  return py::isinstance<py::str>(text) ? text.cast<std::string>() : std::string();
}

// The package that a class is from, whether it is public there or not.
std::string package_of(py::handle type) {
  const std::string module = attribute_text(type, "__module__");
  return module.substr(0, module.find('.'));
}

bool is_torch_tensor(py::handle type) {
  return package_of(type) == "torch" && attribute_text(type, "__name__") == "Tensor";
}

bool derives_from_torch_tensor(py::handle type) {
  const py::object mro = py::getattr(type, "__mro__", py::tuple());
  return std::ranges::any_of(py::reinterpret_borrow<py::tuple>(mro), is_torch_tensor);
}

// Whose memory is the tensor, as for torch's own operators. Subclasses may keep something else there, or nothing.
bool is_plain_tensor(py::handle type) {
  return is_torch_tensor(type) || (attribute_text(type, "__module__") == "torch.nn.parameter" &&
                                   attribute_text(type, "__name__") == "Parameter");
}

bool is_tracer(py::handle type) {
  const py::object mro = py::getattr(type, "__mro__", py::tuple());
  return std::ranges::any_of(py::reinterpret_borrow<py::tuple>(mro), [](py::handle base) {
    return package_of(base) == "jax" && attribute_text(base, "__name__") == "Tracer";
  });
}

// What is no array may have some, hold one, or be had as one.
[[noreturn]] void refuse_class(py::handle object, const Request& request) {
  std::string text = "an array of NumPy, torch or another library with DLPack";
  if (py::hasattr(object, "named_parameters")) {
    text = "arrays (dict(module.named_parameters()) has those of a module)";
  } else if (py::hasattr(reinterpret_cast<PyObject*>(Py_TYPE(object.ptr())), "value")) {
    text += "; its `value` may be one";
  } else if (py::hasattr(object, "__array__")) {
    text += request.made_by("numpy.array()");
  } else if (py::hasattr(object, "toarray")) {
    text += request.made_by("toarray()");
  }
  request.refuse(ErrorKind::type, text, type_name(object));
}

Route torch_route(py::handle object, py::handle type, const Request& request) {
  if (!is_plain_tensor(type)) {
    const bool has_parts = py::hasattr(type, "to_local");
    request.refuse(ErrorKind::type,
                   std::string("a torch.Tensor or torch.nn.Parameter; ") +
                       (has_parts ? "to_local() gives the part that is here"
                                  : "as_subclass(torch.Tensor) gives that of a class which keeps nothing besides"),
                   type_name(object));
  }
  Route route;
  route.api = exchange_api_of(type);
  route.way = route.api && route.api->tensor_from_object ? Way::exchanged : Way::capsule;
  route.is_negated = type.attr("is_neg");
  route.legacy = Permission::granted;
  return route;
}

Route find_route(py::handle object, py::handle type, const Request& request) {
  const NumPyClass numpy = numpy_class(type);
  if (numpy == NumPyClass::subclass) {
    request.refuse(ErrorKind::type, "a numpy.ndarray (numpy.asarray makes one in the same memory)", type_name(object));
  }
  if (numpy == NumPyClass::none && derives_from_torch_tensor(type)) return torch_route(object, type, request);
  Route route;
  if (numpy == NumPyClass::plain) {
    route.way = Way::numpy;
    return route;
  }
  const std::string package = package_of(type);
  route.immutable = package == "jax" || package == "jaxlib";
  if (package == "jax" && is_tracer(type)) {
    request.refuse(ErrorKind::type,
                   "an array that is there; inside jax.jit and jax.grad there is none yet: make the gradients there, "
                   "and call adafactor.update outside",
                   type_name(object));
  }
  route.is_cupy = package == "cupy";
  if (route.is_cupy) route.legacy = Permission::granted;
  route.api = exchange_api_of(type);
  if (route.api) {
    route.way = Way::managed;
  } else if (py::hasattr(type, "__dlpack__")) {
    route.way = Way::capsule;
  } else if (PyObject_CheckBuffer(object.ptr())) {
    route.way = Way::buffer;
  } else {
    refuse_class(object, request);
  }
  return route;
}

}  // namespace

const Route& Routes::find(py::handle object, py::handle type, const Request& request) {
  Route route = find_route(object, type, request);
  route.type = py::reinterpret_borrow<py::object>(type);
  if (known_.size() == kMost) known_.erase(known_.begin());
  return known_.emplace_back(std::move(route));
}

}  // namespace adafactor::bindings
