// Adafactor in C++20, header-only: the file that a C++ program includes.
#pragma once

#include "adafactor/config.hpp"
#include "adafactor/error.hpp"
#include "adafactor/optimizer.hpp"
#include "adafactor/plan.hpp"
#include "adafactor/state.hpp"
#include "adafactor/step.hpp"
#include "adafactor/version.hpp"
