// What files that only declare (ADAFACTOR_COMPILED) call: plans, states, the step, the optimizer. Its threads are in
// threads.cpp, its loops in kernels.cpp.
#define ADAFACTOR_DEFINES_STEP 1
#include "adafactor/adafactor.hpp"
