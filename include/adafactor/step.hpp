// The one orchestration of a step: the four phases over a plan. It serves the headers, every instruction set, Python
// and every device.
#pragma once

#include "adafactor/cpu/kernels.hpp"
#include "adafactor/state.hpp"
#include "adafactor/step/call.hpp"

#if ADAFACTOR_DEFINES_STEP

#include "adafactor/cpu/step.hpp"

#endif  // ADAFACTOR_DEFINES_STEP

#if ADAFACTOR_DEFINES_LOOPS

#include "adafactor/cpu/table.hpp"

#endif  // ADAFACTOR_DEFINES_LOOPS
