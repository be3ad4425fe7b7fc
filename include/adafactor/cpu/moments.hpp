// Phase `moments`: reads g once; per tile the row and column sums of G^2, and from their total the norm and whether all
// of it is finite. A second, small pass adds up the tiles of a leaf, in their order, to the means that `factors` needs.
#pragma once

#include <cstdint>

#include "adafactor/cpu/mean_moment.hpp"
#include "adafactor/cpu/runs/cells.hpp"
#include "adafactor/cpu/runs/gradient.hpp"
#include "adafactor/cpu/runs/loops.hpp"
#include "adafactor/cpu/short/rows.hpp"
#include "adafactor/step/leaf.hpp"

#include "adafactor/compiler/exact_begin.hpp"

namespace adafactor { inline namespace ADAFACTOR_LOOPS {

namespace loop_detail {

template <class T>
void sum_squares(const Leaf& leaf, const Tile& tile, std::int64_t slice, TileSquares& squares) {
  const T scale = static_cast<T>(leaf.gradient_scale());
  const Gradient<T> gradient(leaf, slice, ahead_of(leaf.at.gradient, leaf, tile));
  CellSums cells;
  for_groups(
      tile,
      [&](std::int64_t row, std::int64_t count, std::int64_t first, std::int64_t n) {
        for (std::int64_t r = row; r < row + count; ++r) {
          for_blocks(n, [&](std::int64_t from, std::int64_t width) {
            add_gradient_squares(gradient, scale, r, first + from, width, cells.blocks() + from / kBlock);
          });
        }
      },
      [&](std::int64_t n) { cells.finish_group(n, squares.before_clipping); });
}

// A slice's part of a factored tile.
template <class T>
class FactoredMoments {
 public:
  FactoredMoments(const Leaf& leaf, const Tile& tile, std::int64_t slice, TileSquares& squares)
      : leaf_(leaf),
        tile_(tile),
        slice_(slice),
        squares_(squares),
        gradient_(leaf, slice, ahead_of(leaf.at.gradient, leaf, tile)),
        scale_(static_cast<T>(leaf.gradient_scale())) {}

  // Adds the squares of the slice's part; writes its row and column sums.
  void operator()() {
    for_groups(
        tile_,
        [&](std::int64_t row, std::int64_t count, std::int64_t first, std::int64_t n) {
          std::memset(column_sums_, 0, static_cast<std::size_t>(n) * sizeof(T));
          add_rows(row, count, first, n);
        },
        [&](std::int64_t n, bool is_first) {
          add_wide(column_sums_, column_totals_, is_first, n);
          finish_cells(n);
        },
        [&](std::int64_t first, std::int64_t n) { finish_columns(first, n); });
    if (leaf_.shape.tiles_hold_slices()) leaf_.at.mean_moment[slice_] = of_slice_.sum();
  }

 private:
  void add_rows(std::int64_t row, std::int64_t count, std::int64_t first, std::int64_t n) {
    const std::int64_t end = row + count;
    if (gradient_.is_bare()) {
      with_loops<T>(leaf_.at.gradient.dtype, [&](auto storage) {
        using G = typename decltype(storage)::type;
        for (; row < end; ++row) {
          const Run<G> g = gradient_.template at<G>(row, first);
          end_row(row, first, n,
                  add_squares_by_column(g, scale_, n, column_sums_, begun_sum(row, first), cells_.blocks()));
        }
      });
    } else {
      for (; row < end; ++row) add_linked_row(row, first, n);
    }
  }

  double begun_sum(std::int64_t row, std::int64_t first) const {
    return first == tile_.col ? 0 : row_sums_[row - tile_.row];
  }

  void end_row(std::int64_t row, std::int64_t first, std::int64_t n, double sum) {
    if (first + n < tile_.col + tile_.cols) {
      row_sums_[row - tile_.row] = sum;
    } else {
      finish_row(row, sum);
    }
  }

  // Adds a row that is read through its links, or through a buffer.
  void add_linked_row(std::int64_t row, std::int64_t first, std::int64_t n) {
    double sum = begun_sum(row, first);
    const auto add = [&](const auto& run, const auto& links, std::int64_t from, std::int64_t count) {
      sum = add_squares_by_column(run, links, count, column_sums_ + from, sum, cells_.blocks() + from / kBlock,
                                  cells_before_clipping_.blocks() + from / kBlock);
    };
    if (gradient_.is_direct()) {
      with_loops<T>(leaf_.at.gradient.dtype, [&](auto storage) {
        using G = typename decltype(storage)::type;
        if constexpr (loops_read_links<T>(Storage<G>::dtype)) {
          add(gradient_.template at<G>(row, first), gradient_.links(row, first), 0, n);
        }
      });
    } else {
      for_blocks(n, [&](std::int64_t from, std::int64_t count) {
        if (leaf_.rule.clip_value > 0) {
          add_squares(gradient_.unclipped(row, first + from, count, buffer_), T{1}, count,
                      cells_before_clipping_.blocks() + from / kBlock);
        }
        const Run<T> g = gradient_.run(row, first + from, count, buffer_);
        sum = add_squares_by_column(g, scale_, count, column_sums_ + from, sum, cells_.blocks() + from / kBlock);
      });
    }
    end_row(row, first, n, sum);
  }

