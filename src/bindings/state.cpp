// States: the memory of the moments as arrays, the counters, and who may use it.
#include <algorithm>
#include <stdexcept>
#include <string>
#include <tuple>

#include "calls.hpp"
#include "numpy_array.hpp"
#include "state_array.hpp"

namespace adafactor::bindings {

namespace {

// The counters of a leaf, and of all, as Python has them.
using Count = std::tuple<std::int64_t, bool, bool>;
using AllCounts = std::tuple<std::int64_t, std::int64_t, std::int64_t, std::vector<Count>>;

// A state whose counters are those of all its calls.
StateObject& settled(StateObject& object) {
  settle(object);
  return object;
}

// A piece of the state in the host's memory, which is `memory` as memory_of() has it.
py::object array_of(const StateObject& object, std::size_t leaf, const std::string& kind, const py::array& memory) {
  const Plan& plan = object.state.plan();
  if (memory.nbytes() != plan.state_nbytes()) throw py::value_error("memory: that of the state");
  const std::optional<StatePiece> piece = piece_of(plan, leaf, kind);
  if (!piece) return py::none();
  std::vector<py::ssize_t> strides;
  for (const std::int64_t stride : piece->strides) strides.push_back(stride * item_size(piece->dtype));
  return py::array(numpy_dtype(piece->dtype), piece->shape, strides,
                   static_cast<const std::byte*>(memory.data()) + piece->offset, memory);
}

py::array memory_of(const py::object& owner) {
  auto& object = owner.cast<StateObject&>();
  const auto nbytes = static_cast<py::ssize_t>(object.state.plan().state_nbytes());
  if (!object.gpu) return py::array(py::dtype("uint8"), {nbytes}, {py::ssize_t{1}}, object.state.memory(), owner);
  py::array_t<std::uint8_t> copy(nbytes);
  settle(object);
  if (nbytes > 0) object.gpu->copy(copy.mutable_data(), object.state.memory(), nbytes);
  return copy;
}

void assign_memory(StateObject& object, const py::array_t<std::uint8_t, py::array::c_style>& bytes) {
  settle(object);
  const std::int64_t nbytes = object.state.plan().state_nbytes();
  if (bytes.nbytes() != nbytes) throw py::value_error("memory: as many bytes as the state has");
  if (object.gpu && nbytes > 0) {
    object.gpu->copy(object.state.memory(), bytes.data(), nbytes);
  } else if (nbytes > 0) {
    std::memmove(object.state.memory(), bytes.data(), static_cast<std::size_t>(nbytes));
  }
}

void drop_window(StateObject& object) {
  settle(object);
  if (!object.gpu) return object.state.drop_window();
  object.state.drop_window([&](std::byte* array, std::int64_t nbytes) { object.gpu->zero(array, nbytes); });
}

std::shared_ptr<StateObject> copy_of(StateObject& object) {
  settle(object);
  if (!object.gpu) return std::make_shared<StateObject>(object.state);
  auto gpu = std::make_unique<Gpu>(object.gpu->device(), object.gpu->allocator());
  auto copy = std::make_shared<StateObject>(object.state.shared_plan(), std::move(gpu));
  const Counters& counters = object.state.counters;
  std::ranges::copy(counters.leaves, copy->state.counters.leaves.begin());
  copy->state.counters = {counters.updates, counters.calls, counters.skips, copy->state.counters.leaves};
  const std::int64_t nbytes = object.state.plan().state_nbytes();
  if (nbytes > 0) object.gpu->copy(copy->state.memory(), object.state.memory(), nbytes);
  return copy;
}

AllCounts counters_of(StateObject& object) {
  const Counters& counters = settled(object).state.counters;
  std::vector<Count> leaves;
  for (const LeafCount& count : counters.leaves) leaves.emplace_back(count.updates, count.accumulated, count.stopped);
  return {counters.updates, counters.calls, counters.skips, std::move(leaves)};
}

void set_counters(StateObject& object, const AllCounts& counts) {
  const auto& [updates, calls, skips, leaves] = counts;
  Counters& counters = settled(object).state.counters;
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
      .def(
          py::init([](const std::shared_ptr<Plan>& plan, const std::string& device, py::object allocate) {
            compiled_kernels();  // where ADAFACTOR_ISA is wrong, it shows before anything is made
            std::unique_ptr<Gpu> gpu = gpu_named(device, std::move(allocate));
            return gpu ? std::make_shared<StateObject>(plan, std::move(gpu)) : std::make_shared<StateObject>(plan);
          }),
          py::arg("plan").none(false), py::arg("device") = "cpu", py::arg("allocate") = py::none(),
          "`device`: \"cpu\", or a GPU such as \"cuda:0\", on which `allocate(nbytes)` gives an array of as many bytes "
          "of float32, all zeros; None: CUDA's own memory is taken.")
      .def_property_readonly(
          "open_calls", [](StateObject& object) { return settled(object).state.open_calls(); },
          "Calls of the window of accumulation that is open.")
      .def("drop_window", &drop_window, "Forgets these calls; by whoever acquired the state.")
      .def("copy", &copy_of, "An independent state; by whoever acquired this one.")
      .def("__enter__", &enter,
           "The state is the caller's until the end of the `with`; RuntimeError if it is another's.")
      .def("__exit__", [](StateObject& object, const py::args&) { object.state.release(); })
      .def_property_readonly(
          "torn", [](const StateObject& object) { return object.state.torn(); },
          "Whether a thread was in a call when this process was forked off.")
      .def_property_readonly(
          "plan", [](const StateObject& object) { return std::const_pointer_cast<Plan>(object.state.shared_plan()); })
      .def_property_readonly(
          "threads", [](StateObject& object) { return settled(object).threads; },
          "The most threads that a region of the last step had.")
      .def_property_readonly("updates", [](StateObject& object) { return settled(object).state.counters.updates; })
      .def_property_readonly("calls", [](StateObject& object) { return settled(object).state.counters.calls; })
      .def_property_readonly("skips", [](StateObject& object) { return settled(object).state.counters.skips; })
      .def(
          "found", [](StateObject& object, std::uint64_t number) { return found_by(object, number); },
          py::arg("number"),
          "What the call of that number would have returned if it had been waited for; None where there was another "
          "one since.")
      .def_property("counters", &counters_of, &set_counters,
                    "Updates, calls, skips in a row, and of each leaf (updates, whether a gradient is in the running "
                    "window, whether the last update left it alone).")
      .def("memory", &memory_of,
           "All arrays of the state as bytes: the memory itself, or a copy of what lies on a device; by whoever "
           "acquired the state where that may be so.")
      .def("array", &array_of, py::arg("leaf"), py::arg("kind"), py::arg("memory"),
           "One array of the state in such memory, without a copy, or None.")
      .def("assign", &assign_memory, py::arg("memory"), "Fills all arrays of the state.")
      .def("piece", &device_piece, py::arg("leaf"), py::arg("kind"),
           "One array of a state on a device, for any library that takes DLPack, or None.");
}

}  // namespace adafactor::bindings
