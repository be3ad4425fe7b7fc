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
  return leaf.arithmetic != DType::float32 ||
         leaf.gradient_squares <= static_cast<double>((std::numeric_limits<float>::max)());
}

inline double norm_factor(double limit, double norm) { return norm <= limit ? 1 : limit / norm; }

inline void add_squares(Leaf& leaf, const TileSums* sums) {
  leaf.update_squares = total_of(leaf.tile_count, [&](std::int64_t t) { return sums[t].update_squares; });
  leaf.parameter_squares = total_of(leaf.tile_count, [&](std::int64_t t) { return sums[t].parameter_squares; });
}

// Whether the factor of clipping and the scale are finite: if not, one NaN or Inf, of the state or of the parameter,
// would make NaN of the whole leaf.
inline bool can_step(const Leaf& leaf) {
  return std::isfinite(leaf.update_squares) && (!leaf.scales_parameter || std::isfinite(leaf.parameter_squares));
}

// The squares left float although the gradient is finite.
inline bool narrow_overflow(const Leaf& leaf) {
  return leaf.arithmetic == DType::float32 && std::isfinite(leaf.gradient_squares) &&
         !(std::isfinite(leaf.update_squares) && std::isfinite(leaf.parameter_squares));
}

// The ranges of the new row and column moments.
inline std::pair<MomentRange, MomentRange> moment_ranges(const Leaf& leaf, const TileSums* sums) {
  MomentRange rows{kUnlimited, 0};
  MomentRange cols = rows;
  const auto widen = [](MomentRange& range, const MomentRange& more) {
    range = {(std::min)(range.smallest, more.smallest), (std::max)(range.largest, more.largest)};
  };
  for (std::int64_t t = 0; t < leaf.tile_count; ++t) {
    widen(rows, sums[t].rows);
    widen(cols, sums[t].cols);
  }
  return {rows, cols};
}

// Whether float may not hold what `apply` forms on the way to a finite update: the row factor, into which everything
// else is multiplied, its product with G, and U where nobody has measured it.
inline bool may_overflow(const Leaf& leaf, const TileSums* sums) {
  constexpr double limit = 1e38;
  if (!leaf.factored || leaf.arithmetic != DType::float32) return false;
  const auto [rows, cols] = moment_ranges(leaf, sums);
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
inline bool may_clamp(const Leaf& leaf, const TileSums* sums) {
  const auto [rows, cols] = moment_ranges(leaf, sums);
  const double row_factor = std::sqrt((std::max)(rows.largest, leaf.epsilon_1) / rows.smallest);
  return !(row_factor / std::sqrt(cols.smallest) * leaf.epsilon_1 < 0.999);
}

}  // namespace detail

// Whether NaN or Inf was found in a leaf that the verdict depends on.
inline bool is_nonfinite(const Leaf& leaf) { return leaf.stopped || !std::isfinite(leaf.gradient_squares); }

// After `moments`: the squares of G, and from them the factor of clipping by the leaf's norm. `sums` are those of the
// leaf's tiles, here and below.
inline void find_norm(Leaf& leaf, const TileSums* sums) {
  if (!leaf.in_verdict) return;
  leaf.gradient_squares = total_of(leaf.tile_count, [&](std::int64_t t) { return sums[t].gradient_squares; });
  if (leaf.action == Action::accumulate && !detail::window_fits(leaf)) leaf.gradient_squares = detail::kUnlimited;
  leaf.norm_factor = detail::norm_factor(leaf.clipnorm, std::sqrt(leaf.gradient_squares));
}

// After `moments` of all leaves: whether the step goes on, and the norm of all G together, which may clip.
inline void find_verdict(std::span<Leaf> leaves, std::optional<double> global_clipnorm, Verdict& verdict) {
  Total squares;
  for (const Leaf& leaf : leaves) {
    if (!leaf.in_verdict) continue;
    if (!std::isfinite(leaf.gradient_squares)) verdict.finite = false;
    squares.add(Verdict::scaled(leaf.gradient_squares));
  }
  verdict.scaled_squares = squares.sum();
  if (!global_clipnorm) return;
  const double factor = detail::norm_factor(*global_clipnorm, verdict.norm());
  for (Leaf& leaf : leaves) leaf.norm_factor = factor;
}

// After `factors`: whether torch's clamp may bind.
inline void find_clamp(Leaf& leaf, const TileSums* sums) {
  leaf.clamp_binds = leaf.clamps && leaf.factored && leaf.action == Action::update && detail::may_clamp(leaf, sums);
}

// After `rms`: from the sums of U^2 and P^2 the factor of clipping by rms, and alpha. measure_wide() makes the sums
// anew, in double; `propagates` says that NaN and Inf go into the leaf.
template <class Measure>
void find_step(Leaf& leaf, const TileSums* sums, bool propagates, const Measure& measure_wide) {
  if (leaf.action != Action::update || leaf.size() == 0) return;
  leaf.wide = false;
  if (leaf.measures()) {
    detail::add_squares(leaf, sums);
    if (detail::narrow_overflow(leaf)) {
      leaf.wide = true;
      measure_wide();
      detail::add_squares(leaf, sums);
    }
    if (!propagates && !detail::can_step(leaf)) return leaf.stop();
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
  leaf.wide = leaf.wide || detail::may_overflow(leaf, sums);
}

}}  // namespace adafactor::ADAFACTOR_ABI

#include "adafactor/compiler/exact_end.hpp"
