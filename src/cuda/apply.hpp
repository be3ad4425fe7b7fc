// Phase `apply`: the new parameters, through the update links, and the new state. The twin of cpu/apply.hpp.
#pragma once

#include <cstddef>
#include <cstdint>

#include "adafactor/cpu/runs/formulas.hpp"
#include "adafactor/cpu/runs/loops.hpp"
#include "adafactor/cpu/runs/u.hpp"
#include "adafactor/step/leaf.hpp"
#include "cells.hpp"
#include "places.hpp"
#include "threads.hpp"
#include "update.hpp"
#include "view.hpp"

namespace adafactor::cuda {

// A run on its way from the update to the new parameter and the new state.
template <class T, class Places>
class AppliedRun {
 public:
  ADAFACTOR_KERNEL AppliedRun(const Leaf& leaf, const Places& places)
      : leaf_(leaf), places_(places), output_(leaf, places), first_(places.first()) {}

  // Of a leaf that is updated: u_of makes its scaled U.
  template <class U>
  ADAFACTOR_KERNEL void update(const U& u_of, std::int64_t n) const {
    const Numbers<T, Places> g(leaf_.at.gradient, places_);
    const Numbers<T, Places> p(leaf_.at.parameter, places_);
    const auto read = [&](std::int64_t i, auto amount) {
      return Pair<Lanes<T>>{load<T>(g, i, amount), load<T>(p, i, amount)};
    };
    for_lanes<Numbers<T, Places>>(n, read, [&](std::int64_t i, auto amount, const Pair<Lanes<T>>& numbers) {
      Lanes<T> x = u_of(numbers.gradient, i, amount);
      if (!has_lane(amount)) return;
      const std::int64_t element = first_ + i + lane();
      T update = x.group.value;
      if (leaf_.rule.has_momentum) update = momentum(update, element);
      if (!leaf_.scales_early()) update = update * static_cast<T>(leaf_.found.step_size);
      const T stored = output_.write(i + lane(), parameter_of(numbers.parameter.group.value, update));
      if (leaf_.averages()) average(stored, element, i + lane());
      if (leaf_.rule.accumulates) state<T>(leaf_.at.after.accumulator)[element] = T{};
    });
  }

  // Of one that is not: its gradient is added up, its average moves, the rest stays.
  ADAFACTOR_KERNEL void keep(std::int64_t n) const {
    const Numbers<T, Places> g(leaf_.at.gradient, places_);
    const Numbers<T, Places> p(leaf_.at.parameter, places_);
    const MadeGradient<T> made(leaf_, first_);
    const bool copies = leaf_.at.parameter.data != leaf_.at.parameter_out.data;
    for_lanes(n, [&](std::int64_t i, auto amount) {
      const Lanes<T> sum = leaf_.adds() ? made(load<T>(g, i, amount), i, amount) : fill(T{});
      if (!has_lane(amount)) return;
      const std::int64_t element = first_ + i + lane();
      carry(element);
      if (leaf_.adds()) state<T>(leaf_.at.after.accumulator)[element] = sum.group.value;
      if (leaf_.rule.writes_difference) {
        if (copies && leaf_.at.parameter_out.data) output_.write(i + lane(), T{});
      } else if (leaf_.averages()) {
        const bool is_written = average(p.at(i + lane()), element, i + lane());
        if (copies && !is_written) output_.copy(i + lane());
      } else if (copies) {
        output_.copy(i + lane());
      }
    });
  }

 private:
  template <class S>
  static ADAFACTOR_KERNEL S* state(void* array) {
    return static_cast<S*>(array);
  }

  ADAFACTOR_KERNEL T momentum(T update, std::int64_t element) const {
    const MovingMean<T> mean(leaf_.rule.beta_1);
    if (!leaf_.rule.momentum_is_bfloat16) {
      update = mean(state<T>(leaf_.at.before.momentum)[element], update);
      state<T>(leaf_.at.after.momentum)[element] = update;
      return update;
    }
    const T before = load<T>(state<const Bfloat16>(leaf_.at.before.momentum) + element, One{});
    const T exact = mean(before, update);
    Bfloat16* after = state<Bfloat16>(leaf_.at.after.momentum) + element;
    store(after, exact, One{});
    return leaf_.rule.uses_exact_momentum ? exact : load<T>(static_cast<const Bfloat16*>(after), One{});
  }

