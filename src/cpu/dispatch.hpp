// The instruction sets that a build carries; compiled_kernels() chooses among them.
#pragma once

#include <vector>

#include "adafactor/cpu/kernels.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI { namespace cpu {

// The table that each object with loops holds; a build has those of its architecture.
extern const KernelTable x86_64_v2, x86_64_v3, x86_64_v4, neon, generic;

// The loops of each instruction set that this build has and this machine can run, the fastest last.
std::vector<const KernelTable*> usable_kernels();

}}}  // namespace adafactor::ADAFACTOR_ABI::cpu
