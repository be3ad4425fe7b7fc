// What is asked of a call afterwards: how the reports that step/call.hpp declares are made of what the phases found.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "adafactor/host/floating_point.hpp"
#include "adafactor/state.hpp"
#include "adafactor/step/call.hpp"
#include "adafactor/step/decide.hpp"
#include "adafactor/step/leaf.hpp"
#include "adafactor/step/workspace.hpp"

#if ADAFACTOR_DEFINES_STEP

#include "adafactor/compiler/exact_begin.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI {

namespace detail {

// What a call found out about a leaf, in whatever floating-point environment the caller is.
inline LeafReport report_of(const Leaf& leaf, bool updated) {
  constexpr double nothing = std::numeric_limits<double>::quiet_NaN();
  LeafReport report{nothing, nothing, nothing, nothing, nothing, false, false};
  if (leaf.in_verdict()) {
    report.grad_norm = leaf.rule.report_scale * std::sqrt(leaf.found.gradient_squares);
    report.nonfinite = is_nonfinite(leaf);
  }
  if (!updated || !leaf.updates() || leaf.shape.whole_size == 0) return report;
  const double size = static_cast<double>(leaf.shape.whole_size);
  if (leaf.measures()) {
    report.param_rms = std::sqrt(leaf.found.parameter_squares / size);
    report.update_rms = std::sqrt(leaf.found.update_squares / size);
  }
  report.at_floor = leaf.rule.scales_parameter && leaf.found.at_floor;
  report.clip_factor = leaf.found.clip_factor;
  report.step_size = leaf.found.step_size;
  return report;
}

}  // namespace detail

ADAFACTOR_FUNCTION LeafReport report(const Stepper& stepper, std::size_t index, bool updated) {
  const detail::DefaultFloatingPoint environment;
  return detail::report_of(stepper.workspace->leaves[index], updated);
}

ADAFACTOR_FUNCTION void report_all(const Stepper& stepper, bool updated, const ReportColumns& columns) {
  const detail::DefaultFloatingPoint environment;
  std::size_t i = 0;
  for (const Leaf& leaf : stepper.workspace->leaves) {
    const LeafReport report = detail::report_of(leaf, updated);
    columns.grad_norm[i] = report.grad_norm;
    columns.param_rms[i] = report.param_rms;
    columns.update_rms[i] = report.update_rms;
    columns.clip_factor[i] = report.clip_factor;
    columns.step_size[i] = report.step_size;
    columns.nonfinite[i] = report.nonfinite;
    columns.at_floor[i] = report.at_floor;
    ++i;
  }
}

ADAFACTOR_FUNCTION Scalars call_scalars(const Plan& plan, const Counters& counters, const Outcome& outcome,
                                        LearningRate rate) {
  const detail::DefaultFloatingPoint environment;
  const std::int64_t t = outcome.updated ? counters.updates : counters.updates + 1;
  Scalars scalars = make_scalars(plan.call(), DType::float64, t, rate);
  if (!outcome.updated) scalars.beta_2 = scalars.rho = std::numeric_limits<double>::quiet_NaN();
  return scalars;
}

}}  // namespace adafactor::ADAFACTOR_ABI

#include "adafactor/compiler/exact_end.hpp"

#endif  // ADAFACTOR_DEFINES_STEP
