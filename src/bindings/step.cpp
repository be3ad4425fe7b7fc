// One step: the arrays become views and are held against the plan, then the core runs without the GIL.
#include <string>
#include <utility>

#include "adafactor/door/nonfinite.hpp"
#include "bindings.hpp"
#include "gil.hpp"
#include "other_runtimes.hpp"

namespace adafactor::bindings {

namespace {

using Rates = std::vector<std::pair<double, bool>>;

// What tells a library of a write, and the arrays of it that an update writes.
using Marks = std::vector<std::pair<py::object, py::list>>;

// Everything that a step borrows from Python, in the plan's order of leaves.
struct Borrowed {
  const py::list& params;
  const py::list& grads;
  const py::list& outputs;  // the same list as params where the step is in place
  Access access;            // to the parameters

  bool in_place() const { return outputs.is(params); }
  const py::list& of(Purpose purpose) const {
    return purpose == Purpose::gradient ? grads : purpose == Purpose::output ? outputs : params;
  }
};

// Reads the arrays, and holds each that is another one than in the last call against the plan.
void take_arrays(StateObject& object, const Borrowed& borrowed) {
  const std::vector<LeafPlan>& leaves = object.state.plan().leaves();
  for (const py::list* list : {&borrowed.params, &borrowed.grads, &borrowed.outputs}) {
    if (list->size() != leaves.size()) throw py::index_error("a list of arrays that is not as long as the plan");
  }
  object.session.take(borrowed.in_place(),
                      [&](Purpose purpose, std::size_t leaf, TensorView& view, std::int64_t* strides) {
                        PyObject* array = PyList_GET_ITEM(borrowed.of(purpose).ptr(), static_cast<Py_ssize_t>(leaf));
                        const bool gradient = purpose == Purpose::gradient;
                        if (gradient && array == Py_None) return std::exchange(view, {}).data != nullptr;
                        const LeafSpec& spec = leaves[leaf].spec;
                        const Request request{purpose == Purpose::output ? Access::write
                                              : gradient                 ? Access::read
                                                                         : borrowed.access,
                                              gradient ? gradients_of(spec.dtype) : only(spec.dtype),
                                              gradient ? Role::grads : Role::params, static_cast<std::int64_t>(leaf)};
                        return object.reader.renew(view, array, request, strides, static_cast<int>(spec.shape.size()));
                      });
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
  const Scalars scalars = call_scalars(state.plan(), state.counters, outcome, rate);
  return py::make_tuple(outcome.updated, outcome.skipped, scalars.learning_rate, scalars.beta_2, scalars.rho,
                        outcome.global_grad_norm);
}

py::tuple run_step(StateObject& object, const py::list& params, const py::list& grads, const py::list& outputs,
                   const Rates& rates, double grad_multiplier, bool completes, const Marks& marks) {
  const GiveBack give_back{object.reader};
  take_arrays(object, {params, grads, outputs, outputs.is(params) ? Access::write : Access::read});
  Session& session = object.session;
  session.refuse_shared(object.state);
  if (rates.size() != object.state.plan().knobs().size()) throw py::value_error("rates: one for each row of knobs");
  session.rates().clear();
  for (const auto& [value, scheduled] : rates) session.rates().push_back({value, scheduled});
  look_for_runtimes();
  const Backend& backend = cpu_backend();
  const Outcome outcome = session.make_call(grad_multiplier, completes, [&](const Call& call) {
    return without_gil([&] { return step(object.state, call, backend); });
  });
  object.threads = outcome.threads;
  if (outcome.updated) {
    for (const auto& [mark, arrays] : marks) mark_written(mark, arrays);
  }
  return py::make_tuple(summary_of(object.state, outcome, session.rates().front()), outcome.nonfinite_leaf,
                        reports_of(object.state, outcome));
}

// The checks of a step for parameters alone, which somebody else is going to write or, if not `written`, to read.
void check_params(StateObject& object, const py::list& params, bool written) {
  py::list absent;
  for (std::size_t i = 0; i < params.size(); ++i) absent.append(py::none());
  const GiveBack give_back{object.reader};
  take_arrays(object, {params, absent, params, written ? Access::write : Access::read});
  if (written) object.session.refuse_shared(object.state);
}

// What is not finite, after a call that changed nothing: the arrays of that call are read once more.
void refuse_leaf(StateObject& object, const py::list& params, const py::list& grads, std::size_t leaf) {
  const bool gradient = role_of_nonfinite(object.state, leaf) == Role::grads;
  const py::object array = (gradient ? grads : params)[leaf];
  const GiveBack give_back{object.reader};
  TensorView view;
  std::int64_t strides[kMaxRank];
  if (!array.is_none()) object.reader.renew(view, array, {}, strides, kMaxRank);
  refuse_nonfinite(object.state, leaf, view.data ? nonfinite_text(view) : std::string());
}

}  // namespace

void bind_step(py::module_& m) {
  auto type = py::reinterpret_borrow<py::classh<StateObject>>(m.attr("State"));
  type.def(
      "step", &run_step, py::arg("params"), py::arg("grads"), py::arg("outputs"), py::arg("rates"),
      py::arg("grad_multiplier"), py::arg("completes"), py::arg("marks"),
      "One call, by whoever acquired the state: (summary, first non-finite leaf or -1, the arrays of its report).");
  type.def("check_params", &check_params, py::arg("params"), py::arg("written") = true,
           "The checks of a step, for parameters alone.")
      .def("refuse_nonfinite", &refuse_leaf, py::arg("params"), py::arg("grads"), py::arg("leaf"),
           "Raises what is to be said of a leaf that is not finite, after a call that changed nothing.");
}

}  // namespace adafactor::bindings
