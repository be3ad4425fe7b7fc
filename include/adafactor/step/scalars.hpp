// What depends on the step number and the knobs alone, computed once a step in double.
#pragma once

#include <cstdint>

#include "adafactor/config.hpp"
#include "adafactor/dtype.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI {

// The learning rate of one call, and whether a schedule or the caller gave it: such a rate is not capped by
// relative_step = on.
struct LearningRate {
  double value = 0;
  bool scheduled = false;
};

// The numbers of one update that all leaves of a row of knobs and an arithmetic share; beta_2 is in [0, 1).
struct Scalars {
  double learning_rate;
  double rho;
  double beta_2;
  double one_minus_beta_2;
};

// The scalars of the t-th update (t from 1) of a leaf whose arithmetic is in `dtype`. Source: Shazeer and Stern 2018,
// sections 7.2 (beta2) and 8 (rho).
ADAFACTOR_FUNCTION Scalars make_scalars(const Config& config, DType dtype, std::int64_t t, LearningRate rate);

}}  // namespace adafactor::ADAFACTOR_ABI

#if ADAFACTOR_DEFINES_STEP

#include <algorithm>
#include <cmath>

#include "adafactor/step/power.hpp"

#include "adafactor/compiler/exact_begin.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI {

ADAFACTOR_FUNCTION Scalars make_scalars(const Config& config, DType dtype, std::int64_t t, LearningRate rate) {
  Scalars scalars;
  const bool warms_up = config.warmup_init && !rate.scheduled;
  scalars.learning_rate = warms_up ? 1e-6 * static_cast<double>(t) : rate.value;
  const bool capped =
      config.relative_step == RelativeStep::always || (config.relative_step == RelativeStep::on && !rate.scheduled);
  const double cap = 1 / std::sqrt(static_cast<double>(t));
  scalars.rho = capped ? (std::min)(scalars.learning_rate, cap) : scalars.learning_rate;

  // 1 - beta2 is the small number that matters: it is rounded to the arithmetic's precision and beta2 follows from it.
  double one_minus = whole_number_power(std::max<std::int64_t>(t - config.step_offset, 1), config.beta_2_decay);
  if (config.beta_2_cap) one_minus = (std::max)(one_minus, 1 - *config.beta_2_cap);
  if (arithmetic_of(dtype) == DType::float32) one_minus = static_cast<double>(static_cast<float>(one_minus));
  scalars.one_minus_beta_2 = one_minus;
  scalars.beta_2 = 1 - one_minus;
  return scalars;
}

}}  // namespace adafactor::ADAFACTOR_ABI

#include "adafactor/compiler/exact_end.hpp"

#endif  // ADAFACTOR_DEFINES_STEP
