// Steps on leaves that are parts of larger ones: a Step stops between its phases for what the parts have to add up.
#pragma once

#include "adafactor/plan/parts.hpp"
#include "adafactor/step/step.hpp"
