// What may still run on a GPU when a call has returned: one call of a stepper, until somebody asks what came of it.
#pragma once

#include <pybind11/pybind11.h>

#include <atomic>
#include <cstdint>
#include <optional>

#include "adafactor/step/step.hpp"

namespace adafactor::bindings {

namespace py = pybind11;

class Late {
 public:
  // The calls are numbered from 1 on.
  std::uint64_t number = 0;
  std::optional<Step> running;       // changed under the lock alone, and ended with the GIL
  std::atomic<bool> is_open{false};  // whether there is one
  py::object found = py::none();     // by the call of the number `found_by`
  std::uint64_t found_by = 0;

  // Held by whoever gives a call to the GPU, or asks what came of one. Others wait without the GIL; a thread that holds
  // it and comes in once more, as a finalizer may, gets a RuntimeError.
  class Lock {
   public:
    explicit Lock(Late& late);
    ~Lock();
    Lock(const Lock&) = delete;
    Lock& operator=(const Lock&) = delete;

   private:
    Late& late_;
  };

 private:
  std::atomic<unsigned long> owner_{0};  // the thread that holds it; 0: none
};

}  // namespace adafactor::bindings
