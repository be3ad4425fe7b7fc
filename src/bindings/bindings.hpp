// What the files of the extension module share: one registration function a topic, and the state as Python holds it.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "adafactor/adafactor.hpp"
#include "adafactor/door/memory.hpp"
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
void bind_build(py::module_& m);

// The knobs of one row, from a dictionary of all knobs that the core knows.
Config config_from(const py::dict& knobs);

// Where the arrays of one call lie; kept from call to call, so that a steady step allocates nothing, and finds out
// nothing again of an array that has not moved.
struct Arrays {
  ArrayReader reader;
  std::vector<TensorView> parameters;
  std::vector<TensorView> gradients;
  std::vector<TensorView> outputs;
  std::vector<std::int64_t> strides;
  std::vector<LearningRate> rates;
  bool in_place = false;
  bool apart = false;  // whether they were found to share no memory
  bool moved = true;   // whether one is new since the last step
  MemoryCheck memory;

  // Gives the views their places, all empty.
  void make_room(const Plan& plan) {
    const std::size_t count = plan.leaves().size();
    if (parameters.size() == count) return;
    std::size_t room = 0;
    for (const LeafPlan& leaf : plan.leaves()) room += 3 * leaf.spec.shape.size();
    strides.resize(room);
    parameters.resize(count);
    gradients.resize(count);
    outputs.resize(count);
  }

  void set_moved() {
    apart = false;
    moved = true;
  }

  void check_memory(const State& state) {
    if (!apart) memory.refuse_shared(state, outputs, gradients, in_place ? std::span<const TensorView>() : parameters);
    apart = true;
  }
};

// A state and what the binding keeps beside it.
struct StateObject {
  explicit StateObject(std::shared_ptr<const Plan> plan) : state(std::move(plan)) {}
  explicit StateObject(const State& other) : state(other) {}

  State state;
  Arrays arrays;
  int threads = 0;  // the most that a region of the last step had
};

}  // namespace adafactor::bindings
