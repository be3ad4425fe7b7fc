// Computing without the GIL, and what becomes of a thread that wants it back when the interpreter has ended.
#pragma once

#include <pybind11/pybind11.h>

#include <atomic>
#include <exception>

namespace adafactor::bindings {

// Takes the GIL back. A daemon thread may ask for it after the interpreter's end: CPython before 3.14 then ends the
// thread by unwinding its stack, and the first destructor on the way, or the references that it gives up without the
// GIL, would end the process. Such a thread waits here until the process is gone, as it does in CPython 3.14.
inline void take_gil(PyThreadState* thread) {
  try {
    PyEval_RestoreThread(thread);
  } catch (...) {
    const std::atomic<bool> again{false};
    for (;;) again.wait(false);
  }
}

// Calls `compute` without the GIL; what it throws comes through with the GIL held.
template <class Compute>
auto without_gil(Compute&& compute) {
  PyThreadState* thread = PyEval_SaveThread();
  try {
    auto result = compute();
    take_gil(thread);
    return result;
  } catch (...) {
    const std::exception_ptr error = std::current_exception();
    take_gil(thread);
    std::rethrow_exception(error);
  }
}

}  // namespace adafactor::bindings
