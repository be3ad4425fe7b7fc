// Adafactor in C++20: the file that a C++ program includes, headers alone or beside loops that were compiled once.
#pragma once

#if defined(__GNUC__) && !defined(__cpp_exceptions)
#error "adafactor throws: compile this file without -fno-exceptions."
#endif

#include "adafactor/config.hpp"
#include "adafactor/cpu/threads/threads.hpp"
#include "adafactor/door/overlap.hpp"
#include "adafactor/door/view.hpp"
#include "adafactor/error.hpp"
#include "adafactor/lanes/formats.hpp"
#include "adafactor/optimizer.hpp"
#include "adafactor/plan.hpp"
#include "adafactor/state.hpp"
#include "adafactor/step.hpp"
#include "adafactor/step/workspace.hpp"
#include "adafactor/version.hpp"
