// The plan: tiles cover each leaf once and depend on its shape alone, tasks and waves cover the tiles in order, the
// schedule deals out each task once and after what it awaits, and the pieces of state and scratch lie side by side.
#include <algorithm>
#include <cstdint>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "adafactor/plan.hpp"
#include "adafactor/state.hpp"
#include "check.hpp"

namespace {

using adafactor::Config;
using adafactor::DType;
using adafactor::Factored;
using adafactor::LeafPlan;
using adafactor::LeafSpec;
using adafactor::Phase;
using adafactor::Plan;
using adafactor::Schedule;
using adafactor::Span;
using adafactor::Stage;
using adafactor::Tile;
using adafactor::Wave;
using Shape = std::vector<std::int64_t>;

const std::vector<Shape> kShapes{
    {},          {1},         {5},          {0, 4},        {7, 3},         {1, 300000},    {300000, 1}, {40, 9000},
    {600, 5000}, {3600, 512}, {511, 513},   {512, 512},    {255, 4097},    {256, 4096},    {8, 200000}, {131072, 3},
    {9, 1541},   {300, 3, 3}, {20, 600, 7}, {2, 700, 700}, {3, 300, 5000}, {24, 18, 3, 3}, {300000},    {5, 1, 1, 200}};

Plan plan_of(const std::vector<Shape>& shapes, const Config& config = {}, DType dtype = DType::float32) {
  std::vector<LeafSpec> leaves;
  for (const Shape& shape : shapes) leaves.push_back({shape, dtype});
  return Plan(leaves, {config});
}

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

// Task after task, the tiles of the leaves from the first to the last.
void covers_its_leaves(const Plan& plan, const Wave& wave) {
  std::int64_t next = 0;
  std::int64_t end = 0;
  if (wave.leaves.first < wave.leaves.last) {
    next = plan.leaves()[static_cast<std::size_t>(wave.leaves.first)].first_tile;
    const LeafPlan& last = plan.leaves()[static_cast<std::size_t>(wave.leaves.last - 1)];
    end = last.first_tile + last.tile_count;
  }
  for (std::int64_t task = wave.tasks.first; task < wave.tasks.last; ++task) {
    const Span tiles = plan.schedule().tasks()[static_cast<std::size_t>(task)];
    CHECK_EQ(tiles.first, next);
    CHECK(tiles.last > tiles.first);
    next = tiles.last;
  }
  CHECK_EQ(next, end);
  std::int64_t elements = 0;
  std::int64_t moments = 0;
  for (std::int64_t i = wave.leaves.first; i < wave.leaves.last; ++i) {
    const LeafPlan& leaf = plan.leaves()[static_cast<std::size_t>(i)];
    elements += leaf.layout.size();
    for (const adafactor::StateKind kind : {adafactor::StateKind::row, adafactor::StateKind::col}) {
      moments += leaf.state[static_cast<std::size_t>(kind)].count;
    }
  }
  CHECK_EQ(wave.elements, elements);
  CHECK_EQ(wave.moments, moments);
}

void covers_all_leaves(const Plan& plan, const std::vector<Wave>& waves) {
  std::int64_t next = 0;
  for (const Wave& wave : waves) {
    CHECK_EQ(wave.leaves.first, next);
    CHECK(wave.leaves.last > wave.leaves.first);
    next = wave.leaves.last;
    covers_its_leaves(plan, wave);
  }
  CHECK_EQ(next, plan.leaves().size());
}

void waves_and_tasks_cover_all_tiles_once_in_order() {
  for (const bool looks_first : {true, false}) {
    Config config;
    if (!looks_first) config.on_nonfinite = adafactor::OnNonfinite::propagate;
    const Plan plan = plan_of(kShapes, config);
    CHECK_EQ(plan.looks_first(), looks_first);
    covers_all_leaves(plan, plan.schedule().waves());
    covers_all_leaves(plan, {plan.schedule().everything()});
  }
  const Plan empty = plan_of({});
  covers_all_leaves(empty, empty.schedule().waves());
  CHECK_EQ(empty.state_nbytes(), 0);
}

// Small leaves together, large ones alone, and several of each next to each other.
std::vector<Shape> shapes_of_many_waves() {
  std::vector<Shape> shapes = kShapes;
  for (int i = 0; i < 9; ++i) shapes.push_back({512, 512});
  for (int i = 0; i < 3; ++i) shapes.push_back({2048, 1024});
  for (int i = 0; i < 100; ++i) shapes.push_back({64, 64});
  for (int i = 0; i < 3; ++i) shapes.push_back({1, 0});
  for (int i = 0; i < 5; ++i) shapes.push_back({1 << 18});
  shapes.push_back({20000, 9});
  for (const Shape& shape : {Shape{1024, 1024}, Shape{1024, 1024}, Shape{0}, Shape{200000}, Shape{1024, 1024}}) {
    shapes.push_back(shape);
  }
  return shapes;
}

Plan plan_of_many_waves(bool looks_first, DType dtype = DType::float32) {
  Config config;
  if (!looks_first) config.on_nonfinite = adafactor::OnNonfinite::propagate;
  return plan_of(shapes_of_many_waves(), config, dtype);
}

const Stage& stage_at(const Schedule& schedule, std::int64_t index) {
  return schedule.stages()[static_cast<std::size_t>(index)];
}

// So a thread that waits is waiting for somebody who works.
void every_task_is_dealt_out_once_and_after_what_it_awaits() {
  for (const bool looks_first : {true, false}) {
    const Plan plan = plan_of_many_waves(looks_first);
    const Schedule& schedule = plan.schedule();
    CHECK(schedule.waves().size() > 20);
    std::vector<std::int64_t> left;
    for (const Stage& stage : schedule.stages()) left.push_back(stage.size());
    std::set<std::pair<std::int32_t, std::int32_t>> seen;
    for (const adafactor::Item& item : schedule.items()) {
      CHECK(seen.insert({item.stage, item.task}).second);
      const Stage& stage = stage_at(schedule, item.stage);
      CHECK(stage.tasks.first <= item.task && item.task < stage.tasks.last);
      for (std::int64_t earlier = stage.awaits.first; earlier < stage.awaits.last; ++earlier) {
        CHECK_EQ(left[static_cast<std::size_t>(earlier)], 0);
      }
      --left[static_cast<std::size_t>(item.stage)];
    }
    CHECK(std::ranges::all_of(left, [](std::int64_t tasks) { return tasks == 0; }));
    CHECK_EQ(schedule.claims(), schedule.items().size());
  }
}

// The stages that are complete when a stage begins.
void add_what_is_before(const Schedule& schedule, const Stage& stage, std::set<std::int64_t>& before) {
  if (stage.size() == 0) return;  // it is complete at once
  for (std::int64_t earlier = stage.awaits.first; earlier < stage.awaits.last; ++earlier) {
    if (before.insert(earlier).second) add_what_is_before(schedule, stage_at(schedule, earlier), before);
  }
}

void nothing_is_written_before_everything_was_judged() {
  for (const bool looks_first : {true, false}) {
    const Plan plan = plan_of_many_waves(looks_first);
    const Schedule& schedule = plan.schedule();
    const auto judge = static_cast<std::int64_t>(schedule.stages().size()) - 1;
    for (const Stage& stage : schedule.stages()) {
      if (stage.phase != Phase::apply || stage.size() == 0) continue;
      std::set<std::int64_t> before;
      add_what_is_before(schedule, stage, before);
      CHECK_EQ(before.contains(judge), looks_first);
      for (const Phase phase : {Phase::moments, Phase::means, Phase::factors, Phase::rms}) {
        CHECK(std::ranges::any_of(before, [&](std::int64_t index) {
          const Stage& earlier = stage_at(schedule, index);
          return earlier.phase == phase && earlier.leaves.first == stage.leaves.first;
        }));
      }
    }
  }
}

// Of as many threads as there may be; a task of a tile has the same home in every phase.
void every_task_has_a_home() {
  const Plan plan = plan_of_many_waves(true);
  for (const std::int64_t threads : {1, 2, 3, 7, 64}) {
    std::vector<std::int64_t> home_of(plan.schedule().tasks().size(), -1);
    std::set<std::int64_t> homes;
    for (const Stage& stage : plan.schedule().stages()) {
      if (stage.belongs_to_all()) continue;
      for (std::int64_t task = stage.tasks.first; task < stage.tasks.last; ++task) {
        std::int64_t& home = home_of[static_cast<std::size_t>(task)];
        CHECK(home == -1 || home == stage.home(task, threads));
        home = stage.home(task, threads);
        homes.insert(home);
      }
    }
    CHECK_EQ(homes.size(), threads);
    CHECK_EQ(*homes.rbegin(), threads - 1);
  }
}

void a_global_norm_looks_first_even_where_nan_goes_through() {
  Config config;
  config.on_nonfinite = adafactor::OnNonfinite::propagate;
  config.global_clipnorm = 1.0;
  CHECK(plan_of({{3, 4}}, config).looks_first());
}

// The numbers of the buffer that a wave's partial sums take, side by side.
Span partials_of(const Plan& plan, Span leaves) {
  Span all{-1, -1};
  for (std::int64_t i = leaves.first; i < leaves.last; ++i) {
    const LeafPlan& leaf = plan.leaves()[static_cast<std::size_t>(i)];
    if (leaf.partials() == 0) continue;
    if (all.first == -1) all = {leaf.row_partial, leaf.row_partial};
    CHECK_EQ(leaf.row_partial, all.last);
    CHECK(leaf.col_partial >= leaf.row_partial);
    all.last += leaf.partials();
  }
  return all;
}

// The partial sums of waves take turns with one buffer of 2 % of the largest leaf, or 64 KiB: who writes over those of
// another wave has waited until they were added up.
void partial_sums_fit_their_buffer() {
  for (const DType dtype : {DType::float32, DType::float64}) {
    for (const bool looks_first : {true, false}) {
      const Plan plan = plan_of_many_waves(looks_first, dtype);
      const Schedule& schedule = plan.schedule();
      std::int64_t largest = 0;
      for (const LeafPlan& leaf : plan.leaves()) {
        largest = std::max(largest, leaf.layout.size() * adafactor::item_size(dtype));
      }
      CHECK(schedule.partial_count() * 8 <= std::max<std::int64_t>(largest / 50, 65536));
      std::int64_t shared = 0;
      const auto waves = static_cast<std::int64_t>(schedule.waves().size());
      for (std::int64_t k = 0; k < waves; ++k) {  // the first stages are those of `moments`, the next those of `means`
        const Stage& stage = stage_at(schedule, k);
        const Span mine = partials_of(plan, stage.leaves);
        CHECK(mine.last <= schedule.partial_count());
        std::set<std::int64_t> before;
        add_what_is_before(schedule, stage, before);
        for (std::int64_t other = 0; other < k; ++other) {
          const Span theirs = partials_of(plan, stage_at(schedule, other).leaves);
          if (theirs.first >= mine.last || mine.first >= theirs.last) continue;
          CHECK(before.contains(waves + other));
          ++shared;
        }
      }
      CHECK(shared > 0);
    }
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
  const std::vector<LeafSpec> leaves{{{3, 5}, DType::float32},
                                     {{7}, DType::float64},
                                     {{3, 16}, DType::float32},
                                     {{2, 3, 5}, DType::float64},
                                     {{40, 5}, DType::float32}};
  const Plan plan(leaves, {Config{}});
  std::vector<Piece> pieces;
  for (const LeafPlan& leaf : plan.leaves()) {
    if (!leaf.layout.factored) continue;
    const std::int64_t item = adafactor::item_size(leaf.arithmetic);
    const std::int64_t rows = leaf.layout.slices * leaf.layout.rows * item;
    const std::int64_t cols = leaf.layout.slices * leaf.layout.cols * item;
    pieces.push_back({leaf.row_moment, rows});
    for (const std::int64_t first : {leaf.col_moment, leaf.col_factor}) pieces.push_back({first, cols});
    std::int64_t end = leaf.col_factor + cols;
    if (leaf.layout.has_small_slices()) {
      pieces.push_back({leaf.row_factor, rows});
      end = leaf.row_factor + rows;
    }
    if (leaf.layout.cols < 16) pieces.push_back({end, 16 * item});  // a register may be read past the last factor
  }
  fill_memory(pieces, plan.moment_scratch_nbytes());
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
  waves_and_tasks_cover_all_tiles_once_in_order();
  every_task_is_dealt_out_once_and_after_what_it_awaits();
  nothing_is_written_before_everything_was_judged();
  every_task_has_a_home();
  a_global_norm_looks_first_even_where_nan_goes_through();
  partial_sums_fit_their_buffer();
  state_arrays_lie_side_by_side();
  scratch_of_moments_lies_side_by_side();
  what_a_plan_refuses();
  return check::report();
}
