// States: the memory of the moments as NumPy arrays without a copy, the counters, and who may use it.
#include <algorithm>
#include <stdexcept>
#include <string>
#include <tuple>

#include "bindings.hpp"
#include "numpy_array.hpp"

namespace adafactor::bindings {

namespace {

// The counters of a leaf, and of all, as Python has them.
using Count = std::tuple<std::int64_t, bool, bool>;
using AllCounts = std::tuple<std::int64_t, std::int64_t, std::int64_t, std::vector<Count>>;

// A view of one piece of the state. It has the leaf's own order of axes; in memory the slice axes come first.
py::object array_of(const py::object& owner, std::size_t leaf_index, const std::string& kind_name) {
  auto& state = owner.cast<StateObject&>().state;
  const LeafPlan& leaf = state.plan().leaves().at(leaf_index);
  const auto found = std::find(kStateKindNames.begin(), kStateKindNames.end(), kind_name);
  if (found == kStateKindNames.end()) throw py::key_error(kind_name);
  const auto kind = static_cast<StateKind>(found - kStateKindNames.begin());
  const StateArray& array = leaf.state[static_cast<std::size_t>(kind)];
  if (!array.exists()) return py::none();

  const std::size_t rank = leaf.spec.shape.size();
  std::vector<std::int64_t> strides(rank);
  strides_of_state(leaf, kind, strides.data());
  std::vector<py::ssize_t> shape;
  std::vector<py::ssize_t> bytes;
  for (std::size_t axis = 0; axis < rank; ++axis) {
    if (!has_axis(kind, leaf.layout, static_cast<int>(axis))) continue;
    shape.push_back(leaf.spec.shape[axis]);
    bytes.push_back(strides[axis] * item_size(array.dtype));
  }
  return py::array(numpy_dtype(array.dtype), shape, bytes, state.memory() + array.offset, owner);
}

py::array memory_of(const py::object& owner) {
  auto& state = owner.cast<StateObject&>().state;
  return py::array(py::dtype("uint8"), {static_cast<py::ssize_t>(state.plan().state_nbytes())}, {py::ssize_t{1}},
                   state.memory(), owner);
}

AllCounts counters_of(const StateObject& object) {
  const Counters& counters = object.state.counters;
  std::vector<Count> leaves;
  for (const LeafCount& count : counters.leaves) leaves.emplace_back(count.updates, count.accumulated, count.stopped);
  return {counters.updates, counters.calls, counters.skips, std::move(leaves)};
}

void set_counters(StateObject& object, const AllCounts& counts) {
  const auto& [updates, calls, skips, leaves] = counts;
  Counters& counters = object.state.counters;
  if (leaves.size() != counters.leaves.size()) throw py::value_error("counters: one for each leaf");
  counters = {updates, calls, skips, counters.leaves};
  for (std::size_t i = 0; i < leaves.size(); ++i) {
    const auto& [of_leaf, accumulated, stopped] = leaves[i];
    counters.leaves[i] = {of_leaf, accumulated, stopped};
  }
}

// Taking the state is one instruction of a `with` to Python, so that Ctrl-C cannot come between it and the certainty of
// giving the state back.
void enter(StateObject& object) {
  try {
    acquire(object.state);
  } catch (const Error& error) {
    throw std::runtime_error(error.what());
  }
}

}  // namespace

void bind_state(py::module_& m) {
  m.attr("state_kinds") = py::cast(kStateKindNames);
  py::classh<StateObject>(m, "State", "The moments and counters of all leaves.")
      .def(py::init([](const std::shared_ptr<Plan>& plan) {
             compiled_kernels();  // where ADAFACTOR_ISA is wrong, it shows before anything is made
             return std::make_shared<StateObject>(plan);
           }),
           py::arg("plan").none(false))
      .def_property_readonly(
          "open_calls", [](const StateObject& object) { return object.state.open_calls(); },
          "Calls of the window of accumulation that is open.")
      .def(
          "drop_window", [](StateObject& object) { object.state.drop_window(); },
          "Forgets these calls; by whoever acquired the state.")
      .def("copy", [](const StateObject& object) { return std::make_shared<StateObject>(object.state); })
      .def("__enter__", &enter,
           "The state is the caller's until the end of the `with`; RuntimeError if it is another's.")
      .def("__exit__", [](StateObject& object, const py::args&) { object.state.release(); })
      .def_property_readonly(
          "torn", [](const StateObject& object) { return object.state.torn(); },
          "Whether a thread was in a call when this process was forked off.")
      .def_property_readonly(
          "plan", [](const StateObject& object) { return std::const_pointer_cast<Plan>(object.state.shared_plan()); })
      .def_property_readonly(
          "threads", [](const StateObject& object) { return object.threads; },
          "The most threads that a region of the last step had.")
      .def_property_readonly("updates", [](const StateObject& object) { return object.state.counters.updates; })
      .def_property_readonly("calls", [](const StateObject& object) { return object.state.counters.calls; })
      .def_property_readonly("skips", [](const StateObject& object) { return object.state.counters.skips; })
      .def_property("counters", &counters_of, &set_counters,
                    "Updates, calls, skips in a row, and of each leaf (updates, whether a gradient is in the running "
                    "window, whether the last update left it alone).")
      .def("array", &array_of, py::arg("leaf"), py::arg("kind"), "One array of the state, without a copy, or None.")
      .def("memory", &memory_of, "All arrays of the state as bytes, without a copy.");
}

}  // namespace adafactor::bindings
