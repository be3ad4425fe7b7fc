// U, the update of one run before clipping, for every kind of leaf: factored, factored with torch's clamp, unfactored,
// and the wide one in double for a leaf whose U leaves the arithmetic's range.
#pragma once

#include <cstdint>
#include <limits>

#include "adafactor/exact_begin.hpp"
#include "adafactor/gradient.hpp"
#include "adafactor/kernels.hpp"
#include "adafactor/leaf.hpp"
#include "adafactor/phases/factors.hpp"

namespace adafactor::inline ADAFACTOR_ABI {

// What takes a run of the gradient as it is read to `scale` times U.
template <class T>
class RowUpdate {
 public:
  RowUpdate(const Leaf& leaf, const TileSums* sums, std::int64_t slice, std::int64_t row, double scale)
      : leaf_(leaf), gradient_scale_(GradientRow<T>::scale(leaf) * leaf.norm_factor), scale_(scale) {
    if (leaf.factored) {
      bare_row_factor_ = static_cast<const T*>(leaf.row_factor)[slice * leaf.rows + row];
      col_factors_ = static_cast<const T*>(leaf.col_factor) + slice * leaf.cols;
      if (leaf.wide) prepare_wide(sums, slice, row);
    } else {
      full_ = static_cast<const T*>(leaf.before.full);
    }
  }

  // Calls body(update) with the update as a function of lanes; only for a factored leaf that is not wide.
  template <class Body>
  ADAFACTOR_INLINE void with_lanes(std::int64_t first, const Body& body) const {
    const double scale = gradient_scale_ * scale_;
    const T row_factor = static_cast<T>(static_cast<double>(bare_row_factor_) * scale);
    if (leaf_.clamps) {
      const double limit = 1 / leaf_.epsilon_1;
      body(ClampedUpdate<T>(row_factor, bare_row_factor_, col_factors_ + first, static_cast<T>(limit),
                            static_cast<T>(limit * scale)));
    } else {
      body(FactoredUpdate<T>(row_factor, col_factors_ + first));
    }
  }

  bool has_lanes() const { return leaf_.factored && !leaf_.wide; }

  // u <- scale U for n columns from `first` on. An unfactored leaf's new moments go to `full_out`, unless that is null.
  void store(const T* g, std::int64_t first, std::int64_t n, T* u, T* full_out) const {
    if (!leaf_.factored) {
      const T floor = leaf_.clamps ? static_cast<T>(leaf_.epsilon_1 * leaf_.epsilon_1) : T{0};
      const T epsilon = leaf_.clamps ? T{0} : static_cast<T>(leaf_.epsilon_1);
      const FullRule<T> rule{static_cast<T>(gradient_scale_), static_cast<T>(leaf_.beta_2),
                             static_cast<T>(leaf_.one_minus_beta_2), epsilon, floor};
      update_full(g, full_ + first, full_out ? full_out + first : nullptr, rule, static_cast<T>(scale_), u, n);
    } else if (leaf_.wide) {
      for (std::int64_t i = 0; i < n; ++i) u[i] = static_cast<T>(wide(g[i], first + i));
    } else {
      with_lanes(first, [&](const auto& update) ADAFACTOR_INLINE_LAMBDA { store_update(g, u, update, n); });
    }
  }

  // scale U of one element of a wide leaf, in double.
  double wide(T g, std::int64_t col) const {
    const double moment = static_cast<double>(wide_cols_[col]);
    double factor = moment > 0 ? wide_row_factor_ / std::sqrt(moment) : 0;
    if (leaf_.clamps && factor > 1 / leaf_.epsilon_1) factor = 1 / leaf_.epsilon_1;
    return static_cast<double>(g) * (gradient_scale_ * scale_) * factor;
  }

 private:
  void prepare_wide(const TileSums* sums, std::int64_t slice, std::int64_t row) {
    const double moment = static_cast<double>(static_cast<const T*>(leaf_.row_moment)[slice * leaf_.rows + row]);
    const double mean = mean_of_row_moments<T>(leaf_, sums, slice);
    wide_row_factor_ = moment > 0 ? std::sqrt(mean / moment) : 0;
    wide_cols_ = static_cast<const T*>(leaf_.col_moment) + slice * leaf_.cols;
  }

  const Leaf& leaf_;
  double gradient_scale_;
  double scale_;
  T bare_row_factor_ = 0;
  const T* col_factors_ = nullptr;
  const T* full_ = nullptr;
  double wide_row_factor_ = 0;
  const T* wide_cols_ = nullptr;
};

}  // namespace adafactor::inline ADAFACTOR_ABI

#include "adafactor/exact_end.hpp"
