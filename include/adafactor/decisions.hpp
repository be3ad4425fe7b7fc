// What is decided between the phases, leaf by leaf, from what they found: whether the step goes on, what clipping
// multiplies by, the step size, and whether the arithmetic's range is left. All of it stays in the workspace.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>

#include "adafactor/exact_begin.hpp"
#include "adafactor/kernel_table.hpp"
#include "adafactor/plan.hpp"
#include "adafactor/totals.hpp"
#include "adafactor/workspace.hpp"

namespace adafactor::inline ADAFACTOR_ABI {

// Whether a step that was judged writes anything.
inline bool goes(const Plan& plan, const Workspace& workspace) {
  return plan.call().on_nonfinite == OnNonfinite::propagate || workspace.finite;
}

// Of one step; none of it throws.
class Decisions {
 public:
  Decisions(const Plan& plan, Workspace& workspace, const KernelTable& kernels)
      : plan_(plan), workspace_(workspace), kernels_(kernels) {}

  // After `moments`: the squares of G, and from them the factor of clipping by the leaf's norm.
  void find_norm(Leaf& leaf) {
    if (!leaf.judged) return;
    const TileSums* sums = sums_of(leaf);
    leaf.gradient_squares = total_of(leaf.tile_count, [&](std::int64_t t) { return sums[t].gradient_squares; });
    if (leaf.action == Action::accumulate && !fits(leaf)) leaf.gradient_squares = kInfinity;
    leaf.norm_factor = norm_factor(leaf.clipnorm, std::sqrt(leaf.gradient_squares));
  }

  // After `moments` of all leaves: whether the step goes on, and the norm of all G together, which may clip.
  void judge() {
    Total squares;
    for (const Leaf& leaf : workspace_.leaves) {
      if (!leaf.judged) continue;
      if (!std::isfinite(leaf.gradient_squares)) workspace_.finite = false;
      squares.add(Workspace::scaled(leaf.gradient_squares));
    }
    workspace_.scaled_squares = squares.sum();
    if (!plan_.call().global_clipnorm) return;
    const double factor = norm_factor(*plan_.call().global_clipnorm, workspace_.gradient_norm());
    for (Leaf& leaf : workspace_.leaves) leaf.norm_factor = factor;
  }

  // After `factors`: whether torch's clamp may bind.
  void find_clamp(Leaf& leaf) {
    leaf.clamp_binds = leaf.clamps && leaf.factored && leaf.action == Action::update && may_clamp(leaf);
  }

  // After `rms`: from the sums of U^2 and P^2 the factor of clipping by rms, and alpha.
  void find_step(Leaf& leaf) {
    if (leaf.action != Action::update || leaf.size() == 0) return;
    leaf.wide = false;
    if (leaf.measures()) {
      add_squares(leaf);
      if (narrow_overflow(leaf)) {
        leaf.wide = true;
        measure_wide(leaf);
      }
      if (!can_step(leaf)) return leaf.stop();
    }
    const double size = static_cast<double>(leaf.size());
    const double update_rms = std::sqrt(leaf.update_squares / size);
    const double parameter_rms = std::sqrt(leaf.parameter_squares / size);
    leaf.clip_factor = update_rms <= leaf.clip_threshold || !leaf.measures() ? 1 : leaf.clip_threshold / update_rms;
    double scale = 1;
    if (leaf.scales_parameter) {
      scale = leaf.decays_first ? std::abs(1 - leaf.weight_decay) * parameter_rms : parameter_rms;
      leaf.at_floor = scale < leaf.epsilon_2;
      if (leaf.at_floor) scale = leaf.epsilon_2;
      if (scale > leaf.max_parameter_scale) scale = leaf.max_parameter_scale;
    }
    leaf.step_size = leaf.rho * scale;
    if (leaf.decays_by_step) leaf.weight_decay *= leaf.step_size;
    leaf.wide = leaf.wide || may_overflow(leaf);
  }

 private:
  TileSums* sums_of(const Leaf& leaf) { return workspace_.sums.data() + leaf.first_tile; }

  // Whether a window of accumulation that holds this much could be completed by zeros: the update's sums stay in range.
  static bool fits(const Leaf& leaf) {
    return leaf.arithmetic != DType::float32 ||
           leaf.gradient_squares <= static_cast<double>((std::numeric_limits<float>::max)());
  }

