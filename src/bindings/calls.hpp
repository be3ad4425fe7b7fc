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

// Reads the arrays, and holds each that is another one than in the last call against the plan. On a GPU the call then
// goes to the stream of the parameters' library.
void take_arrays(Calls& calls, const Plan& plan, const Borrowed& borrowed);

void take_rates(Calls& calls, const Plan& plan, const Rates& rates);

// Gives back what the arrays of a call lent, however the call ends, unless a GPU may still be at it.
struct GiveBack {
  Calls& calls;
  ~GiveBack() {
    if (!calls.late.is_open) calls.reader.give_back();
  }
};

// What a call hands in besides its arrays.
struct Handed {
  double grad_multiplier = 1;
  bool completes = false;
  const StateSlots* state = nullptr;
};

// Makes the call, without the GIL, and tells the libraries of what it wrote. Returns (summary, first non-finite leaf or
// -1, the arrays of its report); or the number of the call, where a GPU may still be at it: that is so unless something
// is to be raised where a number is not finite, or a library of the arrays does not go on behind the call.
py::object make_call(Calls& calls, const Handed& handed, const Marks& marks);

// Throws std::runtime_error where a call on such parameters would go into a CUDA graph that is captured now.
void refuse_capture(Calls& calls, const py::list& params);
// Awaits a call that a GPU may still be at: then counters are those of all calls.
void settle(Calls& calls);
// The same before the next call, which is refused first if it has to be because of a graph.
void settle_for(Calls& calls, const py::list& params);
// Settles, and returns what make_call() would have returned of the call of that number; None where there was another
// one since. Throws std::runtime_error where the GPU failed in it.
py::object found_by(Calls& calls, std::uint64_t number);

// Throws what is to be said of a leaf that is not finite, after a call that changed nothing: the arrays of that call
// are read once more.
[[noreturn]] void refuse_leaf(Calls& calls, const py::list& params, const py::list& grads, std::size_t leaf);

}  // namespace adafactor::bindings
