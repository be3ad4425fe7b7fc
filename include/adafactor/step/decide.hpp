// What is decided between the phases from what they found, leaf by leaf: whether the step goes on, what clipping
// multiplies by, the step size, and whether the arithmetic's range is left. None of it throws, or touches an array.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <utility>

#include "adafactor/step/leaf.hpp"
#include "adafactor/step/totals.hpp"

#include "adafactor/compiler/exact_begin.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI {

// What is known of all gradients of a call together.
struct Verdict {
  bool finite = true;         // each of them, and the sums of their squares
  double scaled_squares = 0;  // their sum, so scaled that it stays finite where each leaf's own is

  double norm() const { return std::sqrt(scaled_squares) / kScale; }
  static double scaled(double squares) { return squares * (kScale * kScale); }

 private:
  static constexpr double kScale = 0x1p-32;
};

namespace detail {

inline constexpr double kUnlimited = std::numeric_limits<double>::infinity();

// Whether a window of accumulation that holds this much could be completed by zeros: the update's sums stay in range.
inline bool window_fits(const Leaf& leaf) {
  return leaf.shape.arithmetic != DType::float32 ||
         leaf.found.gradient_squares <= static_cast<double>((std::numeric_limits<float>::max)());
}

inline double norm_factor(double limit, double norm) { return norm <= limit ? 1 : limit / norm; }

// Whether the factor of clipping and the scale are finite: if not, one NaN or Inf, of the state or of the parameter,
// would make NaN of the whole leaf.
inline bool can_step(const Leaf& leaf) {
  return std::isfinite(leaf.found.update_squares) &&
         (!leaf.rule.scales_parameter || std::isfinite(leaf.found.parameter_squares));
}

// The squares left float although the gradient is finite.
inline bool narrow_overflow(const Leaf& leaf) {
  return leaf.shape.arithmetic == DType::float32 && std::isfinite(leaf.found.gradient_squares) &&
         !(std::isfinite(leaf.found.update_squares) && std::isfinite(leaf.found.parameter_squares));
}

// The ranges of the new row and column moments, of a part of a leaf its own.
inline std::pair<MomentRange, MomentRange> moment_ranges(const Leaf& leaf, const TileSums* sums) {
  MomentRange rows{kUnlimited, 0};
  MomentRange cols = rows;
  const auto widen = [](MomentRange& range, const MomentRange& more) {
    range = {(std::min)(range.smallest, more.smallest), (std::max)(range.largest, more.largest)};
  };
  for (std::int64_t t = 0; t < leaf.shape.tile_count; ++t) {
    widen(rows, sums[t].rows);
    widen(cols, sums[t].cols);
  }
  return {rows, cols};
}

// No M of the leaf is larger. That of a part is the mean of rows which others have.
inline double largest_mean(const Leaf& leaf, const MomentRange& rows) {
  double largest = leaf.rule.clamps ? (std::max)(rows.largest, leaf.rule.epsilon_1) : rows.largest;
  if (!leaf.is_part() || !leaf.at.mean_moment) return largest;
  for (std::int64_t slice = 0; slice < leaf.shape.slices; ++slice) {
    largest = (std::max)(largest, leaf.at.mean_moment[slice]);
  }
  return largest;
}

// Whether float may not hold what `apply` forms on the way to a finite update: the row factor, into which everything
// else is multiplied, its product with G, and U where nobody has measured it.
inline bool may_overflow(const Leaf& leaf, const TileSums* sums) {
  constexpr double limit = 1e38;
  if (!leaf.shape.factored || leaf.shape.arithmetic != DType::float32) return false;
  const auto [rows, cols] = moment_ranges(leaf, sums);
  const double mean = largest_mean(leaf, rows);
  const double scale = leaf.found.clip_factor * (leaf.scales_early() ? leaf.found.step_size : 1);
  const double gradient_scale = std::abs(leaf.gradient_scale()) * leaf.found.norm_factor;
  // Nearly always, and seen without a root: each of the factors below is at most 1e12.
  constexpr double square = 1e24;
  const double squares = leaf.found.norm_factor * leaf.found.norm_factor * leaf.found.gradient_squares;
  if (leaf.measures() && mean < square * rows.smallest && squares < square && gradient_scale < 1e12 && scale < 1e12) {
    return false;
  }
  const double row_factor = std::sqrt(mean / rows.smallest);
  const double norm = leaf.found.norm_factor * std::sqrt(leaf.found.gradient_squares);
  // G^2 is at most all columns' share of R.
  const double share = static_cast<double>(leaf.shape.whole_cols) / leaf.rule.one_minus_beta_2;
  const double product = (std::min)(row_factor * norm, std::sqrt(mean * share));
  if ((std::max)(row_factor * gradient_scale, product) * scale > limit) return true;
  return !leaf.measures() && row_factor / std::sqrt(cols.smallest) * norm > limit;
}

// Whether the largest product of factors reaches the limit, or may by rounding.
inline bool may_clamp(const Leaf& leaf, const TileSums* sums) {
  const auto [rows, cols] = moment_ranges(leaf, sums);
  const double row_factor = std::sqrt(largest_mean(leaf, rows) / rows.smallest);
  return !(row_factor / std::sqrt(cols.smallest) * leaf.rule.epsilon_1 < 0.999);
}

}  // namespace detail

