// Phase `factors`: new R, C and M, the inverse roots, and the range of the moments. The twin of cpu/factors.hpp.
#pragma once

#include <cstdint>

#include "adafactor/cpu/mean_moment.hpp"
#include "adafactor/cpu/runs/formulas.hpp"
#include "adafactor/step/leaf.hpp"
#include "team.hpp"
#include "threads.hpp"
#include "view.hpp"

namespace adafactor::cuda {

template <class T>
struct Factors {
  struct Shared {
    double smallest[kTeams];
    double largest[kTeams];
  };

  ADAFACTOR_KERNEL void operator()(const View& view, int index, Shared& shared) const {
    const std::int32_t t = view.lists<T>().tiles[index];
    const Tile& tile = view.tiles[t];
    const Leaf& leaf = view.leaves[tile.leaf];
    if (!view.has(tile.leaf) || !leaf.shape.factored || !leaf.updates()) return;
    const MomentRule rule = moment_rule(leaf);
    if (leaf.at.mean_moment) {
      const TileSums* sums = view.sums + leaf.shape.first_tile;
      const Indices slices = slices_begun_in(leaf, tile);
      for (std::int64_t slice = slices.first + team_of_block(); slice < slices.last; slice += kTeams) {
        const double mean = mean_moment_of<T>(leaf, sums, slice, rule, TeamTotal{});
        if (lane() == 0) leaf.at.mean_moment[slice] = mean;
      }
    }
    const MomentRange rows = tile.col_block == 0 ? make_rows(leaf, tile, rule) : no_range();
    const MomentRange cols = tile.row_block == 0 ? make_cols(leaf, tile, rule) : no_range();
    const MomentRange all_rows = of_block(rows, shared);
    const MomentRange all_cols = of_block(cols, shared);
    if (thread_of_block() != 0) return;
    view.sums[t].rows = all_rows;
    view.sums[t].cols = all_cols;
  }

 private:
  // What all threads of the block have found.
  ADAFACTOR_KERNEL MomentRange of_block(const MomentRange& found, Shared& shared) const {
    const MomentRange of_team = team_range(found);
    meet();
    if (lane() == 0) {
      shared.smallest[team_of_block()] = of_team.smallest;
      shared.largest[team_of_block()] = of_team.largest;
    }
    meet();
    MomentRange all = no_range();
    for (int team = 0; team < kTeams; ++team) all = wider(all, {shared.smallest[team], shared.largest[team]});
    return all;
  }

  static ADAFACTOR_KERNEL MomentRange with(const MomentRange& range, T moment) {
    const auto wide = static_cast<double>(moment);
    return {wide > 0 ? smaller(range.smallest, wide) : range.smallest, larger(range.largest, wide)};
  }

  ADAFACTOR_KERNEL T update(const MomentRule& rule, const T* old, const double* sums, std::int64_t count, T* moment,
                            std::int64_t i) const {
    if (sums) moment[i] = static_cast<T>(sums[i] / static_cast<double>(count));
    moment[i] = static_cast<T>(next_moment(rule, static_cast<double>(old[i]), static_cast<double>(moment[i])));
    return moment[i];
  }

  ADAFACTOR_KERNEL MomentRange make_rows(const Leaf& leaf, const Tile& tile, const MomentRule& rule) const {
    MomentRange range = no_range();
    if (leaf.at.row_factor) {
      for (std::int64_t slice = thread_of_block(); slice < tile.slices; slice += kThreads) {
        range = wider(range, make_small_slice(leaf, tile.slice + slice, rule));
      }
      return range;
    }
    const std::int64_t first = tile.slice * leaf.shape.rows + tile.row;
    for (std::int64_t r = thread_of_block(); r < tile.slices * tile.rows; r += kThreads) {
      const T moment = update(rule, static_cast<const T*>(leaf.at.before.row), leaf.row_sums(), leaf.shape.whole_cols,
                              static_cast<T*>(leaf.at.row_moment), first + r);
      range = with(range, moment);
    }
    return range;
  }

  ADAFACTOR_KERNEL MomentRange make_cols(const Leaf& leaf, const Tile& tile, const MomentRule& rule) const {
    MomentRange range = no_range();
    const std::int64_t first = tile.slice * leaf.shape.cols + tile.col;
    for (std::int64_t c = thread_of_block(); c < tile.slices * tile.cols; c += kThreads) {
      const T moment = update(rule, static_cast<const T*>(leaf.at.before.col), leaf.col_sums(), leaf.shape.whole_rows,
                              static_cast<T*>(leaf.at.col_moment), first + c);
      static_cast<T*>(leaf.at.col_factor)[first + c] = static_cast<T>(inverse_root(static_cast<double>(moment)));
      range = with(range, moment);
    }
    return range;
  }

  // One thread makes R and the row factors of one slice; its M, of the means of its rows, is not kept.
  ADAFACTOR_KERNEL MomentRange make_small_slice(const Leaf& leaf, std::int64_t slice, const MomentRule& rule) const {
    const std::int64_t rows = leaf.shape.rows;
    const T* old = static_cast<const T*>(leaf.at.before.row) + slice * rows;
    T* moments = static_cast<T*>(leaf.at.row_moment) + slice * rows;
    const double mean = mean_moment(leaf, rule, mean_of(old, rows), mean_of(moments, rows));
    MomentRange range = no_range();
    for (std::int64_t r = 0; r < rows; ++r) {
      const T moment = update(rule, old, nullptr, 1, moments, r);
      range = with(range, moment);
      const auto wide = static_cast<double>(moment);
      static_cast<T*>(leaf.at.row_factor)[slice * rows + r] =
          static_cast<T>(select_less(0.0, wide, square_root(mean / wide), 0.0));
    }
    return range;
  }

  static ADAFACTOR_KERNEL double mean_of(const T* numbers, std::int64_t count) {
    return fold_few(count, [&](int i) { return static_cast<double>(numbers[i]); }) / static_cast<double>(count);
  }
};

}  // namespace adafactor::cuda
