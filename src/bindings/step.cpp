// One step: the arrays become views and are held against the plan, then the core runs without the GIL.
#include <limits>
#include <string>
#include <utility>

#include "bindings.hpp"
#include "gil.hpp"

namespace adafactor::bindings {

namespace {

using Rates = std::vector<std::pair<double, bool>>;

// Everything that a step borrows from Python, in the plan's order of leaves.
struct Borrowed {
  const py::list& params;
  const py::list& grads;
  const py::list& outputs;  // the same list as params where the step is in place
  Access access;            // to the parameters

  bool in_place() const { return outputs.is(params); }
};

// Renews the views, and holds each that is another one than in the last call against the plan.
class Taking {
 public:
  Taking(const Plan& plan, const Borrowed& borrowed, Arrays& arrays)
      : plan_(plan), borrowed_(borrowed), arrays_(arrays), strides_(arrays.strides.data()) {}

  void operator()() {
    for (std::size_t i = 0; i < plan_.leaves().size(); ++i) {
      take(arrays_.parameters[i], item(borrowed_.params, i), borrowed_.access, Role::params, i);
      if (borrowed_.in_place()) {
        if (arrays_.moved) arrays_.outputs[i] = arrays_.parameters[i];
        strides_ += arrays_.parameters[i].rank;
      } else {
        take(arrays_.outputs[i], item(borrowed_.outputs, i), Access::write, Role::params, i);
      }
      take(arrays_.gradients[i], item(borrowed_.grads, i), Access::read, Role::grads, i);
    }
  }

 private:
  static PyObject* item(const py::list& list, std::size_t i) {
    return PyList_GET_ITEM(list.ptr(), static_cast<Py_ssize_t>(i));
  }

  void take(TensorView& view, PyObject* object, Access access, Role role, std::size_t i) {
    const LeafPlan& expected = plan_.leaves()[i];
    const auto rank = static_cast<int>(expected.spec.shape.size());
    std::int64_t* strides = std::exchange(strides_, strides_ + rank);
    if (role == Role::grads && object == Py_None) {
      if (view.data) arrays_.set_moved();
      view = {};
      return;
    }
    const DType dtype = expected.spec.dtype;
    const Request request{access, role == Role::params ? only(dtype) : gradients_of(dtype), role,
                          static_cast<std::int64_t>(i)};
    if (!arrays_.reader.renew(view, object, request, strides, rank)) return;
    arrays_.set_moved();
    const TensorView found = std::exchange(view, {});  // nothing that fails the check is kept
    check_view(found, expected, role, request.leaf);
    view = found;
    // The plan's own copy: without the GIL nothing keeps somebody else from giving the array another shape.
    view.shape = expected.spec.shape.data();
  }

  const Plan& plan_;
  const Borrowed& borrowed_;
  Arrays& arrays_;
  std::int64_t* strides_;
};

void take_views(const Plan& plan, const Borrowed& borrowed, Arrays& arrays) {
  for (const py::list* list : {&borrowed.params, &borrowed.grads, &borrowed.outputs}) {
    if (list->size() != plan.leaves().size()) throw py::index_error("a list of arrays that is not as long as the plan");
  }
  arrays.make_room(plan);
  if (arrays.in_place != borrowed.in_place()) arrays.set_moved();
  arrays.in_place = borrowed.in_place();
  Taking(plan, borrowed, arrays)();
}

// Gives back what the arrays of a call lent, however the call ends.
struct GiveBack {
  ArrayReader& reader;
  ~GiveBack() { reader.give_back(); }
};

// An array for each number of a report, with a place for each leaf.
py::tuple reports_of(const State& state, const Outcome& outcome) {
  const auto count = static_cast<py::ssize_t>(state.plan().leaves().size());
  py::array_t<double> grad_norm(count), param_rms(count), update_rms(count), clip_factor(count), step_size(count);
  py::array_t<bool> nonfinite(count), at_floor(count);
  report_all(state, outcome.updated,
             {grad_norm.mutable_data(), param_rms.mutable_data(), update_rms.mutable_data(), clip_factor.mutable_data(),
              step_size.mutable_data(), nonfinite.mutable_data(), at_floor.mutable_data()});
  return py::make_tuple(std::move(grad_norm), std::move(param_rms), std::move(update_rms), std::move(clip_factor),
                        std::move(step_size), std::move(nonfinite), std::move(at_floor));
}

// (updated, skipped, learning rate, beta_2, rho, global norm)
py::tuple summary_of(const State& state, const Outcome& outcome, LearningRate rate) {
  const Scalars scalars = call_scalars(state, outcome, rate);
  return py::make_tuple(outcome.updated, outcome.skipped, scalars.learning_rate, scalars.beta_2, scalars.rho,
                        outcome.global_grad_norm);
}

py::tuple run_step(StateObject& object, const py::list& params, const py::list& grads, const py::list& outputs,
                   const Rates& rates, double grad_multiplier, bool completes) {
  Arrays& arrays = object.arrays;
  const Borrowed borrowed{params, grads, outputs, outputs.is(params) ? Access::write : Access::read};
  const GiveBack give_back{arrays.reader};
  take_views(object.state.plan(), borrowed, arrays);
  arrays.check_memory(object.state);
  arrays.rates.clear();
  if (rates.size() != object.state.plan().knobs().size()) throw py::value_error("rates: one for each row of knobs");
  for (const auto& [value, scheduled] : rates) arrays.rates.push_back({value, scheduled});
  const Call call{arrays.parameters.data(),
                  arrays.gradients.data(),
                  arrays.outputs.data(),
                  arrays.rates.data(),
                  grad_multiplier,
                  arrays.moved,
                  completes};
  const Outcome outcome = without_gil([&] { return step(object.state, call, compiled_kernels()); });
  arrays.moved = false;
  object.threads = outcome.threads;
  return py::make_tuple(summary_of(object.state, outcome, arrays.rates.front()), outcome.nonfinite_leaf,
                        reports_of(object.state, outcome));
}

// The checks of a step for parameters alone, which somebody else is going to write or, if not `written`, to read.
void check_params(StateObject& object, const py::list& params, bool written) {
  py::list absent;
  for (std::size_t i = 0; i < params.size(); ++i) absent.append(py::none());
  const GiveBack give_back{object.arrays.reader};
  take_views(object.state.plan(), {params, absent, params, written ? Access::write : Access::read}, object.arrays);
  if (written) object.arrays.check_memory(object.state);
}

}  // namespace

void bind_step(py::module_& m) {
  auto type = py::reinterpret_borrow<py::classh<StateObject>>(m.attr("State"));
  type.def(
      "step", &run_step, py::arg("params"), py::arg("grads"), py::arg("outputs"), py::arg("rates"),
      py::arg("grad_multiplier"), py::arg("completes"),
      "One call, by whoever acquired the state: (summary, first non-finite leaf or -1, the arrays of its report).");
  type.def("check_params", &check_params, py::arg("params"), py::arg("written") = true,
           "The checks of a step, for parameters alone.");
}

}  // namespace adafactor::bindings
