// U of a run as its elements come, of every kind of leaf: the twin of SliceU::store() and of the short rows' factors.
#pragma once

#include <cstdint>

#include "adafactor/cpu/runs/links.hpp"
#include "adafactor/cpu/runs/loops.hpp"
#include "adafactor/cpu/runs/u.hpp"
#include "adafactor/step/leaf.hpp"
#include "cells.hpp"
#include "places.hpp"
#include "threads.hpp"

namespace adafactor::cuda {

// The gradient links of a run, which are read for each element: a thread has no room to keep them.
template <class T>
class ReadLinks {
 public:
  ADAFACTOR_KERNEL ReadLinks(const Leaf& leaf, std::int64_t first) : leaf_(leaf), first_(first) {}

  ADAFACTOR_KERNEL void ask(std::int64_t, std::int64_t) const {}
  template <class Amount>
  ADAFACTOR_KERNEL Lanes<T> unclipped(const Lanes<T>& g, std::int64_t i, Amount amount) const {
    return read().unclipped(g, i, amount);
  }
  ADAFACTOR_KERNEL Lanes<T> clip(const Lanes<T>& x) const { return read().clip(x); }

 private:
  ADAFACTOR_KERNEL GradientLinks<T> read() const { return gradient_links<T>(as_unknown(leaf_), first_); }

  const Leaf& leaf_;
  std::int64_t first_;
};

// What is read of a gradient becomes G, before it is multiplied by gradient_scale().
template <class T>
class MadeGradient {
 public:
  ADAFACTOR_KERNEL MadeGradient(const Leaf& leaf, std::int64_t first)
      : linked_(leaf.links_gradient()), links_(leaf, first) {}

  template <class Amount>
  ADAFACTOR_KERNEL Lanes<T> operator()(const Lanes<T>& g, std::int64_t i, Amount amount) const {
    return linked_ ? links_.clip(links_.unclipped(g, i, amount)) : g;
  }

 private:
  bool linked_;
  ReadLinks<T> links_;
};

// (R / M)^-1/2 of the rows of a cell; where it was kept, the lanes read theirs together.
template <class T, Kind kind>
class RowFactors {
 public:
  ADAFACTOR_KERNEL RowFactors(const SliceU<T>& u, const Cell& cell) : u_(u), row_(cell.row) {
    if constexpr (kIsKept) of_lane_ = lane() < cell.rows ? u.kept_row_factor(cell.row + lane()) : 0;
  }

  // Of the r-th row; asked for by all lanes.
  ADAFACTOR_KERNEL double operator[](int r) const {
    if constexpr (kIsKept) return of_lane(of_lane_, r);
    return kind == Kind::wide ? u_.row_factor(row_ + r) : 0;
  }

 private:
  static constexpr bool kIsKept = kind == Kind::plain || kind == Kind::clamped;
  const SliceU<T>& u_;
  std::int64_t row_;
  double of_lane_ = 0;
};

// scale U of the elements of a row from a column on. The new moments of an unfactored leaf go to `after`, if that is
// something.
template <class T, Kind kind>
class RowU {
 public:
  ADAFACTOR_KERNEL RowU(const Leaf& leaf, const SliceU<T>& u, const RowPlaces& places, double bare_factor,
                        std::int64_t col, T* after)
      : u_(u), gradient_(leaf, places.first()), bare_(bare_factor), col_(col) {
    if constexpr (kind == Kind::unfactored) {
      rule_ = u.full_rule();
      before_ = static_cast<const T*>(leaf.at.before.full) + places.first();
      if (after) after_ = after + places.first();
    } else if constexpr (kind != Kind::wide) {
      factors_ = u.clamped(bare_factor, col);
    }
  }

