// Arrays in, numbers out.
#include "calls.hpp"

#include <cstdint>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>

#include "../cuda/library.hpp"
#include "adafactor/door/nonfinite.hpp"
#include "gil.hpp"
#include "other_runtimes.hpp"

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

// What a call was, once it has come to its end; see make_call().
py::tuple conclude(Calls& calls, const Outcome& outcome) {
  calls.threads = outcome.threads;
  calls.note(outcome);
  const Stepper& stepper = calls.stepper();
  const Scalars scalars = call_scalars(stepper.plan(), calls.counters(), outcome, calls.session.rates().front());
  return py::make_tuple(py::make_tuple(outcome.updated, outcome.skipped, scalars.learning_rate, scalars.beta_2,
                                       scalars.rho, outcome.global_grad_norm),
                        outcome.nonfinite_leaf, reports_of(stepper, outcome));
}

void mark_all(const Marks& marks) {
  for (const auto& [mark, arrays] : marks) mark_written(mark, arrays);
}

// Does what a device is asked to do with the call that runs, under the lock. Where it fails, it and the call are given
// up.
template <class Ask>
auto on_gpu(Calls& calls, const Ask& ask) {
  const auto give_up = [&](const char* why) {
    calls.gpu->give_up(why);
    calls.end_running();
    calls.reader.give_back();
    calls.late.is_open = false;
  };
  try {
    return without_gil(ask);
  } catch (const std::bad_alloc&) {
    constexpr const char* why = "no memory on the GPU in the middle of a call";
    give_up(why);
    throw std::runtime_error(why);
  } catch (const std::exception& error) {
    give_up(error.what());
    throw;
  }
}

// Awaits the call that runs, under the lock; see make_call(). It is open until the caller has put away what was found.
// While a graph is captured nobody can wait; then nothing has failed, and it stays open.
py::tuple finish(Calls& calls) {
  using Capture = cuda::CaptureError;
  std::optional<Capture> captured;
  const Outcome outcome = on_gpu(calls, [&] {
    try {
      return calls.late.running->finish();
    } catch (const Capture& error) {
      captured = error;
      return Outcome{};
    }
  });
  if (captured) throw *captured;
  py::tuple found = conclude(calls, outcome);
  calls.late.running.reset();
  calls.reader.give_back();
  return found;
}

// Gives a call to the GPU.
void begin(Calls& calls, const Call& call) {
  Gpu& gpu = *calls.gpu;
  gpu.equip(calls.stepper());
  for (void* other : calls.reader.other_streams()) gpu.follow(other);
  on_gpu(calls, [&] {
    calls.begin(call);
    calls.late.is_open = true;
    calls.late.running->run(kWholeCall);
    calls.late.running->close();
    gpu.end();
    return true;
  });
}

// Whether a call makes an update, as far as is known before it: it may still be skipped.
bool is_update(const Handed& handed, const Plan& plan, const Counters& counters) {
  const auto every = plan.call().gradient_accumulation_steps;
  return handed.completes || !every || (counters.calls + 1) % *every == 0;
}

// The same on a GPU. Where nobody waits, who is told of a write that is then left out has been told too much, and not
// too little.
py::object make_call_on_gpu(Calls& calls, const Handed& handed, const Marks& marks) {
  const Late::Lock lock(calls.late);
  const Plan& plan = calls.stepper().plan();
  const bool updates = is_update(handed, plan, calls.counters());
  calls.session.make_call(handed.grad_multiplier, handed.completes, handed.state, [&](const Call& call) {
    begin(calls, call);
    return Outcome{};
  });
  const std::uint64_t number = ++calls.late.number;
  const bool waits = !calls.gpu->stream().is_followed || !calls.reader.are_followed() ||
                     plan.call().on_nonfinite == OnNonfinite::raise;
  if (!waits) {
    if (updates) mark_all(marks);
    return py::int_(number);
  }
  const std::int64_t before = calls.counters().updates;
  py::tuple found = finish(calls);
  calls.late.is_open = false;
  if (calls.counters().updates > before) mark_all(marks);
  return found;
}

}  // namespace

void take_arrays(Calls& calls, const Plan& plan, const Borrowed& borrowed) {
  const std::vector<LeafPlan>& leaves = plan.leaves();
  for (const py::list* list : {&borrowed.params, &borrowed.grads, &borrowed.outputs}) {
    if (list->size() != leaves.size()) throw py::index_error("a list of arrays that is not as long as the plan");
  }
  if (calls.gpu && !leaves.empty()) {
    const Request first{.role = Role::params, .leaf = 0};
    calls.gpu->begin(calls.reader.stream_of(borrowed.params[0], calls.gpu->device(), first));
    calls.reader.set_stream(&calls.gpu->stream());
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

py::object make_call(Calls& calls, const Handed& handed, const Marks& marks) {
  look_for_runtimes();
  if (calls.gpu) return make_call_on_gpu(calls, handed, marks);
  const Outcome outcome =
      calls.session.make_call(handed.grad_multiplier, handed.completes, handed.state,
                              [&](const Call& call) { return without_gil([&] { return calls.make(call); }); });
  if (outcome.updated) mark_all(marks);
  return conclude(calls, outcome);
}

void settle(Calls& calls) {
  if (!calls.late.is_open) return;
  cuda::functions();  // not in a process that was forked off
  const Late::Lock lock(calls.late);
  if (!calls.late.running) return;
  calls.late.found = finish(calls);
  calls.late.found_by = calls.late.number;
  calls.late.is_open = false;
}

void refuse_capture(Calls& calls, const py::list& params) {
  if (!calls.gpu || params.empty()) return;
  const Request first{.role = Role::params, .leaf = 0};
  calls.gpu->refuse_capture(calls.reader.stream_of(params[0], calls.gpu->device(), first).handle);
}

void settle_for(Calls& calls, const py::list& params) {
  if (!calls.late.is_open) return;
  refuse_capture(calls, params);
  settle(calls);
}

py::object found_by(Calls& calls, std::uint64_t number) {
  settle(calls);
  if (calls.late.found_by == number) return calls.late.found;
  if (calls.late.number == number) calls.gpu->require_working();
  return py::none();
}

void refuse_leaf(Calls& calls, const py::list& params, const py::list& grads, std::size_t leaf) {
  const Stepper& stepper = calls.stepper();
  const bool gradient = role_of_nonfinite(stepper, leaf) == Role::grads;
  const py::object array = (gradient ? grads : params)[leaf];
  const GiveBack give_back{calls};
  TensorView view;
  std::int64_t strides[kMaxRank];
  if (!array.is_none()) calls.reader.renew(view, array, {}, strides, kMaxRank);
  std::string text;
  try {
    if (view.data) text = nonfinite_text(HostCopy(view).view());
  } catch (const std::bad_alloc&) {  // of a copy of an array on a device
    text = "values that are not finite";
  }
  refuse_nonfinite(stepper, leaf, text);
}

}  // namespace adafactor::bindings
