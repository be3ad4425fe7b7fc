// The words of a refusal, and the size of an array that nobody has checked.
#include "raw_array.hpp"

#include <algorithm>
#include <limits>
#include <utility>

namespace adafactor::bindings {

void Request::refuse(ErrorKind kind, std::string expected, std::string found) const {
  throw Error(
      {.kind = kind, .role = name(role), .leaf = leaf, .expected = std::move(expected), .found = std::move(found)});
}

void Request::refuse_dtype(const std::string& dtype) const {
  std::string expected = words(dtypes);
  if (dtype.find("complex") == 0) {
    expected += "; torch.view_as_real, or a view in NumPy, has both parts as real numbers";
  }
  refuse(ErrorKind::type, expected, "dtype " + dtype);
}

std::string Request::made_by(const char* call) const {
  if (role == Role::grads) return std::string(" (") + call + " makes one)";
  return std::string("; ") + call + " makes a copy: step that, and write it back";
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

}  // namespace adafactor::bindings
