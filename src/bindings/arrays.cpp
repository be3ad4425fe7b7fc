// What the package asks of arrays outside of a step: shapes and dtypes, views of NumPy over their memory.
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings.hpp"
#include "devices.hpp"
#include "numpy_array.hpp"

namespace adafactor::bindings {

namespace {

// Keeps what a view of NumPy stands on.
struct Keeper {
  py::object object;
  ArrayReader reader;
};

py::object numpy_view(const py::object& object, bool written) {
  auto keeper = std::make_unique<Keeper>();
  RawArray array;
  try {
    array = keeper->reader.read(object, {written ? Access::write : Access::read, kParameterTypes, {}, -1});
  } catch (const Error& error) {
    throw Error(
        {.kind = error.kind(), .expected = error.expected(), .found = error.found()});  // which one, others know
  }
  if (array.device != Device{}) {
    throw Error({.expected = "one in the CPU's memory", .found = "an array on " + device_name(array.device)});
  }
  keeper->object = object;
  const py::capsule owner(keeper.release(), [](void* pointer) { delete static_cast<Keeper*>(pointer); });
  return numpy_over(array, owner);
}

// Reads an array of a device, in order with what its library does there.
RawArray read_there(ArrayReader& reader, const py::object& object, Access access, Stream& stream) {
  const Request request{access, kParameterTypes, {}, -1};
  const Device device = reader.read(object, request).device;
  if (device == Device{}) {
    throw Error({.expected = "an array on a device", .found = "one in the CPU's memory"});
  }
  stream = reader.stream_of(object, device, request);
  reader.set_stream(&stream);
  const RawArray array = reader.read(object, request);
  reader.set_stream(nullptr);
  return array;
}

// An array of a device as a view, whose strides, in elements, go to `strides`.
TensorView view_of(const RawArray& array, std::vector<std::int64_t>& strides) {
  for (int axis = 0; array.strides && axis < array.rank; ++axis) {
    strides.push_back(array.strides[axis] * array.stride_unit / item_size(array.dtype));
  }
  const bool has_strides = array.strides != nullptr;
  return {array.data, array.dtype, array.device, array.rank, array.shape, has_strides ? strides.data() : nullptr};
}

py::object copied_from_device(const py::object& object) {
  ArrayReader reader;
  Stream stream;
  RawArray array = read_there(reader, object, Access::read, stream);
  std::vector<std::int64_t> strides;
  auto copy = std::make_unique<HostCopy>(view_of(array, strides), stream.handle);
  array.data = copy->view().data;
  if (!copy->view().strides) array.strides = nullptr;
  const py::capsule owner(copy.release(), [](void* pointer) { delete static_cast<HostCopy*>(pointer); });
  return numpy_over(array, owner);
}

void copy_to_device(const py::object& object, const py::array& values) {
  ArrayReader reader;
  Stream stream;
  const RawArray array = read_there(reader, object, Access::write, stream);
  const py::array bits = py::array::ensure(values, py::array::c_style);
  if (bits.nbytes() != array.size() * item_size(array.dtype)) throw py::value_error("values: of another size");
  std::vector<std::int64_t> strides;
  if (bits.nbytes() > 0) write_elements(view_of(array, strides), bits.data(), stream.handle);
}

// What tells the elements of an array from those of all others: (device, address, shape, strides in bytes, dtype).
py::tuple place_of(const py::object& object) {
  ArrayReader reader;
  const RawArray array = reader.read(object, {Access::read, kParameterTypes, {}, -1});
  py::tuple shape(array.rank);
  py::tuple strides(array.rank);
  std::int64_t compact = item_size(array.dtype);
  for (int axis = array.rank - 1; axis >= 0; --axis) {
    const auto place = static_cast<std::size_t>(axis);
    shape[place] = array.shape[axis];
    strides[place] = array.strides ? array.strides[axis] * array.stride_unit : compact;
    compact *= array.shape[axis];
  }
  return py::make_tuple(device_name(array.device), reinterpret_cast<std::uintptr_t>(array.data), std::move(shape),
                        std::move(strides), name(array.dtype));
}

}  // namespace

void bind_arrays(py::module_& m) {
  m.def(
      "inspect_arrays",
      [](const py::list& objects) {
        ArrayReader reader;
        std::vector<std::tuple<std::vector<std::int64_t>, std::string, std::string>> found;
        for (const py::handle object : objects) {
          const auto leaf = static_cast<std::int64_t>(found.size());
          const RawArray array = reader.read(object, {Access::read, kParameterTypes, Role::params, leaf});
          found.emplace_back(std::vector<std::int64_t>(array.shape, array.shape + array.rank), name(array.dtype),
                             device_name(array.device));
        }
        return found;
      },
      py::arg("arrays"), "(shape, dtype, device) of each array of a list that may be parameters.");
  m.def("numpy_view", &numpy_view, py::arg("array"), py::arg("written") = false,
        "An array of NumPy over the same memory, without a copy; of bfloat16 the bits, as uint16.");
  m.def("place_of", &place_of, py::arg("array"),
        "What tells its elements from all others: (device, address, shape, strides in bytes, dtype).");
  m.def("copied_from_device", &copied_from_device, py::arg("array"),
        "A copy of an array of a device, as an array of NumPy; of bfloat16 the bits, as uint16.");
  m.def("copy_to_device", &copy_to_device, py::arg("array"), py::arg("values"),
        "Writes the bits of an array of NumPy of the same shape and type into one of a device.");
}

}  // namespace adafactor::bindings
