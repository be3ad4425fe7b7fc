// Phase `moments`: reads g once; per tile the row and column sums of G^2, and from their total the norm and whether all
// of it is finite. A second, small pass adds up the tiles of a leaf, in their order, to the means that `factors` needs.
#pragma once

#include <cstdint>

#include "adafactor/exact_begin.hpp"
#include "adafactor/gradient.hpp"
#include "adafactor/kernels.hpp"
#include "adafactor/leaf.hpp"
#include "adafactor/narrow_moments.hpp"

namespace adafactor::inline ADAFACTOR_LOOPS {

namespace loop_detail {

template <class T>
double sum_squares(const Leaf& leaf, const Tile& tile, std::int64_t slice, double total) {
  const T scale = static_cast<T>(leaf.gradient_scale());
  const Gradient<T> gradient(leaf, slice);
  T buffer[kBlock];
  for (std::int64_t row = tile.row; row < tile.row + tile.rows; ++row) {
    if (gradient.in_place()) {
      with_loops<T>(leaf.gradient.dtype, [&](auto storage) {
        using G = typename decltype(storage)::type;
        total = add_squares(gradient.template at<G>(row, tile.col), scale, tile.cols, total);
      });
      continue;
    }
    for_blocks(tile.cols, [&](std::int64_t first, std::int64_t n) {
      total = add_squares(gradient.unclipped(row, tile.col + first, n, buffer), scale, n, total);
    });
  }
  return total;
}

// A slice's part of a factored tile.
template <class T>
class FactoredMoments {
 public:
  FactoredMoments(const Leaf& leaf, const Tile& tile, std::int64_t slice)
      : leaf_(leaf),
        tile_(tile),
        slice_(slice),
        gradient_(leaf, slice),
        scale_(static_cast<T>(leaf.gradient_scale())) {}

  // total + the squares of the slice's part; writes its row and column sums.
  double operator()(double total) {
    total_ = total;
    for (std::int64_t first = 0; first < tile_.cols; first += kPanel) {
      const std::int64_t n = tile_.cols - first < kPanel ? tile_.cols - first : kPanel;
      for (std::int64_t group = 0; group < tile_.rows; group += kRowGroup) {
        const std::int64_t end = group + kRowGroup < tile_.rows ? group + kRowGroup : tile_.rows;
        for (std::int64_t r = group; r < end; ++r) add_row(r, r == group, first, n);
        add_wide(column_sums_, column_totals_, group == 0, n);
      }
      finish_columns(first, n);
    }
    return total_;
  }

 private:
  void add_row(std::int64_t r, bool begins, std::int64_t first, std::int64_t n) {
    const std::int64_t row = tile_.row + r;
    GradientSquares squares{first == 0 ? 0 : row_sums_[r], total_};
    const auto add = [&](const auto* run, const auto& links, std::int64_t from, std::int64_t count) {
      T* sums = column_sums_ + from;
      if (begins) std::memset(sums, 0, static_cast<std::size_t>(count) * sizeof(T));
      squares = add_squares_by_column(run, links, count, sums, squares);
    };
    if (gradient_.in_place_with_links()) {
      const std::int64_t col = tile_.col + first;
      with_loops<T>(leaf_.gradient.dtype, [&](auto storage) {
        using G = typename decltype(storage)::type;
        const G* g = gradient_.template at<G>(row, col);
        if constexpr (loops_read_links<T>(Storage<G>::dtype)) {
          if (!gradient_.in_place()) return add(g, gradient_.links(row, col), 0, n);
        }
        add(g, ScaledGradient<T>{scale_}, 0, n);
      });
    } else {
      for_blocks(n, [&](std::int64_t from, std::int64_t count) {
        const std::int64_t col = tile_.col + first + from;
        if (leaf_.clip_value > 0) {
          squares.before_clipping =
              add_squares(gradient_.unclipped(row, col, count, buffer_), T{1}, count, squares.before_clipping);
        }
        add(gradient_.run(row, col, count, buffer_), ScaledGradient<T>{scale_}, from, count);
      });
    }
    // Clipping would hide an Inf: the norm, and with it the judgement, is that of G before it.
    if (leaf_.clip_value > 0) total_ = squares.before_clipping;
    const double sum = squares.sum;
    if (first + n < tile_.cols) {
      row_sums_[r] = sum;
    } else {
      finish_row(row, sum);
    }
  }

