// Steps whose state belongs to somebody else: its arrays, and the count of each leaf, come along with each call.
#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "calls.hpp"
#include "devices.hpp"

namespace adafactor::bindings {

namespace {

// A count is stored as float32, as torch stores it: exact up to here.
constexpr float kMostUpdates = 0x1p24f;

// What the arrays of a leaf's state are called in its dictionary, kind by kind, and what its count is.
using Keys = std::array<py::str, kStateKinds + 1>;

// An array of a state that stays from call to call, and the loan of it.
struct Kept {
  py::object array;
  Loan loan;
};

// Whether an array is kept: what is larger its owner may want to be rid of between two calls.
bool is_small(const TensorView& view) {
  constexpr std::int64_t kMostBytes = 4096;
  std::int64_t bytes = item_size(view.dtype);
  for (int axis = 0; axis < view.rank && bytes <= kMostBytes; ++axis) bytes *= view.shape[axis];
  return bytes <= kMostBytes;
}

struct StepperObject final : Calls {
  StepperObject(const std::shared_ptr<const Plan>& plan, Keys names, std::unique_ptr<Gpu> on)
      : Calls(*plan, std::move(on)),
        maker(plan),
        keys(std::move(names)),
        state(*plan, gpu ? gpu->device() : Device{}),
        counts(plan->leaves().size()),
        of_leaves(plan->leaves().size()),
        kept(plan->leaves().size()) {
    of_all.leaves = of_leaves;
  }
  ~StepperObject() override { end_running(); }

  Stepper& stepper() override { return maker; }
  Counters& counters() override { return of_all; }
  Outcome make(const Call& call) override { return step(maker, of_all, call, cpu_backend()); }
  void begin(const Call& call) override { late.running.emplace(maker, of_all, call, gpu->backend()); }
  void note(const Outcome& outcome) override;

