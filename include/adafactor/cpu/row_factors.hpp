// The factors of rows, (R / M)^-1/2: whoever walks rows makes those of his own.
#pragma once

#include <cstdint>

#include "adafactor/cpu/runs/formulas.hpp"
#include "adafactor/lanes/lanes.hpp"

#include "adafactor/compiler/exact_begin.hpp"

namespace adafactor { inline namespace ADAFACTOR_LOOPS {

// factors <- scale (R / M)^-1/2 for n rows of R and their M, 0 where R is 0; a NaN stays one.
template <class T>
ADAFACTOR_DEVICE void store_row_factors(const T* moments, double mean, double scale, T* factors, std::int64_t n) {
  for_each(n, [&](std::int64_t i, auto amount) ADAFACTOR_INLINE_LAMBDA {
    const auto moment = load<double>(moments + i, amount);
    store(factors + i, row_factor(moment, mean) * scale, amount);
  });
}

// The same, where the bare factors were kept.
template <class T>
ADAFACTOR_DEVICE void scale_row_factors(const T* kept, double scale, T* factors, std::int64_t n) {
  for_each(n, [&](std::int64_t i, auto amount) ADAFACTOR_INLINE_LAMBDA {
    const auto bare = load<double>(kept + i, amount);
    store(factors + i, bare * scale, amount);
  });
}

}}  // namespace adafactor::ADAFACTOR_LOOPS

#include "adafactor/compiler/exact_end.hpp"
