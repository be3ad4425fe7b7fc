// The functions of the phases, as this file's flags compile them: which loops the tiles of a leaf go through.
#pragma once

#include "adafactor/cpu/apply.hpp"
#include "adafactor/cpu/exactness.hpp"
#include "adafactor/cpu/factors.hpp"
#include "adafactor/cpu/kernels.hpp"
#include "adafactor/cpu/moments.hpp"
#include "adafactor/cpu/rms.hpp"
#include "adafactor/cpu/short/factors.hpp"
#include "adafactor/cpu/short/moments.hpp"
#include "adafactor/cpu/short/registers.hpp"
#include "adafactor/cpu/short/rows.hpp"

namespace adafactor { inline namespace ADAFACTOR_LOOPS {

// Calls body.operator()<Factors>() with the kind of factors that the rows are fastest with.
template <class T, class Body>
void with_narrow_factors(const Leaf& leaf, const Body& body) {
  if constexpr (kSpecialLoops<T>) {
    // A part may have one slice of many small ones, of which no M is kept.
    const bool is_one = leaf.shape.slices == 1 && !has_small_slices(leaf);
    if (is_one && leaf.shape.cols == 8) return body.template operator()<ShortRowFactors<T, 8>>();
    if (is_one && leaf.shape.cols == 4) return body.template operator()<ShortRowFactors<T, 4>>();
  }
  body.template operator()<NarrowFactors<T>>();
}

// The third phase on one tile.
template <class T>
void rms_of_tile(const Leaf& leaf, const Tile& tile, TileSums& sums) {
  if (tile.size() == 0) return;  // of a part without elements, here too
  Total of_update;
  Total of_parameter;
  if (is_narrow(leaf) && leaf.is_plain()) {
    with_narrow_factors<T>(leaf, [&]<class Factors>() {
      Factors factors(leaf, tile, 1);
      loop_detail::add_narrow_squares<T>(leaf, tile, factors, of_update, of_parameter);
    });
  } else {
    Total of_gradient;
    for (std::int64_t slice = tile.slice; slice < tile.slice + tile.slices; ++slice) {
      loop_detail::SliceSquares<T>(leaf, tile, slice)(of_update, of_parameter, of_gradient);
    }
    if (leaf.measures_early()) sums.gradient_squares = of_gradient.sum();
  }
  sums.update_squares = of_update.sum();
  sums.parameter_squares = of_parameter.sum();
}

// The first three phases on one tile of small slices, which has all that their factors are made of: sixteen slices go
// through the first two together, and runs of them through the third, before they leave the cache.
template <class T>
ADAFACTOR_OWN_FRAME void visit_small_slices(const Leaf& leaf, const Tile& tile, TileSquares& squares, TileSums& sums) {
  NarrowFactors<T> factors(leaf, tile, 1);
  Total of_update;
  Total of_parameter;
  sums.rows = sums.cols = {__builtin_inf(), 0};
  for_parts_of_cells(leaf, tile, [&](const Tile& part) {
    loop_detail::moments_of_slices<T>(leaf, part, squares, &sums);
    if (leaf.measures()) loop_detail::add_narrow_squares<T>(leaf, part, factors, of_update, of_parameter);
  });
  sums.update_squares = of_update.sum();
  sums.parameter_squares = of_parameter.sum();
}

// The first phase on one tile: its sum of squares, the row and column sums of its part, and the sum of its old R, of
// which M is made.
template <class T>
void moments_of_tile(const Leaf& leaf, const Tile& tile, TileSums& sums) {
  if (tile.size() == 0) return;  // of a part without elements: its sums are zero
  if (leaf.measures_early()) return rms_of_tile<T>(leaf, tile, sums);
  TileSquares squares;
  if (!leaf.shape.factored || leaf.rule.action != Action::update) {
    for (std::int64_t slice = tile.slice; slice < tile.slice + tile.slices; ++slice) {
      loop_detail::sum_squares<T>(leaf, tile, slice, squares);
    }
    sums.gradient_squares = squares.before_clipping.sum();
    return;
  }
  if (ADAFACTOR_COMPILED_ONCE && leaf.makes_factors_early()) {
    if constexpr (ADAFACTOR_COMPILED_ONCE) visit_small_slices<T>(leaf, tile, squares, sums);
  } else if (has_small_slices(leaf)) {
    loop_detail::moments_of_slices<T>(leaf, tile, squares, nullptr);
  } else if (is_narrow(leaf)) {
    loop_detail::narrow_moments<T>(leaf, tile, squares);
  } else {
    for (std::int64_t slice = tile.slice; slice < tile.slice + tile.slices; ++slice) {
      loop_detail::factored_moments<T>(leaf, tile, slice, squares);
    }
  }
  if (is_narrow(leaf) && leaf.rule.clip_value > 0) {
    loop_detail::add_narrow_squares_before_clipping<T>(leaf, tile, squares);
  }
  sums.clipped_squares = squares.clipped.sum();
  // Clipping would hide an Inf: the norm, and with it the verdict, is that of G before it.
  sums.gradient_squares =
      (leaf.rule.clip_value > 0 ? squares.before_clipping.sum() : sums.clipped_squares) + squares.spoilt;
  if (tile.col_block == 0 && !leaf.shape.tiles_hold_slices()) {
    sums.row_moments =
        sum_of(static_cast<const T*>(leaf.at.before.row) + tile.slice * leaf.shape.rows + tile.row, tile.rows);
  }
}

// The last phase on one tile: writes the outputs, the state's full-size arrays and, with the first tile of a block, its
// moments. What else a leaf does than update happens here too: its gradient is added up, its average moves.
template <class T>
void apply_to_tile(const Leaf& leaf, const Tile& tile) {
  const bool updates = leaf.updates();
  if (!updates) loop_detail::carry_state(leaf, tile);
  if (updates && leaf.shape.factored) loop_detail::commit_moments(leaf, tile, leaf.at.row_moment, leaf.at.col_moment);
  if (tile.size() == 0) return;  // a part without elements has no more
  if (leaf.adds()) loop_detail::accumulate_tile<T>(leaf, tile);
  if (!updates && !leaf.averages() && leaf.at.parameter.data == leaf.at.parameter_out.data) return;
  if (updates && is_narrow(leaf) && leaf.is_plain() && leaf.at.parameter.whole && has_whole_output(leaf)) {
    with_narrow_factors<T>(leaf, [&]<class Factors>() { loop_detail::NarrowApply<T, Factors>(leaf, tile)(); });
  } else {
    for (std::int64_t slice = tile.slice; slice < tile.slice + tile.slices; ++slice) {
      if (updates) {
        loop_detail::SliceApply<T>(leaf, tile, slice)();
      } else {
        loop_detail::keep_slice<T>(leaf, tile, slice);
      }
    }
  }
}

// The functions of the phases for T, as the including file's flags compile them.
template <class T>
constexpr Kernels make_kernels() {
  return {moments_of_tile<T>, means_of_tile<T>, factors_of_tile<T>, rms_of_tile<T>, apply_to_tile<T>};
}

// The kernels of both arithmetics, under the name of an instruction set.
constexpr KernelTable make_kernel_table(const char* isa) {
  return {isa, make_kernels<float>(), make_kernels<double>(), loops_compute_as_written};
}

}}  // namespace adafactor::ADAFACTOR_LOOPS

#if ADAFACTOR_DEFINES_LOOPS

#include "adafactor/cpu/backend.hpp"
#include "adafactor/cpu/kernel_check.hpp"

#define ADAFACTOR_STRING(text) #text
#define ADAFACTOR_EXPAND_STRING(text) ADAFACTOR_STRING(text)

namespace adafactor { inline namespace ADAFACTOR_ABI {

ADAFACTOR_FUNCTION const KernelTable& compiled_kernels() {
  static constexpr KernelTable table = make_kernel_table(ADAFACTOR_EXPAND_STRING(ADAFACTOR_ISA_TAG));
  static const KernelTable& checked = checked_kernels(table);
  return checked;
}

ADAFACTOR_FUNCTION const Backend& cpu_backend() {
  // It is never destroyed, since a program may end while a thread of its own is in a step.
  static const Backend& backend = *new CpuBackend(compiled_kernels());
  return backend;
}

}}  // namespace adafactor::ADAFACTOR_ABI
#endif