  Stepper maker;
  Keys keys;
  bool looks_first = true;  // whether the next call looks at every parameter before it writes one
  LentState state;
  std::vector<TensorView> counts;  // where the count of each leaf lies, in the CPU's memory
  std::vector<LeafCount> of_leaves;
  Counters of_all;  // of the call that runs; skips in a row, and which leaves have stopped, stay
  std::vector<std::array<Kept, kStateKinds + 1>> kept;  // of each leaf, in the order of the keys
  // What the call that runs reads and writes besides: a thread may take it out of its dictionary meanwhile.
  std::vector<py::object> borrowed;
};

// What a dictionary has for a leaf, kept until the end of the call at least; throws KeyError where it has not.
py::handle value_of(StepperObject& object, const py::list& states, std::size_t leaf, std::size_t which) {
  const py::str& key = object.keys[which];
  PyObject* entry = PyList_GET_ITEM(states.ptr(), static_cast<Py_ssize_t>(leaf));
  if (!PyDict_Check(entry)) throw py::type_error("states: a dictionary for each leaf");
  PyObject* value = PyDict_GetItemWithError(entry, key.ptr());
  if (!value && PyErr_Occurred()) throw py::error_already_set();
  if (!value) throw py::key_error(key.cast<std::string>());
  if (object.kept[leaf][which].array.ptr() == value) return value;
  return object.borrowed.emplace_back(py::reinterpret_borrow<py::object>(value));
}

// Makes a view that of an array of a leaf's state, by its place among the keys; as `ArrayReader::renew`.
bool renew_state(StepperObject& object, const py::list& states, std::size_t which, TensorView& view,
                 const Request& request, std::int64_t* strides, int room) {
  const auto leaf = static_cast<std::size_t>(request.leaf);
  const py::handle array = value_of(object, states, leaf, which);
  const bool is_another = object.reader.renew(view, array, request, strides, room);
  Kept& kept = object.kept[leaf][which];
  if (is_another && !kept.array.is(array)) {
    kept = {};
    if (is_small(view)) kept = {py::reinterpret_borrow<py::object>(array), object.reader.hold(array, request)};
  }
  return is_another;
}

void take_state(StepperObject& object, const py::list& states) {
  const std::vector<LeafPlan>& leaves = object.maker.plan().leaves();
  if (states.size() != leaves.size()) throw py::index_error("states: one for each leaf");
  object.session.take_state(object.state, [&](std::size_t leaf, StateKind kind, TensorView& view,
                                              std::int64_t* strides) {
    const auto index = static_cast<std::size_t>(kind);
    const Request request{Access::write, only(leaves[leaf].state[index].dtype), Role::state,
                          static_cast<std::int64_t>(leaf)};
    return renew_state(object, states, index, view, request, strides, static_cast<int>(leaves[leaf].spec.shape.size()));
  });
}

float& count_at(const TensorView& view) { return *static_cast<float*>(view.data); }

// Reads the counts. Nothing is written before the last of them is known to be one.
void take_counts(StepperObject& object, const py::list& states) {
  Counters& counters = object.of_all;
  counters.updates = 0;
  for (std::size_t i = 0; i < object.counts.size(); ++i) {
    Request request{Access::write, only(DType::float32), Role::state, static_cast<std::int64_t>(i)};
    request.is_count = true;
    TensorView& view = object.counts[i];
    renew_state(object, states, kStateKinds, view, request, nullptr, 0);
    if (view.rank != 0) {
      view = {};
      request.refuse(ErrorKind::value, "one number, without an axis, as the count of updates", "an array with axes");
    }
    if (view.device != Device{}) {
      view = {};
      request.refuse(ErrorKind::value, "a count of updates in the CPU's memory", "one on a GPU");
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
  const Plan& plan = object.maker.plan();
  for (std::size_t i = 0; i < object.counts.size(); ++i) {
    const bool own = plan.knobs_of(plan.leaves()[i]).count_updates == CountUpdates::leaf;
    count_at(object.counts[i]) = static_cast<float>(own ? object.of_leaves[i].updates : object.of_all.updates);
  }
}

void StepperObject::note(const Outcome& outcome) {
  if (outcome.updated) {
    advance_counts(*this);
    // Of a leaf without a gradient nothing was found.
    for (std::size_t i = 0; looks_first && i < of_leaves.size(); ++i) {
      of_leaves[i].stopped = of_leaves[i].stopped && session.array(i, Role::grads).data != nullptr;
    }
    looks_first = false;
  }
  borrowed.clear();
}

// Lets go of what a call has borrowed, however it ends, unless a GPU may still be at it.
struct LetGo {
  StepperObject& object;
  ~LetGo() {
    if (!object.late.is_open) object.borrowed.clear();
  }
};

// A number of a scaler, on the GPU; null for None.
const float* take_number(StepperObject& object, const py::object& array) {
  if (array.is_none()) return nullptr;
  const Request request{Access::read, only(DType::float32), Role::grads, -1};
  const RawArray found = object.reader.read(object.borrowed.emplace_back(array), request);
  if (found.size() != 1 || found.device != object.gpu->device()) {
    request.refuse(ErrorKind::value, "one number of a scaler on the GPU of the parameters",
                   std::to_string(found.size()) + " on " + device_name(found.device));
  }
  return static_cast<const float*>(found.data);
}

// Scale and found_inf of a scaler.
using Scaler = std::pair<py::object, py::object>;

void take_scaler(StepperObject& object, const std::optional<Scaler>& scaler) {
  if (!object.gpu) {
    if (scaler) throw py::value_error("scaler: of a stepper on a GPU");
    return;
  }
  cuda::LossScale loss_scale;
  if (scaler) loss_scale = {take_number(object, scaler->first), take_number(object, scaler->second)};
  object.gpu->set_loss_scale(loss_scale);
}

py::object make_step(StepperObject& object, const py::list& params, const py::list& grads, const py::list& states,
                     const Rates& rates, double grad_multiplier, const Marks& marks,
                     const std::optional<Scaler>& scaler) {
  const Plan& plan = object.maker.plan();
  const Held held(object.maker);
  settle_for(object, params);
  const GiveBack give_back{object};
  const LetGo let_go{object};
  object.borrowed.clear();
  take_arrays(object, plan, {params, grads, params, Access::write});
  take_state(object, states);
  take_counts(object, states);
  take_scaler(object, scaler);
  object.session.refuse_shared(object.state);
  take_rates(object, plan, rates);
  // As after an update that has left a leaf alone.
  if (object.looks_first) {
    for (LeafCount& count : object.of_leaves) count.stopped = true;
  }
  return make_call(object, {grad_multiplier, false, object.state.arrays()}, marks);
}

void take_over(StepperObject& object, StepperObject& other) {
  if (object.of_leaves.size() != other.of_leaves.size()) throw py::value_error("other: a stepper of other leaves");
  settle(other);
  object.of_all.skips = other.of_all.skips;
  object.looks_first = other.looks_first;
  for (std::size_t i = 0; i < object.of_leaves.size(); ++i) object.of_leaves[i].stopped = other.of_leaves[i].stopped;
  std::swap(object.kept, other.kept);
  if (object.gpu && other.gpu && object.gpu->take_scratch(*other.gpu, object.maker.plan())) {
    other.maker.workspace = nullptr;
    other.session.forget();
  }
}

}  // namespace

void bind_stepper(py::module_& m) {
  py::classh<StepperObject>(m, "Stepper", "Who makes the calls of a plan on a state that comes along with each.")
      .def(py::init([](const std::shared_ptr<Plan>& plan, const py::dict& names, const py::str& count,
                       const std::string& device, py::object allocate) {
             compiled_kernels();  // where ADAFACTOR_ISA is wrong, it shows before anything is made
             Keys keys;
             for (std::size_t kind = 0; kind < kStateKinds; ++kind) {
               if (names.contains(kStateKindNames[kind])) keys[kind] = py::str(names[kStateKindNames[kind]]);
             }
             keys.back() = count;
             return std::make_shared<StepperObject>(plan, std::move(keys), gpu_named(device, std::move(allocate)));
           }),
           py::arg("plan").none(false), py::arg("names"), py::arg("count"), py::arg("device") = "cpu",
           py::arg("allocate") = py::none(),
           "`names` says what each kind of array is called in the state of a leaf, and `count` what its count is; the "
           "others are as for a State.")
      .def(
          "step", &make_step, py::arg("params"), py::arg("grads"), py::arg("states"), py::arg("rates"),
          py::arg("grad_multiplier"), py::arg("marks"), py::arg("scaler") = py::none(),
          "One call, in place, as that of a State. `states` has for each leaf a dictionary: its arrays, each with the "
          "axes of the parameter, of which those that it lacks are 1 long, and its count of updates, a float32 without "
          "an axis, in the CPU's memory, which is written when the call has come to its end. `scaler`: on a GPU, "
          "two arrays of one float32 there, or None: the gradients are divided by the first, and where the second is "
          "not 0 the call is skipped.")
      .def(
          "refuse_capture", [](StepperObject& object, const py::list& params) { refuse_capture(object, params); },
          py::arg("params"), "Raises where a call on these would go into a CUDA graph that is captured now.")
      .def(
          "settle", [](StepperObject& object) { settle(object); },
          "Awaits a call that a GPU may still be at: then the counts are those of all calls.")
      .def("take_over", &take_over, py::arg("other"),
           "Remembers what a stepper of the same leaves does of its calls: skips, and what was not finite; and has the "
           "scratch that it has had on a GPU.")
      .def_property_readonly(
          "skips",
          [](StepperObject& object) {
            settle(object);
            return object.of_all.skips;
          },
          "Calls in a row, the last among them, that were skipped.")
      .def(
          "found", [](StepperObject& object, std::uint64_t number) { return found_by(object, number); },
          py::arg("number"),
          "What the call of that number would have returned if it had been waited for; None where there was another "
          "one since.")
      .def(
          "refuse_nonfinite",
          [](StepperObject& object, const py::list& params, const py::list& grads, std::size_t leaf) {
            refuse_leaf(object, params, grads, leaf);
          },
          py::arg("params"), py::arg("grads"), py::arg("leaf"),
          "Raises what is to be said of a leaf that is not finite, after a call that changed nothing.");
}

}  // namespace adafactor::bindings
