// The kernels that a wheel carries, and the choice between them.
#pragma once

#include "adafactor/kernel_table.hpp"

namespace adafactor::cpu {

// The kernels of this machine.
const KernelTable& kernels();

}  // namespace adafactor::cpu
