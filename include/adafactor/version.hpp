// The one place where the version stands; the wheel, the CMake package and the inline namespace read it from here.
#pragma once

#define ADAFACTOR_VERSION "0.1.0"
#define ADAFACTOR_VERSION_TAG v0_1_0
