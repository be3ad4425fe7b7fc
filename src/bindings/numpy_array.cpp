// Dtypes and flags of NumPy, and its arrays over the memory of others.
#include "numpy_array.hpp"

#include <pybind11/numpy.h>

#include <atomic>
#include <bit>
#include <optional>
#include <string>
#include <vector>

namespace adafactor::bindings {

namespace {

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

DType dtype_of(const py::array& array, const Request& request) {
  const py::dtype dtype = array.dtype();
  const std::optional<DType> known = known_dtype(dtype);
  if (!known) request.refuse_dtype(py::str(dtype).cast<std::string>());
  // '=' mostly stands for this machine's; what comes from a buffer may name it.
  constexpr char foreign = std::endian::native == std::endian::little ? '>' : '<';
  if (dtype.byteorder() == foreign) {
    request.refuse(ErrorKind::type, "the byte order of this machine",
                   "byte order '" + std::string(1, dtype.byteorder()) + "'");
  }
  return *known;
}

}  // namespace

NumPyClass numpy_class(py::handle type) {
  PYBIND11_CONSTINIT static py::gil_safe_call_once_and_store<std::pair<py::object, py::object>> types;
  const auto& [array, memmap] =
      types
          .call_once_and_store_result([] {
            const auto numpy = py::module_::import("numpy");
            return std::pair<py::object, py::object>(numpy.attr("ndarray"), numpy.attr("memmap"));
          })
          .get_stored();
  if (type.is(array) || type.is(memmap)) return NumPyClass::plain;
  const bool derived =
      PyType_IsSubtype(reinterpret_cast<PyTypeObject*>(type.ptr()), reinterpret_cast<PyTypeObject*>(array.ptr())) != 0;
  return derived ? NumPyClass::subclass : NumPyClass::none;
}

RawArray read_numpy(py::handle object, const Request& request) {
  const auto array = py::reinterpret_borrow<py::array>(object);
  static_assert(sizeof(py::ssize_t) == sizeof(std::int64_t));
  RawArray raw;
  raw.dtype = dtype_of(array, request);
  raw.permission = array.writeable() ? Permission::granted : Permission::read_only;
  raw.data = const_cast<void*>(array.data());
  raw.rank = static_cast<int>(array.ndim());
  raw.shape = reinterpret_cast<const std::int64_t*>(array.shape());
  raw.strides = reinterpret_cast<const std::int64_t*>(array.strides());
  return raw;
}

py::object numpy_over(const RawArray& array, const py::object& owner) {
  const std::int64_t item = item_size(array.dtype);
  std::vector<py::ssize_t> shape(array.shape, array.shape + array.rank);
  std::vector<py::ssize_t> strides(shape.size());
  std::int64_t compact = item;
  for (std::size_t axis = shape.size(); axis-- > 0;) {
    strides[axis] = array.strides ? array.strides[axis] * array.stride_unit : compact;
    compact *= shape[axis];
  }
  const py::dtype dtype(array.dtype == DType::bfloat16 ? "uint16" : name(array.dtype));
  py::array result(dtype, shape, strides, array.data, owner);
  if (array.permission != Permission::granted) result.attr("flags").attr("writeable") = false;
  return result;
}

}  // namespace adafactor::bindings