  void finish_row(std::int64_t row, double sum) {
    if (leaf_.clip_value == 0) total_ += sum;
    if (leaf_.col_blocks == 1) {
      static_cast<T*>(leaf_.row_moment)[slice_ * leaf_.rows + row] =
          static_cast<T>(sum / static_cast<double>(leaf_.cols));
    } else {
      leaf_.row_partial[(slice_ * leaf_.col_blocks + tile_.col_block) * leaf_.rows + row] = sum;
    }
  }

  // The squares of the tile's columns before `end`: the rows' sums are part of the total from the last panel on.
  double squares_before(std::int64_t end) const {
    double squares = total_;
    for (std::int64_t r = 0; end < tile_.cols && r < tile_.rows; ++r) squares += row_sums_[r];
    return squares;
  }

  void finish_columns(std::int64_t first, std::int64_t n) {
    if (!(squares_before(first + n) < kSafeTotal<T>)) total_ += 0 * sum_of(column_totals_, n);
    const std::int64_t col = tile_.col + first;
    if (leaf_.row_blocks == 1) {
      T* means = static_cast<T*>(leaf_.col_moment) + slice_ * leaf_.cols + col;
      store_means(column_totals_, static_cast<double>(leaf_.rows), means, n);
    } else {
      double* partial = leaf_.col_partial + (slice_ * leaf_.row_blocks + tile_.row_block) * leaf_.cols + col;
      std::memcpy(partial, column_totals_, static_cast<std::size_t>(n) * sizeof(double));
    }
  }

  const Leaf& leaf_;
  const Tile& tile_;
  std::int64_t slice_;
  Gradient<T> gradient_;
  T scale_;
  double total_ = 0;
  double row_sums_[kFewRows];
  double column_totals_[kPanel];
  T column_sums_[kPanel];
  T buffer_[kBlock];
};

template <class T>
ADAFACTOR_OWN_FRAME double factored_moments(const Leaf& leaf, const Tile& tile, std::int64_t slice, double total) {
  return FactoredMoments<T>(leaf, tile, slice)(total);
}

// means <- the sum of `parts` vectors, each `stride` after the last, in their order, over `count`.
template <class T>
void reduce_partials(const double* partial, std::int64_t parts, std::int64_t stride, double count, T* means,
                     std::int64_t n) {
  double sums[kBlock];
  for_blocks(n, [&](std::int64_t first, std::int64_t width) {
    for (std::int64_t part = 0; part < parts; ++part) {
      add_wide(partial + part * stride + first, sums, part == 0, width);
    }
    store_means(sums, count, means + first, width);
  });
}

}  // namespace loop_detail

// The first phase on one tile: its sum of squares, and the row and column sums of its part.
template <class T>
void moments_of_tile(const Leaf& leaf, const Tile& tile, TileSums& sums) {
  double total = 0;
  const bool factored = leaf.factored && leaf.action == Action::update;
  if (factored && is_narrow(leaf)) {
    sums.gradient_squares = loop_detail::narrow_moments<T>(leaf, tile);
    return;
  }
  for (std::int64_t slice = tile.slice; slice < tile.slice + tile.slices; ++slice) {
    total = factored ? loop_detail::factored_moments<T>(leaf, tile, slice, total)
                     : loop_detail::sum_squares<T>(leaf, tile, slice, total);
  }
  sums.gradient_squares = total;
}

// Adds up what the tiles of a slice left in parts: rows by the tiles of the first column block, columns by those of the
// first row block.
template <class T>
void means_of_tile(const Leaf& leaf, const Tile& tile) {
  if (!leaf.factored || leaf.action != Action::update) return;
  if (leaf.col_blocks > 1 && tile.col_block == 0) {
    const double* partial = leaf.row_partial + tile.slice * leaf.col_blocks * leaf.rows + tile.row;
    T* means = static_cast<T*>(leaf.row_moment) + tile.slice * leaf.rows + tile.row;
    loop_detail::reduce_partials(partial, leaf.col_blocks, leaf.rows, static_cast<double>(leaf.cols), means, tile.rows);
  }
  if (leaf.row_blocks > 1 && tile.row_block == 0) {
    const double* partial = leaf.col_partial + tile.slice * leaf.row_blocks * leaf.cols + tile.col;
    T* means = static_cast<T*>(leaf.col_moment) + tile.slice * leaf.cols + tile.col;
    loop_detail::reduce_partials(partial, leaf.row_blocks, leaf.cols, static_cast<double>(leaf.rows), means, tile.cols);
  }
}

}  // namespace adafactor::inline ADAFACTOR_LOOPS

#include "adafactor/exact_end.hpp"
