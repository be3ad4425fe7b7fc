// The walk over a tile of one slice that every sum over its elements follows: panel by panel, in groups of sixteen
// rows. A cell is a group's part of a block of 512 columns: its sum is that of its rows' folds, one after another, and
// the tile's total that of its cells.
#pragma once

#include <cstdint>

#include "adafactor/compiler/abi.hpp"
#include "adafactor/order.hpp"
#include "adafactor/step/leaf.hpp"
#include "adafactor/step/totals.hpp"

namespace adafactor { inline namespace ADAFACTOR_LOOPS {

// The sums of one quantity.
class CellSums {
 public:
  // A sum for each block of the group that is being walked.
  double* blocks() { return blocks_; }

  // The group, of so many columns, is complete: its cells become part of the totals.
  template <class... Totals>
  void finish_group(std::int64_t cols, Totals&... totals) {
    for (std::int64_t block = 0; block * kBlock < cols; ++block) {
      (totals.add(blocks_[block]), ...);
      blocks_[block] = 0;
    }
  }

 private:
  double blocks_[kPanel / kBlock] = {};
};

// The total of squares above which some column's sum may have left T although no row's has.
template <class T>
inline constexpr double kSafeTotal = sizeof(T) == 4 ? 1e38 : 1e307;

// The squares of G over a tile.
struct TileSquares {
  Total clipped;          // of the G that moments are made of
  Total before_clipping;  // where it is clipped by value
  double spoilt = 0;      // NaN where the sum of a column is not finite
};

// Calls add_rows(row, count, first, n) for the groups of rows of each panel: `count` of them from `row` on, n columns
// from `first` on. After a group it calls finish_group(n, is_first), after a panel finish_panel(first, n).
template <class Rows, class Group, class Panel>
ADAFACTOR_INLINE void for_groups(const Tile& tile, const Rows& add_rows, const Group& finish_group,
                                 const Panel& finish_panel) {
  for (std::int64_t done = 0; done < tile.cols; done += kPanel) {
    const std::int64_t first = tile.col + done;
    const std::int64_t n = tile.cols - done < kPanel ? tile.cols - done : kPanel;
    for (std::int64_t group = 0; group < tile.rows; group += kRowGroup) {
      const std::int64_t left = tile.rows - group;
      add_rows(tile.row + group, left < kRowGroup ? left : kRowGroup, first, n);
      finish_group(n, group == 0);
    }
    finish_panel(first, n);
  }
}

// What for_groups() does, where panels have no end of their own: it calls add_rows and finish_group(n).
template <class Rows, class Group>
ADAFACTOR_INLINE void for_groups(const Tile& tile, const Rows& add_rows, const Group& finish_group) {
  for_groups(tile, add_rows, [&](std::int64_t n, bool) { finish_group(n); }, [](std::int64_t, std::int64_t) {});
}

}}  // namespace adafactor::ADAFACTOR_LOOPS
