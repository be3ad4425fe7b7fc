// What a call on a state and one that brings its state along have in common: the arrays become views and are held
// against the plan, what was found becomes numbers of Python.
#pragma once

#include <utility>
#include <vector>

#include "bindings.hpp"

namespace adafactor::bindings {

// The learning rate of each row of knobs, and whether a schedule has made it.
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
void take_arrays(Calls& calls, const Plan& plan, const Borrowed& borrowed);

void take_rates(Calls& calls, const Plan& plan, const Rates& rates);

// Gives back what the arrays of a call lent, however the call ends.
struct GiveBack {
  ArrayReader& reader;
  ~GiveBack() { reader.give_back(); }
};

// Notes what a call was and tells the libraries of what it wrote; returns (summary, first non-finite leaf or -1, the
// arrays of its report).
py::tuple conclude(Calls& calls, const Stepper& stepper, const Counters& counters, const Outcome& outcome,
                   const Marks& marks);

// Throws what is to be said of a leaf that is not finite, after a call that changed nothing: the arrays of that call
// are read once more.
[[noreturn]] void refuse_leaf(Calls& calls, const Stepper& stepper, const py::list& params, const py::list& grads,
                              std::size_t leaf);

}  // namespace adafactor::bindings
