// The extension module adafactor._core: a table of contents, one file a topic.
#include "bindings.hpp"

PYBIND11_MODULE(_core, m, pybind11::mod_gil_not_used()) {
  m.doc() = "The compiled core of adafactor. Private: everything public is in the package above it.";
  adafactor::bindings::bind_errors(m);
  adafactor::bindings::bind_arrays(m);
  adafactor::bindings::bind_bits(m);
  adafactor::bindings::bind_device_arrays(m);
  adafactor::bindings::bind_config(m);
  adafactor::bindings::bind_plan(m);
  adafactor::bindings::bind_state(m);
  adafactor::bindings::bind_step(m);
  adafactor::bindings::bind_stepper(m);
  adafactor::bindings::bind_trees(m);
  adafactor::bindings::bind_build(m);
}
