// What the files of the extension module share: one registration function a topic, and the state as Python holds it.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "adafactor/adafactor.hpp"
#include "adafactor/door/session.hpp"
#include "gil.hpp"
#include "gpu.hpp"
#include "late.hpp"
#include "reader.hpp"

namespace adafactor::bindings {

namespace py = pybind11;

void bind_arrays(py::module_& m);
void bind_bits(py::module_& m);
void bind_device_arrays(py::module_& m);
void bind_errors(py::module_& m);
void bind_config(py::module_& m);
void bind_plan(py::module_& m);
void bind_state(py::module_& m);
void bind_step(py::module_& m);
void bind_stepper(py::module_& m);
void bind_trees(py::module_& m);
void bind_build(py::module_& m);

// Tells a library, by a function of its own, that arrays have new values. A compiler of Python that comes upon a call
// from here sees no code to take into a graph.
void mark_written(const py::object& mark, const py::list& arrays);

// The knobs of one row, from a dictionary of all knobs that the core knows.
Config config_from(const py::dict& knobs);

// What the calls of one stepper keep from one to the next.
struct Calls {
  // On the GPU, or where that is null on the CPU.
  Calls(const Plan& plan, std::unique_ptr<Gpu> of_calls)
      : gpu(std::move(of_calls)), session(plan, gpu ? gpu->device() : Device{}) {}
  virtual ~Calls() = default;

  virtual Stepper& stepper() = 0;
  virtual Counters& counters() = 0;
  // Makes a call on the CPU, or begins one on the GPU, as `late.running`.
  virtual Outcome make(const Call& call) = 0;
  virtual void begin(const Call& call) = 0;
  // A call has come to its end.
  virtual void note(const Outcome&) {}
  // Ends a call that still runs, after which nothing goes on. Without the GIL: what the GPU waits for may want it.
  void end_running() {
    if (!late.running) return;
    without_gil([&] {
      late.running.reset();
      return true;
    });
  }

  std::unique_ptr<Gpu> gpu;
  Session session;
  ArrayReader reader;
  int threads = 0;  // the most that a region of the last step had
  Late late;
};

// A state and its calls.
struct StateObject : Calls {
  explicit StateObject(std::shared_ptr<const Plan> plan) : Calls(*plan, nullptr), state(std::move(plan)) {}
  StateObject(std::shared_ptr<const Plan> plan, std::unique_ptr<Gpu> on)
      : Calls(*plan, std::move(on)), state(plan, gpu->take(plan->state_nbytes())) {}
  explicit StateObject(const State& other) : Calls(other.plan(), nullptr), state(other) {}
  ~StateObject() override { end_running(); }

  Stepper& stepper() override { return state; }
  Counters& counters() override { return state.counters; }
  Outcome make(const Call& call) override { return step(state, call, cpu_backend()); }
  void begin(const Call& call) override { late.running.emplace(state, call, gpu->backend()); }

  State state;
};

// The GPU that a word for a device names, such as "cuda:0", its memory from `allocate` (see Gpu); null for "cpu".
std::unique_ptr<Gpu> gpu_named(const std::string& device, py::object allocate);

}  // namespace adafactor::bindings
