// What is decided between the phases from what they found, leaf by leaf: whether the step goes on, what clipping
// multiplies by, the step size, and whether the arithmetic's range is left. None of it throws, or touches an array, and
// a device decides by the same functions, from tiles that it has added up in its own way.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>

#include "adafactor/step/leaf.hpp"
#include "adafactor/step/totals.hpp"

#include "adafactor/compiler/exact_begin.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI {

// What is known of all gradients of a call together.
struct Verdict {
  bool finite = true;         // each of them, and the sums of their squares
  bool is_void = false;       // somebody else has found that the call is to be skipped, whatever the policy
  double scaled_squares = 0;  // their sum, so scaled that it stays finite where each leaf's own is

  ADAFACTOR_DEVICE double norm() const { return std::sqrt(scaled_squares) / kScale; }
  ADAFACTOR_DEVICE static double scaled(double squares) { return squares * (kScale * kScale); }

 private:
  static constexpr double kScale = 0x1p-32;
};

// The ranges of the new row and column moments of a leaf, of a part of one its own.
struct MomentRanges {
  MomentRange rows;
  MomentRange cols;
};

// What the tiles of a leaf have found together, added up by one thread.
class LeafTiles {
 public:
  LeafTiles(const LeafShape& shape, const TileSums* first) : count_(shape.tile_count), first_(first) {}

  ADAFACTOR_ALWAYS_INLINE double total(double TileSums::* number) const {
    return total_of(count_, [&](std::int64_t t) { return first_[t].*number; });
  }
  ADAFACTOR_ALWAYS_INLINE MomentRanges ranges() const {
    MomentRange rows{std::numeric_limits<double>::infinity(), 0};
    MomentRange cols = rows;
    const auto widen = [](MomentRange& range, const MomentRange& more) {
      range = {(std::min)(range.smallest, more.smallest), (std::max)(range.largest, more.largest)};
    };
    for (std::int64_t t = 0; t < count_; ++t) {
      widen(rows, first_[t].rows);
      widen(cols, first_[t].cols);
    }
    return {rows, cols};
  }

 private:
  std::int64_t count_;
  const TileSums* first_;
};

namespace detail {

inline constexpr double kUnlimited = std::numeric_limits<double>::infinity();

// Whether a window of accumulation that holds this much could be completed by zeros: the update's sums stay in range.
ADAFACTOR_DEVICE inline bool window_fits(const Leaf& leaf) {
  return leaf.shape.arithmetic != DType::float32 ||
         leaf.found.gradient_squares <= static_cast<double>((std::numeric_limits<float>::max)());
}

ADAFACTOR_DEVICE inline double norm_factor(double limit, double norm) { return norm <= limit ? 1 : limit / norm; }

// Whether the factor of clipping and the scale are finite: if not, one NaN or Inf, of the state or of the parameter,
// would make NaN of the whole leaf.
ADAFACTOR_DEVICE inline bool can_step(const Leaf& leaf) {
  return std::isfinite(leaf.found.update_squares) &&
         (!leaf.rule.scales_parameter || std::isfinite(leaf.found.parameter_squares));
}

// The squares left float although the gradient is finite.
ADAFACTOR_DEVICE inline bool narrow_overflow(const Leaf& leaf) {
  return leaf.shape.arithmetic == DType::float32 && std::isfinite(leaf.found.gradient_squares) &&
         !(std::isfinite(leaf.found.update_squares) && std::isfinite(leaf.found.parameter_squares));
}

// No M of the leaf is larger. That of a part is the mean of rows which others have.
ADAFACTOR_DEVICE inline double largest_mean(const Leaf& leaf, const MomentRange& rows) {
  double largest = leaf.rule.clamps ? (std::max)(rows.largest, leaf.rule.epsilon_1) : rows.largest;
  if (!leaf.is_part() || !leaf.at.mean_moment) return largest;
  for (std::int64_t slice = 0; slice < leaf.shape.slices; ++slice) {
    largest = (std::max)(largest, leaf.at.mean_moment[slice]);
  }
  return largest;
}

// Whether float may not hold what `apply` forms on the way to a finite update: the row factor, into which everything
// else is multiplied, its product with G, and U where nobody has measured it.
template <class Tiles>
ADAFACTOR_DEVICE bool may_overflow(const Leaf& leaf, const Tiles& tiles) {
  constexpr double limit = 1e38;
  if (!leaf.shape.factored || leaf.shape.arithmetic != DType::float32) return false;
  const auto [rows, cols] = tiles.ranges();
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
template <class Tiles>
ADAFACTOR_DEVICE bool may_clamp(const Leaf& leaf, const Tiles& tiles) {
  const auto [rows, cols] = tiles.ranges();
  const double row_factor = std::sqrt(largest_mean(leaf, rows) / rows.smallest);
  return !(row_factor / std::sqrt(cols.smallest) * leaf.rule.epsilon_1 < 0.999);
}

}  // namespace detail

// Whether NaN or Inf was found in a leaf that the verdict depends on.
ADAFACTOR_DEVICE inline bool is_nonfinite(const Leaf& leaf) {
  return leaf.found.stopped || !std::isfinite(leaf.found.gradient_squares);
}

// After `moments`: the squares of G. `tiles` are the leaf's, here and below.
template <class Tiles>
ADAFACTOR_DEVICE void find_gradient_squares(Leaf& leaf, const Tiles& tiles) {
  if (leaf.in_verdict()) leaf.found.gradient_squares = tiles.total(&TileSums::gradient_squares);
}

// After these, of all parts: the factor of clipping by the leaf's norm.
ADAFACTOR_DEVICE inline void find_norm(Leaf& leaf) {
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
template <class Tiles>
ADAFACTOR_DEVICE void find_clamp(Leaf& leaf, const Tiles& tiles) {
  leaf.found.clamp_binds = leaf.rule.clamps && leaf.shape.factored && leaf.updates() && detail::may_clamp(leaf, tiles);
}

// After `rms`: the sums of U^2 and P^2.
template <class Tiles>
ADAFACTOR_DEVICE void find_squares(Leaf& leaf, const Tiles& tiles) {
  if (!leaf.measures()) return;
  leaf.found.update_squares = tiles.total(&TileSums::update_squares);
  leaf.found.parameter_squares = tiles.total(&TileSums::parameter_squares);
}

// After these: whether they left float, so that they have to be made anew, in double.
ADAFACTOR_DEVICE inline bool goes_wide(Leaf& leaf) {
  leaf.found.wide = leaf.measures() && detail::narrow_overflow(leaf);
  return leaf.found.wide;
}

// After these, of all parts: the factor of clipping by rms, and alpha; or that the leaf is left alone.
template <class Tiles>
ADAFACTOR_DEVICE void find_step(Leaf& leaf, const Tiles& tiles, bool propagates) {
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
  found.wide = found.wide || detail::may_overflow(leaf, tiles);
}

}}  // namespace adafactor::ADAFACTOR_ABI

#include "adafactor/compiler/exact_end.hpp"
