// The one object with the loops in it. An instruction set is one more of these.
#include "kernels.hpp"

namespace adafactor::cpu {

const KernelTable& kernels() { return compiled_kernels(); }

}  // namespace adafactor::cpu
