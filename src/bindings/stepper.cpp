// Steps whose state belongs to somebody else: its arrays, and the count of each leaf, come along with each call.
#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <string>
#include <utility>

#include "calls.hpp"
#include "gil.hpp"
#include "other_runtimes.hpp"

namespace adafactor::bindings {

namespace {

// A count is stored as float32, as torch stores it: exact up to here.
constexpr float kMostUpdates = 0x1p24f;

// What the arrays of a leaf's state are called in its dictionary, kind by kind, and what its count is.
using Keys = std::array<py::str, kStateKinds + 1>;

struct StepperObject : Calls {
  StepperObject(std::shared_ptr<const Plan> plan, Keys names)
      : Calls(*plan),
        stepper(std::move(plan)),
        keys(std::move(names)),
        state(stepper.plan()),
        counts(stepper.plan().leaves().size()),
        of_leaves(stepper.plan().leaves().size()) {
    counters.leaves = of_leaves;
  }

  Stepper stepper;
  Keys keys;
  bool looks_first = true;  // whether the next call looks at every parameter before it writes one
  LentState state;
  std::vector<TensorView> counts;  // where the count of each leaf lies
  std::vector<LeafCount> of_leaves;
  Counters counters;  // of the call that runs; skips in a row, and which leaves have stopped, stay
  // What the call that runs reads and writes: a thread may take it out of its dictionary meanwhile.
  std::vector<py::object> borrowed;
};

// What a dictionary has for a leaf, kept until the end of the call; throws KeyError where it has not.
py::handle value_of(StepperObject& object, const py::list& states, std::size_t leaf, const py::str& key) {
  PyObject* entry = PyList_GET_ITEM(states.ptr(), static_cast<Py_ssize_t>(leaf));
  if (!PyDict_Check(entry)) throw py::type_error("states: a dictionary for each leaf");
  PyObject* value = PyDict_GetItemWithError(entry, key.ptr());
  if (!value && PyErr_Occurred()) throw py::error_already_set();
  if (!value) throw py::key_error(key.cast<std::string>());
  return object.borrowed.emplace_back(py::reinterpret_borrow<py::object>(value));
}

void take_state(StepperObject& object, const py::list& states) {
  const std::vector<LeafPlan>& leaves = object.stepper.plan().leaves();
  if (states.size() != leaves.size()) throw py::index_error("states: one for each leaf");
  object.session.take_state(
      object.state, [&](std::size_t leaf, StateKind kind, TensorView& view, std::int64_t* strides) {
        const auto index = static_cast<std::size_t>(kind);
        const Request request{Access::write, only(leaves[leaf].state[index].dtype), Role::state,
                              static_cast<std::int64_t>(leaf)};
        return object.reader.renew(view, value_of(object, states, leaf, object.keys[index]), request, strides,
                                   static_cast<int>(leaves[leaf].spec.shape.size()));
      });
}

float& count_at(const TensorView& view) { return *static_cast<float*>(view.data); }

// Reads the counts. Nothing is written before the last of them is known to be one.
void take_counts(StepperObject& object, const py::list& states) {
  Counters& counters = object.counters;
  counters.updates = 0;
  for (std::size_t i = 0; i < object.counts.size(); ++i) {
    Request request{Access::write, only(DType::float32), Role::state, static_cast<std::int64_t>(i)};
    request.is_count = true;
    TensorView& view = object.counts[i];
    object.reader.renew(view, value_of(object, states, i, object.keys.back()), request, nullptr, 0);
    if (view.rank != 0) {
      view = {};
      request.refuse(ErrorKind::value, "one number, without an axis, as the count of updates", "an array with axes");
    }
    const float count = count_at(view);
    if (!(count >= 0 && count < kMostUpdates) || count != std::floor(count)) {
      request.refuse(ErrorKind::value, "a whole number from 0 to 2**24 - 1 as the count of updates",
                     std::to_string(count));
    }
    object.of_leaves[i].updates = static_cast<std::int64_t>(count);
    counters.updates = (std::max)(counters.updates, object.of_leaves[i].updates);
  }
  counters.calls = counters.updates;
}

// Writes the counts back: of a leaf that counts its own updates this, of another the number of all.
void advance_counts(StepperObject& object) {
  const Plan& plan = object.stepper.plan();
  for (std::size_t i = 0; i < object.counts.size(); ++i) {
    const bool own = plan.knobs_of(plan.leaves()[i]).count_updates == CountUpdates::leaf;
    count_at(object.counts[i]) = static_cast<float>(own ? object.of_leaves[i].updates : object.counters.updates);
  }
}

// Lets go of what a call has borrowed, however it ends.
struct Release {
  std::vector<py::object>& borrowed;
  ~Release() { borrowed.clear(); }
};

py::tuple make_step(StepperObject& object, const py::list& params, const py::list& grads, const py::list& states,
                    const Rates& rates, double grad_multiplier, const Marks& marks) {
  const Plan& plan = object.stepper.plan();
  const Held held(object.stepper);
  const GiveBack give_back{object.reader};
  const Release release{object.borrowed};
  take_arrays(object, plan, {params, grads, params, Access::write});
  take_state(object, states);
  take_counts(object, states);
  object.session.refuse_shared(object.state);
  take_rates(object, plan, rates);
  look_for_runtimes();
  const Backend& backend = cpu_backend();
  // As after an update that has left a leaf alone.
  if (object.looks_first) {
    for (LeafCount& count : object.of_leaves) count.stopped = true;
  }
  const Outcome outcome =
      object.session.make_call(grad_multiplier, false, object.state.arrays(), [&](const Call& call) {
        return without_gil([&] { return step(object.stepper, object.counters, call, backend); });
      });
  if (outcome.updated) {
    advance_counts(object);
    // Of a leaf without a gradient nothing was found.
    for (std::size_t i = 0; object.looks_first && i < object.of_leaves.size(); ++i) {
      LeafCount& count = object.of_leaves[i];
      count.stopped = count.stopped && object.session.array(i, Role::grads).data != nullptr;
    }
    object.looks_first = false;
  }
  return conclude(object, object.stepper, object.counters, outcome, marks);
}

void take_over(StepperObject& object, const StepperObject& other) {
  if (object.of_leaves.size() != other.of_leaves.size()) throw py::value_error("other: a stepper of other leaves");
  object.counters.skips = other.counters.skips;
  object.looks_first = other.looks_first;
  for (std::size_t i = 0; i < object.of_leaves.size(); ++i) object.of_leaves[i].stopped = other.of_leaves[i].stopped;
}

}  // namespace

void bind_stepper(py::module_& m) {
  py::classh<StepperObject>(m, "Stepper", "Who makes the calls of a plan on a state that comes along with each.")
      .def(py::init([](const std::shared_ptr<Plan>& plan, const py::dict& names, const py::str& count) {
             compiled_kernels();  // where ADAFACTOR_ISA is wrong, it shows before anything is made
             Keys keys;
             for (std::size_t kind = 0; kind < kStateKinds; ++kind) {
               if (names.contains(kStateKindNames[kind])) keys[kind] = py::str(names[kStateKindNames[kind]]);
             }
             keys.back() = count;
             return std::make_shared<StepperObject>(plan, std::move(keys));
           }),
           py::arg("plan").none(false), py::arg("names"), py::arg("count"),
           "`names` says what each kind of array is called in the state of a leaf, and `count` what its count is.")
      .def(
          "step", &make_step, py::arg("params"), py::arg("grads"), py::arg("states"), py::arg("rates"),
          py::arg("grad_multiplier"), py::arg("marks"),
          "One call, in place, as that of a State. `states` has for each leaf a dictionary: its arrays, each with the "
          "axes of the parameter, of which those that it lacks are 1 long, and its count of updates, a float32 without "
          "an axis.")
      .def("take_over", &take_over, py::arg("other"),
           "Remembers what a stepper of the same leaves does of its calls: skips, and what was not finite.")
      .def_property_readonly(
          "skips", [](const StepperObject& object) { return object.counters.skips; },
          "Calls in a row, the last among them, that were skipped.")
      .def(
          "refuse_nonfinite",
          [](StepperObject& object, const py::list& params, const py::list& grads, std::size_t leaf) {
            refuse_leaf(object, object.stepper, params, grads, leaf);
          },
          py::arg("params"), py::arg("grads"), py::arg("leaf"),
          "Raises what is to be said of a leaf that is not finite, after a call that changed nothing.");
}

}  // namespace adafactor::bindings
