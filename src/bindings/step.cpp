// One step of a state, which runs without the GIL.
#include "calls.hpp"

namespace adafactor::bindings {

namespace {

py::object run_step(StateObject& object, const py::list& params, const py::list& grads, const py::list& outputs,
                    const Rates& rates, double grad_multiplier, bool completes, const Marks& marks) {
  settle_for(object, params);
  const GiveBack give_back{object};
  take_arrays(object, object.state.plan(), {params, grads, outputs, outputs.is(params) ? Access::write : Access::read});
  object.session.refuse_shared(object.state);
  take_rates(object, object.state.plan(), rates);
  return make_call(object, {grad_multiplier, completes, nullptr}, marks);
}

// The checks of a step for parameters alone, which somebody else is going to write or, if not `written`, to read.
void check_params(StateObject& object, const py::list& params, bool written) {
  settle_for(object, params);
  py::list absent;
  for (std::size_t i = 0; i < params.size(); ++i) absent.append(py::none());
  const GiveBack give_back{object};
  take_arrays(object, object.state.plan(), {params, absent, params, written ? Access::write : Access::read});
  if (written) object.session.refuse_shared(object.state);
}

}  // namespace

void bind_step(py::module_& m) {
  auto type = py::reinterpret_borrow<py::classh<StateObject>>(m.attr("State"));
  type.def(
      "step", &run_step, py::arg("params"), py::arg("grads"), py::arg("outputs"), py::arg("rates"),
      py::arg("grad_multiplier"), py::arg("completes"), py::arg("marks"),
      "One call, by whoever acquired the state: (summary, first non-finite leaf or -1, the arrays of its report); None "
      "where a GPU may still be at it.");
  type.def(
          "refuse_capture", [](StateObject& object, const py::list& params) { refuse_capture(object, params); },
          py::arg("params"), "Raises where a call on these would go into a CUDA graph that is captured now.")
      .def("check_params", &check_params, py::arg("params"), py::arg("written") = true,
           "The checks of a step, for parameters alone.")
      .def(
          "refuse_nonfinite",
          [](StateObject& object, const py::list& params, const py::list& grads, std::size_t leaf) {
            refuse_leaf(object, params, grads, leaf);
          },
          py::arg("params"), py::arg("grads"), py::arg("leaf"),
          "Raises what is to be said of a leaf that is not finite, after a call that changed nothing.");
}

}  // namespace adafactor::bindings