  // Where the leaf is wide it is made in double, and rounded to T.
  template <class Amount>
  ADAFACTOR_KERNEL Lanes<T> operator()(const Lanes<T>& read, std::int64_t i, Amount amount) const {
    const Lanes<T> g = gradient_(read, i, amount);
    if (!has_lane(amount)) return {{T{}}};
    if constexpr (kind == Kind::unfactored) return full(g, i, amount);
    if constexpr (kind == Kind::wide) return {{static_cast<T>(wide_of(g, i, amount))}};
    if constexpr (kind == Kind::clamped) return factors_(g, i, amount);
    return FactoredU<T>{factors_.row, factors_.cols}(g, i, amount);
  }
  // In double, and not rounded where it is made there.
  template <class Amount>
  ADAFACTOR_KERNEL Lanes<double> wide(const Lanes<T>& read, std::int64_t i, Amount amount) const {
    if constexpr (kind == Kind::unfactored) return widen((*this)(read, i, amount));
    return {{wide_of(gradient_(read, i, amount), i, amount)}};
  }

 private:
  template <class Amount>
  ADAFACTOR_KERNEL Lanes<T> full(const Lanes<T>& g, std::int64_t i, Amount amount) const {
    const Lanes<T> x = g * rule_.gradient_scale;
    const Lanes<T> moment = next_moment(rule_, load<T>(before_ + i, amount), x);
    if (after_) store(after_ + i, moment, amount);
    return full_u(rule_, x, moment) * u_.full_scale();
  }
  template <class Amount>
  ADAFACTOR_KERNEL double wide_of(const Lanes<T>& g, std::int64_t i, Amount amount) const {
    return has_lane(amount) ? u_.wide(g.group.value, bare_, col_ + i + lane()) : 0;
  }

  const SliceU<T>& u_;
  MadeGradient<T> gradient_;
  double bare_;
  std::int64_t col_;
  ClampedU<T> factors_{};
  FullRule<T> rule_{};
  const T* before_ = nullptr;
  T* after_ = nullptr;
};

// Calls body(row, u_of) for each row of a cell of a leaf whose U is plain; the lanes make the rows' factors
// together.
template <class T, class Body>
ADAFACTOR_KERNEL void for_plain_rows_of(const Leaf& leaf, const Cell& cell, double scale, const Body& body) {
  const SliceU<T> u(leaf, cell.slice, scale);
  const T factor = lane() < cell.rows ? u.scaled_row_factor(cell.row + lane()) : T{};
  ADAFACTOR_KEEP_ROLLED
  for (int r = 0; r < cell.rows; ++r) {
    body(r, u.plain(static_cast<T>(of_lane(static_cast<double>(factor), r)), cell.col));
  }
}

// scale U of whole short rows that follow each other, where it is plain: each element has its own factors.
template <class T>
class RowsU {
 public:
  ADAFACTOR_KERNEL RowsU(const Leaf& leaf, const RowsPlaces& places, double scale)
      : leaf_(leaf),
        places_(places),
        gradient_(leaf, places.first()),
        scale_(leaf.gradient_scale() * leaf.found.norm_factor * scale) {}

  template <class Amount>
  ADAFACTOR_KERNEL Lanes<T> operator()(const Lanes<T>& read, std::int64_t i, Amount amount) const {
    const Lanes<T> g = gradient_(read, i, amount);
    if (!has_lane(amount)) return {{T{}}};
    const RowsPlaces::Place place = places_.at(i + lane());
    const T* cols = static_cast<const T*>(leaf_.at.col_factor) + place.slice * leaf_.shape.cols;
    return {
        {(g.group.value * row_factor_of(place.slice * leaf_.shape.rows + place.row, place.slice)) * cols[place.col]}};
  }

 private:
  ADAFACTOR_KERNEL T row_factor_of(std::int64_t row, std::int64_t slice) const {
    if (has_small_slices(leaf_)) {
      return static_cast<T>(static_cast<double>(static_cast<const T*>(leaf_.at.row_factor)[row]) * scale_);
    }
    const double moment = static_cast<double>(static_cast<const T*>(leaf_.at.row_moment)[row]);
    return static_cast<T>(row_factor(moment, leaf_.at.mean_moment[slice]) * scale_);
  }

  const Leaf& leaf_;
  const RowsPlaces& places_;
  MadeGradient<T> gradient_;
  double scale_;
};

}  // namespace adafactor::cuda
