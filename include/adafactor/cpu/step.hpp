// A call as a whole, with the CPU's backend, and what is asked of it afterwards: how what step/call.hpp declares is
// done.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>

#include "adafactor/cpu/backend.hpp"
#include "adafactor/cpu/runs/walk.hpp"
#include "adafactor/cpu/threads/threads.hpp"
#include "adafactor/host/floating_point.hpp"
#include "adafactor/state.hpp"
#include "adafactor/step/call.hpp"
#include "adafactor/step/prepare.hpp"
#include "adafactor/step/workspace.hpp"

#if ADAFACTOR_DEFINES_STEP

#include "adafactor/compiler/exact_begin.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI {

namespace detail {

inline const Workspace& last_workspace(const State& state) { return static_cast<const Workspace&>(*state.scratch); }

// What a call found out about a leaf, in whatever floating-point environment the caller is.
inline LeafReport report_of(const Leaf& leaf, bool updated) {
  constexpr double nothing = std::numeric_limits<double>::quiet_NaN();
  LeafReport report{nothing, nothing, nothing, nothing, nothing, false, false};
  if (leaf.in_verdict) {
    report.grad_norm = leaf.report_scale * std::sqrt(leaf.gradient_squares);
    report.nonfinite = Step::is_nonfinite(leaf);
  }
  if (!updated || leaf.action != Action::update || leaf.size() == 0) return report;
  const double size = static_cast<double>(leaf.size());
  if (leaf.measures()) {
    report.param_rms = std::sqrt(leaf.parameter_squares / size);
    report.update_rms = std::sqrt(leaf.update_squares / size);
  }
  report.at_floor = leaf.scales_parameter && leaf.at_floor;
  report.clip_factor = leaf.clip_factor;
  report.step_size = leaf.step_size;
  return report;
}

// One element of an array.
inline double number_at(const std::byte* element, DType dtype) {
  double number = 0;
  const auto read = [&](auto storage) {
    number = load<double>(reinterpret_cast<const typename decltype(storage)::type*>(element), One{});
  };
  if (arithmetic_of(dtype) == DType::float64) {
    with_storage<double>(dtype, read);
  } else {
    with_storage<float>(dtype, read);
  }
  return number;
}

}  // namespace detail

ADAFACTOR_FUNCTION std::int64_t scratch_nbytes(const Plan& plan) {
  return Workspace::nbytes(plan) + CpuBackend::scratch_nbytes(plan);
}

ADAFACTOR_FUNCTION LeafReport report(const State& state, std::size_t index, bool updated) {
  const detail::DefaultFloatingPoint environment;
  return detail::report_of(detail::last_workspace(state).leaves[index], updated);
}

ADAFACTOR_FUNCTION void report_all(const State& state, bool updated, const ReportColumns& columns) {
  const detail::DefaultFloatingPoint environment;
  std::size_t i = 0;
  for (const Leaf& leaf : detail::last_workspace(state).leaves) {
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

ADAFACTOR_FUNCTION Scalars call_scalars(const State& state, const Outcome& outcome, LearningRate rate) {
  const detail::DefaultFloatingPoint environment;
  const std::int64_t t = outcome.updated ? state.updates : state.updates + 1;
  Scalars scalars = make_scalars(state.plan().call(), DType::float64, t, rate);
  if (!outcome.updated) scalars.beta_2 = scalars.rho = std::numeric_limits<double>::quiet_NaN();
  return scalars;
}

ADAFACTOR_FUNCTION Outcome step(State& state, const Call& call, const KernelTable& kernels) {
  const detail::DefaultFloatingPoint environment;
  Workspace& workspace = workspace_of(state);
  CpuBackend backend(state.plan(), workspace, kernels, get_num_threads());
  detail::Step current(state, call);
  current.prepare_leaves();
  if (current.updates()) {
    current.update(backend);
  } else {
    current.accumulate(backend);
  }
  Outcome outcome;
  outcome.nonfinite_leaf = current.first_nonfinite();
  outcome.global_grad_norm = current.global_grad_norm();
  outcome.threads = workspace.threads;
  outcome.skipped = !current.goes_on();
  outcome.updated = current.updates() && !outcome.skipped;
  if (outcome.skipped) {
    current.pass_through(backend);
  } else {
    current.count();
  }
  return outcome;
}

// Element by element, for a message alone.
ADAFACTOR_FUNCTION std::string nonfinite_text(const TensorView& view) {
  std::int64_t buffer[kMaxRank];
  const std::int64_t* strides = detail::strides_of(view, buffer);
  Axis axes[kMaxRank];
  std::int64_t size = 1;
  for (int axis = 0; axis < view.rank; ++axis) {
    axes[axis] = {view.shape[axis], strides[axis]};
    size *= view.shape[axis];
  }
  std::int64_t nan = 0;
  std::int64_t infinite = 0;
  for (std::int64_t i = 0; i < size; ++i) {
    const auto* element =
        static_cast<const std::byte*>(view.data) + offset_along(axes, view.rank, i) * item_size(view.dtype);
    const double value = detail::number_at(element, view.dtype);
    nan += std::isnan(value);
    infinite += std::isinf(value);
  }
  if (nan == 0 && infinite == 0) return "";
  return counted(nan, " NaN and ") + counted(infinite, " Inf of ") + counted(size, " values");
}

}}  // namespace adafactor::ADAFACTOR_ABI

#include "adafactor/compiler/exact_end.hpp"

#endif  // ADAFACTOR_DEFINES_STEP
