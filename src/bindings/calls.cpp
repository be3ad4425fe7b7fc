// Arrays in, numbers out.
#include "calls.hpp"

#include <string>

#include "adafactor/door/nonfinite.hpp"

namespace adafactor::bindings {

namespace {

// An array for each number of a report, with a place for each leaf.
py::tuple reports_of(const Stepper& stepper, const Outcome& outcome) {
  const auto count = static_cast<py::ssize_t>(stepper.plan().leaves().size());
  py::array_t<double> grad_norm(count), param_rms(count), update_rms(count), clip_factor(count), step_size(count);
  py::array_t<bool> nonfinite(count), at_floor(count);
  report_all(stepper, outcome.updated,
             {grad_norm.mutable_data(), param_rms.mutable_data(), update_rms.mutable_data(), clip_factor.mutable_data(),
              step_size.mutable_data(), nonfinite.mutable_data(), at_floor.mutable_data()});
  return py::make_tuple(std::move(grad_norm), std::move(param_rms), std::move(update_rms), std::move(clip_factor),
                        std::move(step_size), std::move(nonfinite), std::move(at_floor));
}

}  // namespace

void take_arrays(Calls& calls, const Plan& plan, const Borrowed& borrowed) {
  const std::vector<LeafPlan>& leaves = plan.leaves();
  for (const py::list* list : {&borrowed.params, &borrowed.grads, &borrowed.outputs}) {
    if (list->size() != leaves.size()) throw py::index_error("a list of arrays that is not as long as the plan");
  }
  calls.session.take(borrowed.in_place(),
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
                       return calls.reader.renew(view, array, request, strides, static_cast<int>(spec.shape.size()));
                     });
}

void take_rates(Calls& calls, const Plan& plan, const Rates& rates) {
  if (rates.size() != plan.knobs().size()) throw py::value_error("rates: one for each row of knobs");
  std::vector<LearningRate>& taken = calls.session.rates();
  taken.clear();
  for (const auto& [value, scheduled] : rates) taken.push_back({value, scheduled});
}

py::tuple conclude(Calls& calls, const Stepper& stepper, const Counters& counters, const Outcome& outcome,
                   const Marks& marks) {
  calls.threads = outcome.threads;
  if (outcome.updated) {
    for (const auto& [mark, arrays] : marks) mark_written(mark, arrays);
  }
  const Scalars scalars = call_scalars(stepper.plan(), counters, outcome, calls.session.rates().front());
  return py::make_tuple(py::make_tuple(outcome.updated, outcome.skipped, scalars.learning_rate, scalars.beta_2,
                                       scalars.rho, outcome.global_grad_norm),
                        outcome.nonfinite_leaf, reports_of(stepper, outcome));
}

void refuse_leaf(Calls& calls, const Stepper& stepper, const py::list& params, const py::list& grads,
                 std::size_t leaf) {
  const bool gradient = role_of_nonfinite(stepper, leaf) == Role::grads;
  const py::object array = (gradient ? grads : params)[leaf];
  const GiveBack give_back{calls.reader};
  TensorView view;
  std::int64_t strides[kMaxRank];
  if (!array.is_none()) calls.reader.renew(view, array, {}, strides, kMaxRank);
  refuse_nonfinite(stepper, leaf, view.data ? nonfinite_text(view) : std::string());
}

}  // namespace adafactor::bindings