// Whether NaN or Inf was found in a leaf that the verdict depends on.
inline bool is_nonfinite(const Leaf& leaf) { return leaf.found.stopped || !std::isfinite(leaf.found.gradient_squares); }

// After `moments`: the squares of G. `sums` are those of the leaf's tiles, here and below.
inline void find_gradient_squares(Leaf& leaf, const TileSums* sums) {
  if (!leaf.in_verdict()) return;
  leaf.found.gradient_squares =
      total_of(leaf.shape.tile_count, [&](std::int64_t t) { return sums[t].gradient_squares; });
}

// After these, of all parts: the factor of clipping by the leaf's norm.
inline void find_norm(Leaf& leaf) {
  if (!leaf.in_verdict()) return;
  Found& found = leaf.found;
  if (leaf.adds() && !detail::window_fits(leaf)) found.gradient_squares = detail::kUnlimited;
  found.norm_factor = detail::norm_factor(leaf.rule.clipnorm, std::sqrt(found.gradient_squares));
}

// After `moments` of all leaves: whether the call is skipped, and the norm of all G together, which may clip.
// `propagates` says that NaN and Inf go into the leaves, here and below.
inline void find_verdict(std::span<Leaf> leaves, std::optional<double> global_clipnorm, bool propagates,
                         Verdict& verdict) {
  Total squares;
  verdict.finite = true;
  for (const Leaf& leaf : leaves) {
    if (!leaf.in_verdict()) continue;
    if (is_nonfinite(leaf)) verdict.finite = false;
    squares.add(Verdict::scaled(leaf.found.gradient_squares));
  }
  verdict.scaled_squares = squares.sum();
  if (!propagates && !verdict.finite) {
    for (Leaf& leaf : leaves) leaf.found.held = true;
  }
  if (!global_clipnorm) return;
  const double factor = detail::norm_factor(*global_clipnorm, verdict.norm());
  for (Leaf& leaf : leaves) leaf.found.norm_factor = factor;
}

// After `factors`: whether torch's clamp may bind.
inline void find_clamp(Leaf& leaf, const TileSums* sums) {
  leaf.found.clamp_binds = leaf.rule.clamps && leaf.shape.factored && leaf.updates() && detail::may_clamp(leaf, sums);
}

// After `rms`: the sums of U^2 and P^2.
inline void find_squares(Leaf& leaf, const TileSums* sums) {
  if (!leaf.measures()) return;
  Found& found = leaf.found;
  found.update_squares = total_of(leaf.shape.tile_count, [&](std::int64_t t) { return sums[t].update_squares; });
  found.parameter_squares = total_of(leaf.shape.tile_count, [&](std::int64_t t) { return sums[t].parameter_squares; });
}

// After these: whether they left float, so that they have to be made anew, in double.
inline bool goes_wide(Leaf& leaf) {
  leaf.found.wide = leaf.measures() && detail::narrow_overflow(leaf);
  return leaf.found.wide;
}

// After these, of all parts: the factor of clipping by rms, and alpha; or that the leaf is left alone.
inline void find_step(Leaf& leaf, const TileSums* sums, bool propagates) {
  if (!leaf.updates() || leaf.shape.whole_size == 0) return;
  const Rule& rule = leaf.rule;
  Found& found = leaf.found;
  if (leaf.measures() && !propagates && !detail::can_step(leaf)) {
    found.stopped = true;
    return;
  }
  const double size = static_cast<double>(leaf.shape.whole_size);
  const double update_rms = std::sqrt(found.update_squares / size);
  const double parameter_rms = std::sqrt(found.parameter_squares / size);
  found.clip_factor = update_rms <= rule.clip_threshold || !leaf.measures() ? 1 : rule.clip_threshold / update_rms;
  double scale = 1;
  if (rule.scales_parameter) {
    scale = rule.decays_first ? std::abs(1 - rule.weight_decay) * parameter_rms : parameter_rms;
    found.at_floor = scale < rule.epsilon_2;
    if (found.at_floor) scale = rule.epsilon_2;
    if (scale > rule.max_parameter_scale) scale = rule.max_parameter_scale;
  }
  found.step_size = rule.rho * scale;
  found.weight_decay = rule.decays_by_step ? rule.weight_decay * found.step_size : rule.weight_decay;
  found.wide = found.wide || detail::may_overflow(leaf, sums);
}

}}  // namespace adafactor::ADAFACTOR_ABI

#include "adafactor/compiler/exact_end.hpp"
