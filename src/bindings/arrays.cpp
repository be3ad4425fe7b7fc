// What the package asks of arrays outside of a step: shapes and dtypes, views of NumPy over their memory.
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bindings.hpp"
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
  keeper->object = object;
  const py::capsule owner(keeper.release(), [](void* pointer) { delete static_cast<Keeper*>(pointer); });
  return numpy_over(array, owner);
}

}  // namespace

void bind_arrays(py::module_& m) {
  m.def(
      "inspect_arrays",
      [](const py::list& objects) {
        ArrayReader reader;
        std::vector<std::pair<std::vector<std::int64_t>, std::string>> found;
        for (const py::handle object : objects) {
          const auto leaf = static_cast<std::int64_t>(found.size());
          const RawArray array = reader.read(object, {Access::read, kParameterTypes, Role::params, leaf});
          found.emplace_back(std::vector<std::int64_t>(array.shape, array.shape + array.rank), name(array.dtype));
        }
        return found;
      },
      py::arg("arrays"), "(shape, dtype) of each array of a list that may be parameters.");
  m.def("numpy_view", &numpy_view, py::arg("array"), py::arg("written") = false,
        "An array of NumPy over the same memory, without a copy; of bfloat16 the bits, as uint16.");
}

}  // namespace adafactor::bindings
