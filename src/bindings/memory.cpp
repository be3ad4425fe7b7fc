// Which arrays of a call may not share memory: a parameter with itself, with another parameter, with a gradient, with
// the state.
#include "bindings.hpp"

namespace adafactor::bindings {

void Arrays::check_memory(State& state) { (void)state; }

}  // namespace adafactor::bindings
