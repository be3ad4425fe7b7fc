// The plan: tiles cover each leaf once and depend on its shape alone, and the pieces of state and scratch lie side by
// side.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "adafactor/host/pages.hpp"
#include "adafactor/plan.hpp"
#include "adafactor/state.hpp"
#include "support/check.hpp"
#include "support/plans.hpp"

namespace {

using adafactor::Config;
using adafactor::DType;
using adafactor::Factored;
using adafactor::LeafPlan;
using adafactor::LeafSpec;
using adafactor::Plan;
using adafactor::Tile;
using plans::kShapes;
using plans::plan_of;
using plans::Shape;

std::vector<Tile> tiles_of(const Plan& plan, const LeafPlan& leaf) {
  const auto first = plan.tiles().begin() + leaf.first_tile;
  return {first, first + leaf.tile_count};
}

std::string text_of(const Shape& shape) { return check::describe(shape); }

void tiles_cover_a_leaf_once() {
  for (const Factored rule : {Factored::last_two, Factored::largest_two, Factored::off}) {
    Config config;
    config.factored = rule;
    const Plan plan = plan_of(kShapes, config);
    for (std::size_t i = 0; i < kShapes.size(); ++i) {
      const LeafPlan& leaf = plan.leaves()[i];
      const adafactor::Layout& layout = leaf.layout;
      std::vector<std::uint8_t> covered(static_cast<std::size_t>(layout.size()));
      for (const Tile& tile : tiles_of(plan, leaf)) {
        CHECK_EQ(tile.leaf, i);
        CHECK(tile.size() > 0);
        CHECK(tile.slices == 1 || (tile.rows == layout.rows && tile.cols == layout.cols));
        for (std::int64_t slice = tile.slice; slice < tile.slice + tile.slices; ++slice) {
          for (std::int64_t row = tile.row; row < tile.row + tile.rows; ++row) {
            const auto start = static_cast<std::size_t>((slice * layout.rows + row) * layout.cols + tile.col);
            for (std::size_t k = 0; k < static_cast<std::size_t>(tile.cols); ++k) ++covered[start + k];
          }
        }
      }
      const bool once = std::ranges::all_of(covered, [](std::uint8_t times) { return times == 1; });
      CHECK_EQ(text_of(kShapes[i]) + (once ? " once" : " not once"), text_of(kShapes[i]) + " once");
    }
  }
}

// What the phases take for granted about the order of a leaf's tiles and the size of their buffers.
void tiles_are_a_grid_in_order() {
  const Plan plan = plan_of(kShapes);
  for (const LeafPlan& leaf : plan.leaves()) {
    const std::vector<Tile> tiles = tiles_of(plan, leaf);
    const bool whole = leaf.row_blocks == 1 && leaf.col_blocks == 1;
    for (std::size_t t = 0; t < tiles.size(); ++t) {
      const Tile& tile = tiles[t];
      if (whole) {
        CHECK_EQ(tile.slice, static_cast<std::int64_t>(t) * tiles[0].slices);
      } else {
        CHECK_EQ((tile.slice * leaf.row_blocks + tile.row_block) * leaf.col_blocks + tile.col_block, t);
      }
      CHECK_EQ(tile.row, tile.row_block * tiles[0].rows);
      CHECK_EQ(tile.col, tile.col_block * tiles[0].cols);
      if (leaf.col_blocks > 1) CHECK_EQ(tiles[0].cols % adafactor::kBlock, 0);
      if (leaf.row_blocks > 1) CHECK_EQ(tiles[0].rows % adafactor::kRowGroup, 0);
      if (tile.cols > adafactor::kPanel) CHECK(tile.rows < adafactor::kFewRows);
    }
  }
}

void tiles_depend_on_the_shape_alone() {
  const Plan all = plan_of(kShapes);
  Config other;
  other.beta_1 = 0.9;
  other.on_nonfinite = adafactor::OnNonfinite::propagate;
  const auto facts = [](const Tile& tile) {
    return std::vector{tile.slice, tile.slices, tile.row,       tile.rows,
                       tile.col,   tile.cols,   tile.row_block, tile.col_block};
  };
  for (std::size_t i = 0; i < kShapes.size(); ++i) {
    const Plan alone = plan_of({kShapes[i]}, other, DType::float64);
    const std::vector<Tile> found = tiles_of(alone, alone.leaves()[0]);
    const std::vector<Tile> expected = tiles_of(all, all.leaves()[i]);
    CHECK(std::ranges::equal(found, expected, {}, facts, facts));
  }
}

struct Piece {
  std::int64_t first;
  std::int64_t nbytes;
};

// Side by side without gaps, from 0 to `total`, each a multiple of its item's size.
void fill_memory(std::vector<Piece> pieces, std::int64_t total) {
  std::ranges::sort(pieces, {}, [](const Piece& piece) { return std::pair(piece.first, piece.nbytes); });
  std::int64_t next = 0;
  for (const Piece& piece : pieces) {
    CHECK_EQ(piece.first, next);
    next += piece.nbytes;
  }
  CHECK_EQ(next, total);
}

void state_arrays_lie_side_by_side() {
  Config config;
  config.beta_1 = 0.9;
  config.momentum_dtype = adafactor::MomentumDType::bfloat16;
  config.use_ema = true;
  config.gradient_accumulation_steps = 4;
  const std::vector<LeafSpec> leaves{{{3, 5}, DType::float32},
                                     {{7}, DType::float64},
                                     {{2, 3, 5}, DType::float64},
                                     {{}, DType::float32},
                                     {{0, 4}, DType::float32}};
  const Plan plan(leaves, {config});
  std::vector<Piece> pieces;
  for (const LeafPlan& leaf : plan.leaves()) {
    for (const adafactor::StateArray& array : leaf.state) {
      if (!array.exists()) continue;
      CHECK_EQ(array.offset % adafactor::item_size(array.dtype), 0);
      pieces.push_back({array.offset, array.nbytes()});
    }
  }
  fill_memory(pieces, plan.state_nbytes());
  // row + col, or full; then average and accumulator; then momentum.
  const std::int64_t elements32 = (3 + 5) + 1 + 4;  // (0, 4) has an empty row and a column of 4
  const std::int64_t elements64 = 7 + 2 * (3 + 5);
  const std::int64_t of_shape32 = 15 + 1;
  const std::int64_t of_shape64 = 7 + 30;
  CHECK_EQ(plan.state_nbytes(),
           4 * elements32 + 8 * elements64 + 2 * (4 * of_shape32 + 8 * of_shape64) + 2 * (of_shape32 + of_shape64));
}

void scratch_of_moments_lies_side_by_side() {
  const std::vector<LeafSpec> leaves{{{3, 5}, DType::float32},       {{7}, DType::float64},
                                     {{3, 16}, DType::float32},      {{2, 3, 5}, DType::float64},
                                     {{40, 5}, DType::float32},      {{1024, 1024}, DType::float32},
                                     {{2, 256, 512}, DType::float64}};
  const Plan plan(leaves, {Config{}});
  std::vector<Piece> pieces;
  for (const LeafPlan& leaf : plan.leaves()) {
    if (!leaf.layout.factored) continue;
    const std::int64_t item = adafactor::item_size(leaf.arithmetic);
    const std::int64_t rows = leaf.layout.slices * leaf.layout.rows * item;
    const std::int64_t cols = leaf.layout.slices * leaf.layout.cols * item;
    CHECK_EQ(leaf.mean_moment % 8, 0);
    if (!leaf.has_small_slices()) pieces.push_back({leaf.mean_moment, 8 * leaf.layout.slices});
    pieces.push_back({leaf.row_moment, rows});
    pieces.push_back({leaf.col_moment, cols});
    const std::int64_t factors = cols + (leaf.moves_factors() ? adafactor::kPageBytes : 0);
    pieces.push_back({leaf.col_factor, factors});
    std::int64_t end = leaf.col_factor + factors;
    if (leaf.has_small_slices()) {
      pieces.push_back({leaf.row_factor, rows});
      end = leaf.row_factor + rows;
    }
    if (leaf.layout.cols < 16) pieces.push_back({end, 16 * item});  // a register may be read past the last factor
  }
  fill_memory(pieces, plan.moment_scratch_nbytes());
}

// Half a page apart, up to a line of the cache, wherever the two lie; and only leaves that need it, and have as much
// in the moments of their rows, cost a page.
void factors_lie_away_from_the_parameter() {
  alignas(adafactor::kLineBytes) std::byte memory[2 * adafactor::kPageBytes];
  for (std::int64_t array = 0; array < adafactor::kPageBytes; array += 52) {
    for (const std::int64_t room : {0, 16, 4080}) {
      const std::int64_t offset = adafactor::bytes_apart(memory + room, memory + array);
      CHECK(offset >= 0 && offset < adafactor::kPageBytes && offset % adafactor::kLineBytes == 0);
      const std::int64_t apart = (array - room - offset + 2 * adafactor::kPageBytes) % adafactor::kPageBytes;
      CHECK(apart >= adafactor::kPageBytes / 2 && apart < adafactor::kPageBytes / 2 + adafactor::kLineBytes);
    }
  }
  const auto moves = [](Shape shape, DType dtype) {
    return plan_of({std::move(shape)}, {}, dtype).leaves()[0].moves_factors();
  };
  CHECK(moves({1024, 1024}, DType::float32));
  CHECK(moves({128, 8, 1024}, DType::float32));
  CHECK(moves({512, 512}, DType::float64));
  CHECK(!moves({1023, 1024}, DType::float32));
  CHECK(!moves({1024, 1000}, DType::float32));
  CHECK(!moves({4096, 2048}, DType::bfloat16));  // its factors take twice its bytes
  CHECK(!moves({1024}, DType::float32));
}

void what_a_plan_refuses() {
  const auto plan = [](Shape shape, DType dtype = DType::float32) {
    return plan_of({{2}, std::move(shape)}, {}, dtype);
  };
  CHECK_THROWS(plan(Shape(65, 1)), adafactor::Error);
  CHECK_THROWS(plan({-1}), adafactor::Error);
  CHECK_THROWS(Plan({}, {}), adafactor::Error);
  CHECK_THROWS(Plan({{{2}, DType::float32, 1}}, {Config{}}), adafactor::Error);
  try {
    plan({std::int64_t{1} << 40, std::int64_t{1} << 40});
    CHECK(false);
  } catch (const adafactor::Error& error) {
    CHECK_EQ(error.leaf(), 1);
  }
  Config clipped;
  clipped.global_clipnorm = 1.0;
  CHECK_THROWS(Plan({}, (std::vector{Config{}, clipped})), adafactor::Error);
}

}  // namespace

int main() {
  tiles_cover_a_leaf_once();
  tiles_are_a_grid_in_order();
  tiles_depend_on_the_shape_alone();
  state_arrays_lie_side_by_side();
  scratch_of_moments_lies_side_by_side();
  factors_lie_away_from_the_parameter();
  what_a_plan_refuses();
  return check::report();
}
