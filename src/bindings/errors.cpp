// The core's errors in Python: one exception with the facts as attributes, which the package phrases with paths.
#include "bindings.hpp"

namespace adafactor::bindings {

namespace {

const char* name(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::value:
      return "value";
    case ErrorKind::type:
      return "type";
    case ErrorKind::buffer:
      return "buffer";
    case ErrorKind::nonfinite:
      return "nonfinite";
    case ErrorKind::busy:
      return "busy";
  }
  return "value";
}

}  // namespace

void bind_errors(py::module_& m) {
  PYBIND11_CONSTINIT static py::gil_safe_call_once_and_store<py::object> type;
  type.call_once_and_store_result([&]() -> py::object { return py::exception<Error>(m, "Error", PyExc_ValueError); });
  py::register_local_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const Error& error) {
      const py::object& exception = type.get_stored();
      py::object value = exception(error.what());
      value.attr("kind") = name(error.kind());
      value.attr("role") = error.role();
      value.attr("leaf") = error.leaf();
      value.attr("knob") = error.knob();
      value.attr("expected") = error.expected();
      value.attr("found") = error.found();
      value.attr("other_role") = error.other_role();
      value.attr("other_leaf") = error.other_leaf();
      PyErr_SetObject(exception.ptr(), value.ptr());
    }
  });
}

}  // namespace adafactor::bindings