  ADAFACTOR_KERNEL T parameter_of(T p, T update) const {
    const T decay = static_cast<T>(leaf_.found.weight_decay);
    if (leaf_.rule.writes_difference) return (decay == 0 ? update : with_decay(p, update, decay)) * T{-1};
    return leaf_.found.weight_decay != 0 ? decayed(p, update, decay) : p - update;
  }

  // Of the parameter as it is stored. Returns whether that becomes the average.
  ADAFACTOR_KERNEL bool average(T p, std::int64_t element, std::int64_t i) const {
    const MovingMean<T> mean(leaf_.rule.starts_average ? 0 : leaf_.rule.ema_momentum);
    const T average = mean(state<T>(leaf_.at.before.average)[element], p);
    state<T>(leaf_.at.after.average)[element] = average;
    if (leaf_.rule.overwrites) output_.write(i, average);
    return leaf_.rule.overwrites;
  }

  ADAFACTOR_KERNEL void carry(std::int64_t element) const {
    const StateArrays& before = leaf_.at.before;
    const StateArrays& after = leaf_.at.after;
    carry_one<T>(before.full, after.full, element, false);
    if (leaf_.rule.momentum_is_bfloat16) {
      carry_one<Bfloat16>(before.momentum, after.momentum, element, false);
    } else {
      carry_one<T>(before.momentum, after.momentum, element, false);
    }
    if (!leaf_.averages()) carry_one<T>(before.average, after.average, element, leaf_.forgets_average());
    if (!leaf_.adds()) carry_one<T>(before.accumulator, after.accumulator, element, leaf_.forgets());
  }
  template <class S>
  static ADAFACTOR_KERNEL void carry_one(const void* from, void* to, std::int64_t element, bool forgets) {
    if (!to || (from == to && !forgets)) return;
    state<S>(to)[element] = forgets ? S{} : static_cast<const S*>(from)[element];
  }

  const Leaf& leaf_;
  const Places& places_;
  Outputs<T, Places> output_;
  std::int64_t first_;
};

// The cells of leaves that are updated without links, where gradient and parameter are stored as G and P and lie side
// by side, as the output does.
template <class T, class G, class P>
struct PlainApply {
  struct Shared {};

