// The instruction sets that a build carries, and the choice between them.
#pragma once

#include <vector>

#include "adafactor/kernel_table.hpp"

namespace adafactor::cpu {

// The loops of each instruction set that this build has and this machine can run, the fastest last.
std::vector<const KernelTable*> usable_kernels();

// The loops in use: of the instruction set that the environment variable ADAFACTOR_ISA named when this was first
// called, else the fastest. Throws Error where the variable names none that this machine can run, at every call.
const KernelTable& kernels();

}  // namespace adafactor::cpu
