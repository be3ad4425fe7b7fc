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
#include "adafactor/overlap.hpp"

namespace adafactor::bindings {

namespace py = pybind11;

void bind_errors(py::module_& m);
void bind_config(py::module_& m);
void bind_plan(py::module_& m);
void bind_state(py::module_& m);
void bind_step(py::module_& m);
void bind_build(py::module_& m);

// The knobs of one row, from a dictionary of all knobs that the core knows.
Config config_from(const py::dict& knobs);

// Where the arrays of one call lie; kept from call to call, so that a steady step allocates nothing.
struct Arrays {
  std::vector<TensorView> parameters;
  std::vector<TensorView> gradients;
  std::vector<TensorView> outputs;
  std::vector<std::int64_t> strides;
  std::vector<LearningRate> rates;

  // Throws Error where an array that is written shares memory with itself or with any other that the call touches.
  void check_memory(State& state, bool in_place);

 private:
  struct Place {
    const char* role;
    std::int64_t leaf;
    friend bool operator==(const Place&, const Place&) = default;
  };

  void add_regions(const std::vector<TensorView>& views, const char* role, bool written);
  bool same_as_checked();

  std::vector<StridedRegion> regions_;
  std::vector<Place> places_;  // which array each region is
  OverlapFinder finder_;
  // What the last check that passed had seen: where nothing moved, there is nothing to find out again.
  std::vector<const void*> checked_data_;
  std::vector<std::int64_t> checked_strides_;
  std::vector<Place> checked_places_;
};

// A state and what the binding keeps beside it.
struct StateObject {
  explicit StateObject(std::shared_ptr<const Plan> plan) : state(std::move(plan)) {}
  explicit StateObject(const State& other) : state(other) {}

  State state;
  Arrays arrays;
  int threads = 0;  // the most that a region of the last step had
};

// Whether an array is only read, or written.
enum class Access { read, write };

// From a Python object to a view, the one place where arrays come in. `dtypes` says which are expected. `strides` takes
// the strides in elements and has room for the array's rank; the view points into it and into the array, and is valid
// as long as both.
TensorView view_of(py::handle object, Access access, const char* dtypes, const char* role, std::int64_t leaf,
                   std::int64_t* strides);

// How many axes the array has; throws as view_of does where it is none.
int rank_of(py::handle object, const char* role, std::int64_t leaf);

}  // namespace adafactor::bindings