  ADAFACTOR_KERNEL void operator()(const View& view, int index, Shared&) const {
    const TeamCell team = TeamCell::of<T>(view, index);
    const Leaf& leaf = team.leaf;
    if (!view.has(team.tile.leaf) || !applies_in_place(leaf)) return;
    if (leaf.at.gradient.dtype != dtype_of<G> || leaf.at.parameter.dtype != dtype_of<P>) return;
    const RowCells cells(team.tile);
    if (team.cell >= cells.count()) return;
    const Cell cell = cells.at(team.cell);
    const CellRows<const G> g(leaf.at.gradient, leaf.shape, cell);
    const CellRows<const P> p(leaf.at.parameter, leaf.shape, cell);
    const CellRows<P> out(leaf.at.parameter_out, leaf.shape, cell);
    for_plain_rows_of<T>(leaf, cell, leaf.update_scale(), [&](int row, const FactoredU<T>& u_of) {
      subtract_u<T>(Run<G>(g[row]), Run<P>(p[row]), out[row], u_of, cell.cols);
    });
  }
};

// The rows of a cell of a leaf that is updated.
template <class T, Kind kind>
ADAFACTOR_KERNEL_CALL void update_rows(const View& view, int index) {
  const TeamCell team = TeamCell::of<T>(view, index);
  const Leaf& leaf = team.leaf;
  const RowCells cells(team.tile);
  if (team.cell >= cells.count()) return;
  const Cell cell = cells.at(team.cell);
  const SliceU<T> u(leaf, cell.slice, leaf.update_scale());
  const RowFactors<T, kind> factors(u, cell);
  ADAFACTOR_KEEP_ROLLED
  for (int r = 0; r < rows_in<kind>(cell); ++r) {
    const RowPlaces places(leaf.shape, cell.slice, cell.row + r, cell.col);
    const RowU<T, kind> u_of(leaf, u, places, factors[r], cell.col, static_cast<T*>(leaf.at.after.full));
    AppliedRun<T, RowPlaces>(leaf, places).update(u_of, cell.cols);
  }
}

// The same of a run of whole short rows.
template <class T>
ADAFACTOR_KERNEL_CALL void update_run(const View& view, int index) {
  const TeamCell team = TeamCell::of<T>(view, index);
  const Leaf& leaf = team.leaf;
  const RunCells cells(leaf, team.tile);
  if (team.cell >= cells.count()) return;
  const RowRange rows = cells.at(team.cell);
  const RowsPlaces places(leaf.shape, rows.first);
  AppliedRun<T, RowsPlaces>(leaf, places)
      .update(RowsU<T>(leaf, places, leaf.update_scale()), rows.count * leaf.shape.cols);
}

// The rows of a cell of a leaf that is not updated.
template <class T>
ADAFACTOR_KERNEL_CALL void keep_rows(const View& view, int index) {
  const TeamCell team = TeamCell::of<T>(view, index);
  const Leaf& leaf = team.leaf;
  const RowCells cells(team.tile);
  if (team.cell >= cells.count()) return;
  const Cell cell = cells.at(team.cell);
  ADAFACTOR_KEEP_ROLLED
  for (int r = 0; r < cell.rows; ++r) {
    const RowPlaces places(leaf.shape, cell.slice, cell.row + r, cell.col);
    AppliedRun<T, RowPlaces>(leaf, places).keep(cell.cols);
  }
}

// The elements of all other leaves, cell by cell.
template <class T>
struct Apply {
  struct Shared {};

  ADAFACTOR_KERNEL void operator()(const View& view, int index, Shared&) const {
    const TeamCell team = TeamCell::of<T>(view, index);
    const Leaf& leaf = team.leaf;
    if (!view.has(team.tile.leaf) || applies_in_place(leaf)) return;
    if (!leaf.updates()) return keep_rows<T>(view, index);
    if (!leaf.shape.factored) return update_rows<T, Kind::unfactored>(view, index);
    if constexpr (sizeof(T) == sizeof(float)) {
      if (leaf.found.wide) return update_rows<T, Kind::wide>(view, index);
    }
    if (leaf.found.clamp_binds) return update_rows<T, Kind::clamped>(view, index);
    if (is_narrow(leaf)) return update_run<T>(view, index);
    return update_rows<T, Kind::plain>(view, index);
  }
};

// The moments that `factors` left in the scratch become the state; or the old ones, where they stay.
template <class T>
struct Commit {
  struct Shared {};

  ADAFACTOR_KERNEL void operator()(const View& view, int index, Shared&) const {
    const std::int32_t t = view.lists<T>().tiles[index];
    const Tile& tile = view.tiles[t];
    const Leaf& leaf = view.leaves[tile.leaf];
    if (!view.has(tile.leaf) || !leaf.shape.factored) return;
    const bool updates = leaf.updates();
    if (tile.col_block == 0) {
      copy(updates ? leaf.at.row_moment : leaf.at.before.row, leaf.at.after.row,
           tile.slice * leaf.shape.rows + tile.row, tile.slices * tile.rows);
    }
    if (tile.row_block == 0) {
      copy(updates ? leaf.at.col_moment : leaf.at.before.col, leaf.at.after.col,
           tile.slice * leaf.shape.cols + tile.col, tile.slices * tile.cols);
    }
  }

 private:
  ADAFACTOR_KERNEL void copy(const void* from, void* to, std::int64_t first, std::int64_t n) const {
    if (from == to) return;
    for (std::int64_t i = first + thread_of_block(); i < first + n; i += kThreads) {
      static_cast<T*>(to)[i] = static_cast<const T*>(from)[i];
    }
  }
};

}  // namespace adafactor::cuda
