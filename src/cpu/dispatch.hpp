// The instruction sets that a build carries, and the choice between them.
#pragma once

#include <vector>

#include "adafactor/kernel_table.hpp"

namespace adafactor::inline ADAFACTOR_ABI {

namespace cpu {

// The table that each object with loops holds; a build has those of its architecture.
extern const KernelTable x86_64_v2, x86_64_v3, x86_64_v4, neon, generic;

// The loops of each instruction set that this build has and this machine can run, the fastest last.
std::vector<const KernelTable*> usable_kernels();

// The loops in use: of the instruction set that the environment variable ADAFACTOR_ISA named when this was first
// called, else the fastest. Throws Error where the variable names none that this machine can run, at every call.
const KernelTable& kernels();

}  // namespace cpu

}  // namespace adafactor::inline ADAFACTOR_ABI
