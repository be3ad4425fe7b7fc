// Dtypes and flags of NumPy, and its arrays over the memory of others.
#include "numpy_array.hpp"

#include <array>
#include <atomic>
#include <bit>
#include <optional>
#include <string>
#include <vector>

namespace adafactor::bindings {

namespace {

constexpr int kFirstAdded = 256;  // the numbers of NumPy's own types are below

// What NumPy lacks is a type that ml_dtypes, which JAX and others use, adds at run time; it has a number since then.
bool is_added(const py::dtype& dtype, DType wanted) {
  static std::array<std::atomic<int>, kDTypes.size()> numbers{};
  std::atomic<int>& number = numbers[static_cast<std::size_t>(wanted)];
  if (dtype.num() == number.load(std::memory_order_relaxed)) return true;
  if (dtype.itemsize() != item_size(wanted) || py::str(dtype).cast<std::string>() != name(wanted)) return false;
  number.store(dtype.num(), std::memory_order_relaxed);
  return true;
}

std::optional<DType> known_dtype(const py::dtype& dtype) {
  const bool added = dtype.num() >= kFirstAdded;
  for (const DType each : kDTypes) {
    const char letter = traits_of(each).letter;
    if (added ? !letter && is_added(dtype, each) : dtype.char_() == letter) return each;
  }
  return std::nullopt;
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

py::dtype numpy_dtype(DType dtype) {
  return py::dtype(traits_of(dtype).letter ? name(dtype) : "uint" + std::to_string(8 * item_size(dtype)));
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
  py::array result(numpy_dtype(array.dtype), shape, strides, array.data, owner);
  if (array.permission != Permission::granted) result.attr("flags").attr("writeable") = false;
  return result;
}

}  // namespace adafactor::bindings
