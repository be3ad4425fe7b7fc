// From Python objects to views. NumPy's arrays come through its C API; where other libraries' arrays will come in is
// view_of, and nothing behind it knows where an array is from.
#include <atomic>
#include <optional>
#include <string>
#include <string_view>

#include "bindings.hpp"

namespace adafactor::bindings {

namespace {

[[noreturn]] void refuse(ErrorKind kind, const char* role, std::int64_t leaf, std::string expected, std::string found) {
  throw Error({.kind = kind, .role = role, .leaf = leaf, .expected = std::move(expected), .found = std::move(found)});
}

std::string type_name(py::handle object) {
  const py::handle type = reinterpret_cast<PyObject*>(Py_TYPE(object.ptr()));
  const auto module = type.attr("__module__").cast<std::string>();
  const auto name = type.attr("__qualname__").cast<std::string>();
  return module == "builtins" ? name : module + "." + name;
}

// numpy.ndarray and numpy.memmap: of these the buffer is the array. Other subclasses mean something more by it (a mask,
// a unit), which a raw write would ignore.
bool is_plain_array(py::handle object) {
  PYBIND11_CONSTINIT static py::gil_safe_call_once_and_store<std::pair<py::object, py::object>> types;
  const auto& [array, memmap] =
      types
          .call_once_and_store_result([] {
            const auto numpy = py::module_::import("numpy");
            return std::pair<py::object, py::object>(numpy.attr("ndarray"), numpy.attr("memmap"));
          })
          .get_stored();
  const auto* type = reinterpret_cast<PyObject*>(Py_TYPE(object.ptr()));
  return type == array.ptr() || type == memmap.ptr();
}

py::array as_array(py::handle object, const char* role, std::int64_t leaf) {
  if (!is_plain_array(object)) {
    // An array of another kind can be had as one of NumPy's; of a parameter the step would write into a copy else.
    const bool convertible = py::hasattr(object, "__array__");
    const bool written = std::string_view(role) == "params";
    const std::string expected =
        std::string("a numpy.ndarray") + (convertible && written ? " that shares its memory" : "");
    refuse(ErrorKind::type, role, leaf, expected + (convertible ? " (numpy.asarray makes one)" : ""),
           type_name(object));
  }
  return py::reinterpret_borrow<py::array>(object);
}

// NumPy has no bfloat16; the one of ml_dtypes, which JAX and others use, is a type that is added at run time and has a
// number since then.
bool is_bfloat16(const py::dtype& dtype) {
  constexpr int first_added = 256;
  static std::atomic<int> number{-1};
  if (dtype.num() < first_added) return false;
  if (dtype.num() == number.load(std::memory_order_relaxed)) return true;
  if (dtype.itemsize() != 2 || py::str(dtype).cast<std::string>() != "bfloat16") return false;
  number.store(dtype.num(), std::memory_order_relaxed);
  return true;
}

std::optional<DType> known_dtype(const py::dtype& dtype) {
  constexpr int half = 23;  // NPY_HALF, which pybind11 does not name
  switch (dtype.num()) {
    case py::detail::npy_api::NPY_FLOAT_:
      return DType::float32;
    case py::detail::npy_api::NPY_DOUBLE_:
      return DType::float64;
    case half:
      return DType::float16;
    default:
      return is_bfloat16(dtype) ? std::optional(DType::bfloat16) : std::nullopt;
  }
}

DType dtype_of(const py::array& array, const char* expected, const char* role, std::int64_t leaf) {
  const py::dtype dtype = array.dtype();
  const std::optional<DType> known = known_dtype(dtype);
  if (!known) {
    refuse(ErrorKind::type, role, leaf, expected, "dtype " + py::str(dtype).cast<std::string>());
  }
  if (dtype.byteorder() != '=') {
    refuse(ErrorKind::type, role, leaf, "the byte order of this machine",
           "byte order '" + std::string(1, dtype.byteorder()) + "'");
  }
  return *known;
}

}  // namespace

int rank_of(py::handle object, const char* role, std::int64_t leaf) {
  return static_cast<int>(as_array(object, role, leaf).ndim());
}

TensorView view_of(py::handle object, Access access, const char* dtypes, const char* role, std::int64_t leaf,
                   std::int64_t* strides) {
  const py::array array = as_array(object, role, leaf);
  TensorView view;
  view.dtype = dtype_of(array, dtypes, role, leaf);
  if (access == Access::write && !array.writeable()) {
    refuse(ErrorKind::buffer, role, leaf, "an array that can be written (adafactor.update returns new ones)",
           "a read-only array");
  }
  view.data = const_cast<void*>(array.data());
  view.rank = static_cast<int>(array.ndim());
  static_assert(sizeof(py::ssize_t) == sizeof(std::int64_t));
  view.shape = reinterpret_cast<const std::int64_t*>(array.shape());
  const std::int64_t item = item_size(view.dtype);
  const bool empty = array.size() == 0;
  for (int axis = 0; axis < view.rank; ++axis) {
    // Where an axis has no second element its stride means nothing, and NumPy leaves anything there.
    const std::int64_t bytes = view.shape[axis] > 1 && !empty ? array.strides()[axis] : item;
    if (bytes % item != 0) {
      refuse(ErrorKind::buffer, role, leaf, "strides that are multiples of " + std::to_string(item) + " bytes",
             "a stride of " + std::to_string(bytes) + " bytes");
    }
    strides[axis] = bytes / item;
  }
  view.strides = strides;
  return view;
}

}  // namespace adafactor::bindings
