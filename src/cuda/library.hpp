// The shared object that has the kernels and CUDA's own runtime. It is opened when somebody first asks, so that a
// process without a GPU's array never has it, and one package serves machines with a driver and without.
#pragma once

#include <string>

#include "functions.hpp"

namespace adafactor::cuda {

// What came of opening it.
struct Library {
  const Functions* functions = nullptr;  // null where it cannot be had, or finds no device
  bool is_built = false;                 // whether there is one
  std::string missing;                   // why no step can run on a GPU; empty where one can
  int driver = 0;                        // its version as CUDA counts it; 0: there is none
  int devices = 0;
};

// The one beside the object that this function is in, or that the environment variable ADAFACTOR_CUDA_LIBRARY names.
const Library& library();

// Throws std::runtime_error in a process that was forked off after it was opened: CUDA does not live there.
const Functions& functions();

}  // namespace adafactor::cuda