  void finish_row(std::int64_t row, double sum) {
    if (!leaf_.at.row_partial) {
      static_cast<T*>(leaf_.at.row_moment)[slice_ * leaf_.shape.rows + row] =
          static_cast<T>(sum / static_cast<double>(leaf_.shape.cols));
    } else {
      leaf_.at.row_partial[(slice_ * leaf_.shape.col_blocks + tile_.col_block) * leaf_.shape.rows + row] = sum;
    }
  }

  void finish_cells(std::int64_t n) {
    if (leaf_.rule.clip_value > 0) cells_before_clipping_.finish_group(n, squares_.before_clipping);
    if (leaf_.shape.tiles_hold_slices()) {
      cells_.finish_group(n, squares_.clipped, of_slice_);
    } else {
      cells_.finish_group(n, squares_.clipped);
    }
  }

  void finish_columns(std::int64_t first, std::int64_t n) {
    if (!(squares_.clipped.sum() < kSafeTotal<T>)) squares_.spoilt += 0 * sum_of(column_totals_, n);
    if (!leaf_.at.col_partial) {
      T* means = static_cast<T*>(leaf_.at.col_moment) + slice_ * leaf_.shape.cols + first;
      store_means(column_totals_, static_cast<double>(leaf_.shape.rows), means, n);
    } else {
      double* partial =
          leaf_.at.col_partial + (slice_ * leaf_.shape.row_blocks + tile_.row_block) * leaf_.shape.cols + first;
      std::memcpy(partial, column_totals_, static_cast<std::size_t>(n) * sizeof(double));
    }
  }

  const Leaf& leaf_;
  const Tile& tile_;
  std::int64_t slice_;
  TileSquares& squares_;
  Total of_slice_;  // where the tile holds several
  Gradient<T> gradient_;
  T scale_;
  CellSums cells_;
  CellSums cells_before_clipping_;
  double row_sums_[kFewRows];
  double column_totals_[kPanel];
  T column_sums_[kPanel];
  T buffer_[kBlock];
};

template <class T>
ADAFACTOR_OWN_FRAME void factored_moments(const Leaf& leaf, const Tile& tile, std::int64_t slice,
                                          TileSquares& squares) {
  FactoredMoments<T>(leaf, tile, slice, squares)();
}

// Adds up `parts` vectors of n numbers, each `stride` after the last, in their order: finish(sums, first, width) has
// the sums of a block.
template <class Finish>
void add_partials(const double* partial, std::int64_t parts, std::int64_t stride, std::int64_t n,
                  const Finish& finish) {
  double sums[kBlock];
  for_blocks(n, [&](std::int64_t first, std::int64_t width) {
    for (std::int64_t part = 0; part < parts; ++part) {
      add_wide(partial + part * stride + first, sums, part == 0, width);
    }
    finish(sums, first, width);
  });
}

// What one direction of a leaf's tiles left in parts becomes their means; or their sums, where other parts of the leaf
// add to them.
template <class T>
void reduce_partials(const double* partial, std::int64_t parts, std::int64_t stride, double* sums, double count,
                     T* means, std::int64_t n) {
  if (partial == sums) return;
  add_partials(partial, parts, stride, n, [&](const double* total, std::int64_t first, std::int64_t width) {
    if (sums) {
      std::memcpy(sums + first, total, static_cast<std::size_t>(width) * sizeof(double));
    } else {
      store_means(total, count, means + first, width);
    }
  });
}

}  // namespace loop_detail

// Adds up what the tiles of a slice left in parts: rows by the tiles of the first column block, columns by those of the
// first row block, and what M is made of where other parts of the leaf add to it.
template <class T>
void means_of_tile(const Leaf& leaf, const Tile& tile, const TileSums* leaf_sums) {
  if (!leaf.shape.factored || leaf.rule.action != Action::update) return;
  const LeafArrays& at = leaf.at;
  const auto sums_from = [](double* sums, std::int64_t first) { return sums ? sums + first : nullptr; };
  if (at.row_partial && tile.col_block == 0) {
    const std::int64_t first = tile.slice * leaf.shape.rows + tile.row;
    const double* partial = at.row_partial + tile.slice * leaf.shape.col_blocks * leaf.shape.rows + tile.row;
    loop_detail::reduce_partials(partial, leaf.shape.col_blocks, leaf.shape.rows, sums_from(leaf.row_sums(), first),
                                 static_cast<double>(leaf.shape.cols), static_cast<T*>(at.row_moment) + first,
                                 tile.rows);
  }
  if (at.col_partial && tile.row_block == 0) {
    const std::int64_t first = tile.slice * leaf.shape.cols + tile.col;
    const double* partial = at.col_partial + tile.slice * leaf.shape.row_blocks * leaf.shape.cols + tile.col;
    loop_detail::reduce_partials(partial, leaf.shape.row_blocks, leaf.shape.cols, sums_from(leaf.col_sums(), first),
                                 static_cast<double>(leaf.shape.rows), static_cast<T*>(at.col_moment) + first,
                                 tile.cols);
  }
  if (!leaf.shares_slices()) return;
  const Indices slices = slices_begun_in(leaf, tile);
  for (std::int64_t slice = slices.first; slice < slices.last; ++slice) {
    const SliceSums sums = sums_of_slice<T>(
        leaf, leaf_sums, slice, [](std::int64_t count, const auto& number) { return total_of(count, number); });
    at.shared[leaf.shared().old_moments() + slice] = sums.old_moments;
    at.shared[leaf.shared().slice_squares() + slice] = sums.squares;
  }
}

}}  // namespace adafactor::ADAFACTOR_LOOPS

#include "adafactor/compiler/exact_end.hpp"
