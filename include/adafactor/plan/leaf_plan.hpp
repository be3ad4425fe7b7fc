// What a plan knows of one leaf: what the user said of it, its layout and tiling, and where its pieces of the state and
// of the scratch lie.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "adafactor/compiler/abi.hpp"
#include "adafactor/dtype.hpp"
#include "adafactor/host/pages.hpp"
#include "adafactor/order.hpp"
#include "adafactor/plan/tile.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI {

// The kinds of arrays that a state may hold for a leaf.
enum class StateKind : std::uint8_t { row, col, full, momentum, average, accumulator };
inline constexpr std::array<const char*, 6> kStateKindNames{"row", "col", "full", "momentum", "average", "accumulator"};
inline constexpr std::size_t kStateKinds = kStateKindNames.size();

// One parameter as the user describes it; `knobs` is the index of its row of knobs.
struct LeafSpec {
  std::vector<std::int64_t> shape;
  DType dtype = DType::float32;
  std::size_t knobs = 0;
  // What tells its noise of stochastic rounding from that of others; empty: its index, in decimal digits.
  std::string path = {};

  // Of a parameter that is cut into parts, of which this is one: the shape of the whole, where in it the part begins,
  // and for each axis the groups of parts that cut it, group k as the bit 1 << k. Empty where the leaf is whole.
  std::vector<std::int64_t> global_shape = {};
  std::vector<std::int64_t> offset = {};
  std::vector<std::uint32_t> split = {};

  const std::vector<std::int64_t>& whole_shape() const { return global_shape.empty() ? shape : global_shape; }
};

// A piece of the state's memory, in bytes from its beginning.
struct StateArray {
  std::int64_t offset = -1;  // -1: the leaf has none
  std::int64_t count = 0;
  DType dtype = DType::float32;

  bool exists() const { return offset >= 0; }
  std::int64_t nbytes() const { return count * item_size(dtype); }
};

// `row` moments are means over the column axis, `col` moments means over the row axis; every other axis is a slice
// axis. An unfactored leaf is one row of all its elements in C order.
struct Layout {
  bool factored = false;
  int row_axis = -1;
  int col_axis = -1;
  std::int64_t slices = 1;
  std::int64_t rows = 1;
  std::int64_t cols = 1;

  std::int64_t size() const { return slices * rows * cols; }
};

// Which groups of parts cut a leaf, as bits, by what is cut.
struct Cuts {
  std::uint32_t slices = 0;
  std::uint32_t rows = 0;
  std::uint32_t cols = 0;  // of an unfactored leaf, all its axes

  std::uint32_t any() const { return slices | rows | cols; }
  // Those that share the rows and columns of a slice.
  std::uint32_t inside_slices() const { return rows | cols; }
};

// What a plan knows of one leaf.
struct LeafPlan {
  LeafSpec spec;
  Layout layout;
  Layout whole;  // that of all parts together; the same where the leaf is not cut
  Cuts cuts;
  std::int64_t shared = -1;  // where what its parts add up begins, in doubles; -1: it is whole
  DType arithmetic = DType::float32;
  std::uint64_t noise_key = 0;
  std::int64_t first_element = 0;  // of the whole, in C order
  std::array<StateArray, kStateKinds> state;

  std::int64_t row_blocks = 1;
  std::int64_t col_blocks = 1;
  std::int64_t first_tile = 0;
  std::int64_t tile_count = 0;

  // Bytes from the beginning of the workspace's moments.
  std::int64_t row_moment = 0, col_moment = 0, col_factor = 0, row_factor = 0, mean_moment = 0;

  // What its parts add up: of an unfactored leaf no more than totals.
  SharedNumbers shared_numbers() const {
    return layout.factored ? SharedNumbers{layout.slices, layout.rows, layout.cols} : SharedNumbers{};
  }
  bool is_cut() const { return cuts.any() != 0; }
  // Whether neither rows nor columns fill the lanes, as those of a 3x3 kernel, but the slices do.
  bool has_small_slices() const {
    return layout.factored && whole.rows < kLanes && whole.cols < kLanes && whole.slices >= kLanes &&
           cuts.inside_slices() == 0;
  }

  // Numbers that the tiles of a slice leave for each other, where rows or columns are cut.
  std::int64_t row_partials() const {
    return layout.factored && col_blocks > 1 ? layout.slices * col_blocks * layout.rows : 0;
  }
  std::int64_t col_partials() const {
    return layout.factored && row_blocks > 1 ? layout.slices * row_blocks * layout.cols : 0;
  }
  std::int64_t partials() const { return row_partials() + col_partials(); }
  // Whether something is to be added up after `moments`.
  bool adds_up() const { return partials() > 0 || (layout.factored && cuts.inside_slices() != 0); }
  // Whether all rows of the parameter begin at the same place of a page, as those of its factors do, and a page is no
  // more than the moments of its rows, so that scratch stays within twice the moments.
  bool moves_factors() const {
    const std::int64_t item = item_size(arithmetic);
    return layout.factored && spec.dtype == arithmetic && layout.cols * item % kPageBytes == 0 &&
           layout.slices * layout.rows * item >= kPageBytes;
  }
};

}}  // namespace adafactor::ADAFACTOR_ABI