  static double norm_factor(double limit, double norm) { return norm <= limit ? 1 : limit / norm; }

  void add_squares(Leaf& leaf) {
    const TileSums* sums = sums_of(leaf);
    leaf.update_squares = total_of(leaf.tile_count, [&](std::int64_t t) { return sums[t].update_squares; });
    leaf.parameter_squares = total_of(leaf.tile_count, [&](std::int64_t t) { return sums[t].parameter_squares; });
  }

  // Whether the factor of clipping and the scale are finite: if not, one NaN or Inf, of the state or of the parameter,
  // would make NaN of the whole leaf.
  bool can_step(const Leaf& leaf) const {
    return plan_.call().on_nonfinite == OnNonfinite::propagate ||
           (std::isfinite(leaf.update_squares) && (!leaf.scales_parameter || std::isfinite(leaf.parameter_squares)));
  }

  // The squares left float although the gradient is finite.
  static bool narrow_overflow(const Leaf& leaf) {
    return leaf.arithmetic == DType::float32 && std::isfinite(leaf.gradient_squares) &&
           !(std::isfinite(leaf.update_squares) && std::isfinite(leaf.parameter_squares));
  }

  void measure_wide(Leaf& leaf) {
    const Kernels& kernels = kernels_.of(leaf.arithmetic);
    TileSums* sums = sums_of(leaf);
    for (std::int64_t t = 0; t < leaf.tile_count; ++t) {
      kernels.rms(leaf, plan_.tiles()[static_cast<std::size_t>(leaf.first_tile + t)], sums[t]);
    }
    add_squares(leaf);
  }

  // Whether float may not hold what `apply` forms on the way to a finite update: the row factor, into which everything
  // else is multiplied, its product with G, and U where nobody has measured it.
  bool may_overflow(const Leaf& leaf) {
    constexpr double limit = 1e38;
    if (!leaf.factored || leaf.arithmetic != DType::float32) return false;
    const auto [rows, cols] = moment_ranges(leaf);
    const double mean = leaf.clamps ? (std::max)(rows.largest, leaf.epsilon_1) : rows.largest;
    const double scale = leaf.clip_factor * (leaf.scales_early() ? leaf.step_size : 1);
    const double gradient_scale = std::abs(leaf.gradient_scale()) * leaf.norm_factor;
    // Nearly always, and seen without a root: each of the factors below is at most 1e12.
    constexpr double square = 1e24;
    const double squares = leaf.norm_factor * leaf.norm_factor * leaf.gradient_squares;
    if (leaf.measures() && mean < square * rows.smallest && squares < square && gradient_scale < 1e12 && scale < 1e12) {
      return false;
    }
    const double row_factor = std::sqrt(mean / rows.smallest);
    const double norm = leaf.norm_factor * std::sqrt(leaf.gradient_squares);
    // G^2 is at most all columns' share of R.
    const double share = static_cast<double>(leaf.cols) / leaf.one_minus_beta_2;
    const double product = (std::min)(row_factor * norm, std::sqrt(mean * share));
    if ((std::max)(row_factor * gradient_scale, product) * scale > limit) return true;
    return !leaf.measures() && row_factor / std::sqrt(cols.smallest) * norm > limit;
  }

  // Whether the largest product of factors reaches the limit, or may by rounding.
  bool may_clamp(const Leaf& leaf) {
    const auto [rows, cols] = moment_ranges(leaf);
    const double row_factor = std::sqrt((std::max)(rows.largest, leaf.epsilon_1) / rows.smallest);
    return !(row_factor / std::sqrt(cols.smallest) * leaf.epsilon_1 < 0.999);
  }

  std::pair<MomentRange, MomentRange> moment_ranges(const Leaf& leaf) {
    MomentRange rows{kInfinity, 0};
    MomentRange cols = rows;
    const auto widen = [](MomentRange& range, const MomentRange& more) {
      range = {(std::min)(range.smallest, more.smallest), (std::max)(range.largest, more.largest)};
    };
    const TileSums* sums = sums_of(leaf);
    for (std::int64_t t = 0; t < leaf.tile_count; ++t) {
      widen(rows, sums[t].rows);
      widen(cols, sums[t].cols);
    }
    return {rows, cols};
  }

  const Plan& plan_;
  Workspace& workspace_;
  const KernelTable& kernels_;
};

}  // namespace adafactor::inline ADAFACTOR_ABI

#include "adafactor/exact_end.hpp"
