// The OpenMP runtimes that other libraries have brought into the process. Whoever limits these, as threadpoolctl does,
// limits a step too.
#pragma once

namespace adafactor::bindings {

// Looks for runtimes where some may have come since the last time: after an import, and once a second, since libraries
// bring theirs late. Needs the GIL.
void look_for_runtimes();

// The least number of threads that any runtime that was found has for this thread; 0 where there is none.
int threads_of_other_runtimes();

}  // namespace adafactor::bindings
