// ADAFACTOR_VERSION, for programs that ask for it.
#pragma once

#include "adafactor/compiler/abi.hpp"
