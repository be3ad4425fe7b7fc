// U, the update of one run before clipping, for every kind of leaf: factored, factored with torch's clamp, unfactored,
// and the wide one in double for a leaf whose U leaves the arithmetic's range.
#pragma once

#include <cstdint>

#include "adafactor/cpu/row_factors.hpp"
#include "adafactor/cpu/runs/loops.hpp"
#include "adafactor/lanes/stored.hpp"
#include "adafactor/step/leaf.hpp"

#include "adafactor/compiler/exact_begin.hpp"

namespace adafactor { inline namespace ADAFACTOR_LOOPS {

// Calls body(Storage<G>{}, Storage<P>{}) for what the gradient and the parameter of a leaf are stored as, where loops
// read both so.
template <class T, class Body>
ADAFACTOR_INLINE void with_loops(const Leaf& leaf, const Body& body) {
  with_loops<T>(leaf.at.gradient.dtype, [&](auto of_gradient) {
    with_loops<T>(leaf.at.parameter.dtype, [&](auto of_parameter) { body(of_gradient, of_parameter); });
  });
}

// Whether loops make U of an unfactored leaf as they go: of gradients and parameters of one common type.
inline bool has_full_loops(const Leaf& leaf) {
  const DType dtype = leaf.at.parameter.dtype;
  return !leaf.shape.factored && !leaf.found.wide && is_common(dtype) && leaf.at.gradient.dtype == dtype;
}

// What takes runs of the gradient of one slice, as they are read, to `scale` times U.
template <class T>
class SliceU {
 public:
  ADAFACTOR_DEVICE SliceU(const Leaf& leaf, std::int64_t slice, double scale)
      : leaf_(leaf),
        slice_(slice),
        gradient_scale_(leaf.gradient_scale() * leaf.found.norm_factor),
        update_scale_(scale),
        scale_(gradient_scale_ * scale) {
    if (!leaf.shape.factored) return;
    col_factors_ = static_cast<const T*>(leaf.at.col_factor) + slice * leaf.shape.cols;
    row_moments_ = static_cast<const T*>(leaf.at.row_moment) + slice * leaf.shape.rows;
    if (leaf.at.row_factor) row_factors_ = static_cast<const T*>(leaf.at.row_factor) + slice * leaf.shape.rows;
    col_moments_ = static_cast<const T*>(leaf.at.col_moment) + slice * leaf.shape.cols;
  }

  // factors <- those of some rows, as plain() takes them.
  void make_row_factors(std::int64_t row, std::int64_t count, T* factors) const {
    if (row_factors_) return scale_row_factors(row_factors_ + row, scale_, factors, count);
    store_row_factors(row_moments_ + row, mean_moment(), scale_, factors, count);
  }

  // U as a function of lanes, for columns from `first` on, where it is plain.
  ADAFACTOR_DEVICE FactoredU<T> plain(T row_factor, std::int64_t first) const {
    return {row_factor, col_factors_ + first};
  }

  // u <- scale U for n columns from `first` on. An unfactored leaf's new moments go to the state where they are to
  // stay; where u alone is needed, it is written over them.
  enum class Moments { drop, keep };
  void store(Run<T> g, std::int64_t row, std::int64_t first, std::int64_t n, T* u, Moments moments) const {
    if (!leaf_.shape.factored) {
      FullU<T, true> u_of = full<true>(first);
      if (moments == Moments::drop) u_of.after = u;
      store_u(g, u, u_of, n);
    } else if (leaf_.found.wide) {
      const double factor = row_factor(row);
      for (std::int64_t i = 0; i < n; ++i) u[i] = static_cast<T>(wide(load<T>(g, i, One{}), factor, first + i));
    } else {
      if (leaf_.found.clamp_binds) {
        store_u(g, u, clamped(kept_row_factor(row), first), n);
      } else {
        store_u(g, u, plain(scaled_row_factor(row), first), n);
      }
    }
  }

  // (R / M)^-1/2 of a row, and what was kept of it, which may have been rounded.
  ADAFACTOR_DEVICE double row_factor(std::int64_t row) const {
    const double moment = static_cast<double>(row_moments_[row]);
    return adafactor::row_factor(moment, mean_moment());
  }
  ADAFACTOR_DEVICE double kept_row_factor(std::int64_t row) const {
    return row_factors_ ? static_cast<double>(row_factors_[row]) : row_factor(row);
  }
  // That as plain() takes it.
  ADAFACTOR_DEVICE T scaled_row_factor(std::int64_t row) const { return static_cast<T>(kept_row_factor(row) * scale_); }

  // scale U of one element of a wide leaf, in double.
  ADAFACTOR_DEVICE double wide(T g, double factor_of_row, std::int64_t col) const {
    const double moment = static_cast<double>(col_moments_[col]);
    double factor = moment == 0 ? 0 : factor_of_row / square_root(moment);
    if (leaf_.rule.clamps && factor > 1 / leaf_.rule.epsilon_1) factor = 1 / leaf_.rule.epsilon_1;
    return static_cast<double>(g) * scale_ * factor;
  }

  // U where torch's clamp may bind, for columns from `first` on.
  ADAFACTOR_DEVICE ClampedU<T> clamped(double bare, std::int64_t first) const {
    const double limit = 1 / leaf_.rule.epsilon_1;
    return {static_cast<T>(bare * scale_), col_factors_ + first, static_cast<T>(bare), static_cast<T>(limit),
            static_cast<T>(limit * scale_)};
  }

  // U of an unfactored leaf, for columns from `first` on.
  template <bool keeps>
  FullU<T, keeps> full(std::int64_t first) const {
    const Run<T> before(static_cast<const T*>(leaf_.at.before.full) + first, bytes_ahead());
    return {full_rule(), full_scale(), before, keeps ? static_cast<T*>(leaf_.at.after.full) + first : nullptr};
  }

  // The rule of an unfactored leaf, and what its U is multiplied by.
  ADAFACTOR_DEVICE FullRule<T> full_rule() const {
    const T floor = leaf_.rule.clamps ? static_cast<T>(leaf_.rule.epsilon_1 * leaf_.rule.epsilon_1) : T{0};
    const T epsilon = leaf_.rule.clamps ? T{0} : static_cast<T>(leaf_.rule.epsilon_1);
    return {static_cast<T>(gradient_scale_), static_cast<T>(leaf_.rule.beta_2),
            static_cast<T>(leaf_.rule.one_minus_beta_2), epsilon, floor};
  }
  ADAFACTOR_DEVICE T full_scale() const { return static_cast<T>(update_scale_); }

 private:
  // M; that of a small slice was not kept, and is made anew.
  ADAFACTOR_DEVICE double mean_moment() const {
    if (leaf_.at.mean_moment) return leaf_.at.mean_moment[slice_];
    const double mean = sum_of(row_moments_, leaf_.shape.rows) / static_cast<double>(leaf_.shape.rows);
    return leaf_.rule.clamps && mean < leaf_.rule.epsilon_1 ? leaf_.rule.epsilon_1 : mean;
  }

  const Leaf& leaf_;
  std::int64_t slice_;
  double gradient_scale_;
  double update_scale_;
  double scale_;  // of both
  const T* col_factors_ = nullptr;
  const T* row_moments_ = nullptr;
  const T* row_factors_ = nullptr;  // those that are kept
  const T* col_moments_ = nullptr;
};

}}  // namespace adafactor::ADAFACTOR_LOOPS

#include "adafactor/compiler/exact_end.hpp"
