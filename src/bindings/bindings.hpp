// What the files of the extension module share: one registration function a topic, and the state as Python holds it.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "adafactor/adafactor.hpp"
#include "adafactor/door/session.hpp"
#include "reader.hpp"

namespace adafactor::bindings {

namespace py = pybind11;

void bind_arrays(py::module_& m);
void bind_bits(py::module_& m);
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
  explicit Calls(const Plan& plan) : session(plan) {}

  Session session;
  ArrayReader reader;
  int threads = 0;  // the most that a region of the last step had
};

// A state and its calls.
struct StateObject : Calls {
  explicit StateObject(std::shared_ptr<const Plan> plan) : Calls(*plan), state(std::move(plan)) {}
  explicit StateObject(const State& other) : Calls(other.plan()), state(other) {}

  State state;
};

}  // namespace adafactor::bindings
