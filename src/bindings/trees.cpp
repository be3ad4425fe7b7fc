// What the package asks of the lists and dicts that hold arrays; nothing here looks into one.
#include <algorithm>
#include <vector>

#include "bindings.hpp"

namespace adafactor::bindings {

namespace {

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

// Whether two lists hold the very same objects in the same order.
bool are_same(const py::list& one, const py::list& other) {
  if (one.size() != other.size()) return false;
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(one.ptr()); ++i) {
    if (PyList_GET_ITEM(one.ptr(), i) != PyList_GET_ITEM(other.ptr(), i)) return false;
  }
  return true;
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

// The classes of the leaves, those of the gradients, and where there is no gradient.
py::tuple survey(const py::list& leaves, const py::list& gradients) {
  return py::make_tuple(classes_of(leaves), classes_of(gradients), places_of_none(gradients));
}

// What a container holds, in the order of the keys, as a list; None where it is not what was expected.
py::object values_of(const py::object& container, const py::tuple& expected) {
  const auto keys = py::reinterpret_borrow<py::tuple>(expected[2]);
  if (!py::type::handle_of(container).is(expected[1])) return py::none();
  if (PyDict_CheckExact(container.ptr())) return values_in_order(py::reinterpret_borrow<py::dict>(container), keys);
  auto items = py::reinterpret_steal<py::list>(PySequence_List(container.ptr()));
  if (!items) throw py::error_already_set();
  if (items.size() != keys.size()) return py::none();
  return items;
}

// The leaves of a tree whose containers, each with its place in the pool, its class and its keys, are plain ones; None
// of another.
py::object leaves_of(const py::object& tree, const py::tuple& containers, const py::tuple& slots) {
  const auto expected = [&](std::size_t i) { return py::reinterpret_borrow<py::tuple>(containers[i]); };
  if (containers.size() == 1) return values_of(tree, expected(0));  // mostly it is one, which holds the leaves
  py::list pool;
  pool.append(tree);
  for (std::size_t i = 0; i < containers.size(); ++i) {
    const py::object container = pool[expected(i)[0].cast<std::size_t>()];
    const py::object values = values_of(container, expected(i));
    if (values.is_none()) return values;
    pool += values;
  }
  py::list leaves(slots.size());
  for (std::size_t i = 0; i < slots.size(); ++i) leaves[i] = pool[slots[i].cast<std::size_t>()];
  return leaves;
}

py::object gather(const py::object& params, const py::object& grads, const py::tuple& containers,
                  const py::tuple& slots) {
  const py::object leaves = leaves_of(params, containers, slots);
  if (leaves.is_none()) return leaves;
  const py::object gradients = leaves_of(grads, containers, slots);
  if (gradients.is_none()) return gradients;
  return py::make_tuple(leaves, gradients) + survey(leaves, gradients);
}

}  // namespace

void mark_written(const py::object& mark, const py::list& arrays) {
  try {
    mark(arrays);
  } catch (py::error_already_set& error) {
    // One of them is an inference tensor, which has no counter.
    if (!error.matches(PyExc_RuntimeError)) throw;
    for (const py::handle array : arrays) {
      if (!array.attr("is_inference")().cast<bool>()) mark(array);
    }
  }
}

void bind_trees(py::module_& m) {
  m.def("are_same", &are_same, py::arg("one"), py::arg("other"), "Whether two lists hold the very same objects.");
  m.def("places_of_none", &places_of_none, py::arg("objects"), "Where None stands in a list.");
  m.def("classes_of", &classes_of, py::arg("objects"), "The different classes of the objects in a list.");
  m.def("places_held_alone", &places_held_alone, py::arg("objects"),
        "Where objects stand in a list that nothing else refers to.");
  m.def(
      "values_in_order", &values_in_order, py::arg("found"), py::arg("keys"),
      "The values of a dict with these different keys and no others, in the order of the keys; None of another dict.");
  m.def("survey", &survey, py::arg("leaves"), py::arg("gradients"),
        "The different classes of the leaves, those of the gradients, and where None stands among these.");
  m.def("gather", &gather, py::arg("params"), py::arg("grads"), py::arg("containers"), py::arg("slots"),
        "(leaves, gradients, and what `survey` says of them) of two trees of plain dicts, lists and tuples; None of "
        "others.");
  m.def("mark_written", &mark_written, py::arg("mark"), py::arg("arrays"),
        "Call what tells a library of a write; whoever traces Python does not see it.");
}

}  // namespace adafactor::bindings
