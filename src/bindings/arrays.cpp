// What the package asks of arrays outside of a step, and of the lists and dicts that hold them: shapes and dtypes,
// views of NumPy over their memory, where in a tree they are.
#include <algorithm>
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

// The search is linear: mostly there is one class, or two that take turns.
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

// Where objects stand that nothing but the list refers to.
py::list places_held_alone(const py::list& objects) {
  py::list places;
  for (std::size_t i = 0; i < objects.size(); ++i) {
    if (Py_REFCNT(PyList_GET_ITEM(objects.ptr(), static_cast<Py_ssize_t>(i))) == 1) places.append(i);
  }
  return places;
}

// Nearly always the dict has its keys in this order, and they are the same objects: then nothing is looked up.
py::object values_in_order(const py::dict& found, const py::tuple& keys) {
  const Py_ssize_t count = PyTuple_GET_SIZE(keys.ptr());
  if (PyDict_Size(found.ptr()) != count) return py::none();
  py::list values(static_cast<std::size_t>(count));
  Py_ssize_t place = 0;
  bool in_order = true;
  for (Py_ssize_t i = 0; i < count; ++i) {
    PyObject* wanted = PyTuple_GET_ITEM(keys.ptr(), i);
    PyObject* key = nullptr;
    PyObject* value = nullptr;
    in_order = in_order && PyDict_Next(found.ptr(), &place, &key, &value) && key == wanted;
    if (!in_order) value = PyDict_GetItemWithError(found.ptr(), wanted);
    if (!value && PyErr_Occurred()) throw py::error_already_set();
    if (!value) return py::none();
    PyList_SET_ITEM(values.ptr(), i, Py_NewRef(value));
  }
  return values;
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
  // A compiler of Python that comes upon a call from here sees no code to take into a graph.
  m.def(
      "call_untraced", [](const py::object& function, const py::object& argument) { function(argument); },
      py::arg("function"), py::arg("argument"),
      "Call a function of one argument where nobody who traces Python looks.");
  m.def("classes_of", &classes_of, py::arg("objects"), "The different classes of the objects in a list.");
  m.def("places_held_alone", &places_held_alone, py::arg("objects"),
        "Where objects stand in a list that nothing else refers to.");
  m.def("places_of_none", &places_of_none, py::arg("objects"), "Where None stands in a list.");
  m.def(
      "values_in_order", &values_in_order, py::arg("found"), py::arg("keys"),
      "The values of a dict with these different keys and no others, in the order of the keys; None of another dict.");
  m.def("numpy_view", &numpy_view, py::arg("array"), py::arg("written") = false,
        "An array of NumPy over the same memory, without a copy; of bfloat16 the bits, as uint16.");
}

}  // namespace adafactor::bindings
