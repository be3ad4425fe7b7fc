// The order of tasks: tasks and waves cover the tiles in order, each stage has a turn after what it awaits, and the
// partial sums of waves take turns with one buffer.
#include <algorithm>
#include <cstdint>
#include <set>
#include <utility>
#include <vector>

#include "adafactor/cpu/tasks.hpp"
#include "adafactor/plan.hpp"
#include "support/check.hpp"
#include "support/guarded.hpp"
#include "support/plans.hpp"

namespace {

using adafactor::Config;
using adafactor::DType;
using adafactor::LeafPlan;
using adafactor::Phase;
using adafactor::Plan;

using adafactor::Indices;
using adafactor::Stage;
using adafactor::TaskOrder;
using adafactor::Wave;
using plans::kShapes;
using plans::plan_of;
using plans::Shape;

// The order of a plan's tasks, in memory of its own.
class Order {
 public:
  explicit Order(const Plan& plan)
      : memory_(adafactor::detail::nbytes_of<TaskOrder>(plan.leaves(), plan.tiles(), plan.looks_first())),
        order_(adafactor::detail::make_in<TaskOrder>(memory_.data(), plan.leaves(), plan.tiles(), plan.looks_first())) {
  }
  const TaskOrder& operator*() const { return *order_; }
  bool is_intact() const { return memory_.is_intact(); }

 private:
  guarded::Memory memory_;
  TaskOrder* order_;
};

// Task after task, the tiles of the leaves from the first to the last.
void covers_its_leaves(const Plan& plan, const TaskOrder& order, const Wave& wave) {
  std::int64_t next = 0;
  std::int64_t end = 0;
  if (wave.leaves.first < wave.leaves.last) {
    next = plan.leaves()[static_cast<std::size_t>(wave.leaves.first)].first_tile;
    const LeafPlan& last = plan.leaves()[static_cast<std::size_t>(wave.leaves.last - 1)];
    end = last.first_tile + last.tile_count;
  }
  for (std::int64_t task = wave.tasks.first; task < wave.tasks.last; ++task) {
    const Indices tiles = order.tasks()[static_cast<std::size_t>(task)];
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

void covers_all_leaves(const Plan& plan) {
  Order of_plan(plan);
  const TaskOrder& order = *of_plan;
  std::int64_t next = 0;
  for (const Wave& wave : order.waves()) {
    CHECK_EQ(wave.leaves.first, next);
    CHECK(wave.leaves.last > wave.leaves.first);
    next = wave.leaves.last;
    covers_its_leaves(plan, order, wave);
  }
  CHECK_EQ(next, plan.leaves().size());
}

void waves_and_tasks_cover_all_tiles_once_in_order() {
  for (const bool looks_first : {true, false}) {
    Config config;
    if (!looks_first) config.on_nonfinite = adafactor::OnNonfinite::propagate;
    const Plan plan = plan_of(kShapes, config);
    CHECK_EQ(plan.looks_first(), looks_first);
    covers_all_leaves(plan);
  }
  const Plan empty = plan_of({});
  covers_all_leaves(empty);
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

const Stage& stage_at(const TaskOrder& order, std::int64_t index) {
  return order.stages()[static_cast<std::size_t>(index)];
}

// So a thread that goes through the order from its beginning finds something to do, or somebody who is doing it.
void every_stage_has_one_turn_after_what_it_awaits() {
  for (const bool looks_first : {true, false}) {
    const Plan plan = plan_of_many_waves(looks_first);
    Order of_plan(plan);
    const TaskOrder& order = *of_plan;
    CHECK(order.waves().size() > 20);
    std::set<std::int64_t> seen;
    std::int64_t tasks = 0;
    for (std::int64_t turn = 0; turn < order.stage_count(); ++turn) {
      const std::int64_t index = order.stage_of_turn(turn);
      const Stage& stage = stage_at(order, index);
      for (std::int64_t earlier = stage.awaits.first; earlier < stage.awaits.last; ++earlier) {
        CHECK(seen.contains(earlier));
      }
      CHECK(seen.insert(index).second);
      CHECK_EQ(stage.first_claim + stage.size() <= order.claims(), true);
      tasks += stage.size();
    }
    CHECK_EQ(seen.size(), order.stage_count());
    CHECK_EQ(*seen.begin(), 0);
    CHECK_EQ(*seen.rbegin(), order.stage_count() - 1);
    CHECK_EQ(tasks, order.claims());
  }
}

// The stages that are complete when a stage begins.
void add_what_is_before(const TaskOrder& order, const Stage& stage, std::set<std::int64_t>& before) {
  if (stage.size() == 0) return;  // it is complete at once
  for (std::int64_t earlier = stage.awaits.first; earlier < stage.awaits.last; ++earlier) {
    if (before.insert(earlier).second) add_what_is_before(order, stage_at(order, earlier), before);
  }
}

void nothing_is_written_before_the_verdict() {
  for (const bool looks_first : {true, false}) {
    const Plan plan = plan_of_many_waves(looks_first);
    Order of_plan(plan);
    const TaskOrder& order = *of_plan;
    const auto verdict = static_cast<std::int64_t>(order.stages().size()) - 1;
    for (const Stage& stage : order.stages()) {
      if (stage.phase != Phase::apply || stage.size() == 0) continue;
      std::set<std::int64_t> before;
      add_what_is_before(order, stage, before);
      CHECK_EQ(before.contains(verdict), looks_first);
      for (const Phase phase : {Phase::moments, Phase::means, Phase::factors, Phase::rms}) {
        CHECK(std::ranges::any_of(before, [&](std::int64_t index) {
          const Stage& earlier = stage_at(order, index);
          return earlier.phase == phase && earlier.wave == stage.wave;
        }));
      }
    }
  }
}

// Of a wave without partial sums nothing is added up, and no tile is looked at for it.
void means_are_made_where_partial_sums_are() {
  const Plan plan = plan_of_many_waves(true);
  Order of_plan(plan);
  const TaskOrder& order = *of_plan;
  int with = 0;
  int without = 0;
  for (const Stage& stage : order.stages()) {
    if (stage.phase != Phase::means) continue;
    std::int64_t partials = 0;
    for (std::int64_t i = order.leaves_of(stage).first; i < order.leaves_of(stage).last; ++i) {
      partials += plan.leaves()[static_cast<std::size_t>(i)].partials();
    }
    std::int64_t tiles = 0;
    for (std::int64_t task = stage.tasks.first; task < stage.tasks.last; ++task) {
      const Indices some = order.tasks()[static_cast<std::size_t>(task)];
      tiles += some.last - some.first;
    }
    CHECK_EQ(partials > 0, tiles > 0);
    ++(partials > 0 ? with : without);
  }
  CHECK(with > 0);
  CHECK(without > 0);
}

// Each task of a pass over tiles belongs to one thread, the same in every phase; of a large wave all have some.
void every_task_has_a_home() {
  const Plan plan = plan_of_many_waves(true);
  Order of_plan(plan);
  const TaskOrder& order = *of_plan;
  for (const int threads : {1, 2, 3, 7, 64}) {
    std::vector<std::int64_t> home_of(order.tasks().size(), -1);
    std::set<std::int64_t> homes;
    for (const Stage& stage : order.stages()) {
      if (stage.belongs_to_all()) continue;
      std::int64_t found = 0;
      for (int thread = 0; thread < threads; ++thread) {
        const adafactor::Numbers own = stage.of_thread(thread, threads);
        CHECK(stage.size() < threads || own.last > own.first);
        for (std::int64_t task = own.first; task < own.last; ++task, ++found) {
          CHECK(stage.tasks.first <= task && task < stage.tasks.last);
          std::int64_t& home = home_of[static_cast<std::size_t>(task)];
          CHECK(home == -1 || home == thread);
          home = thread;
          homes.insert(thread);
        }
      }
      CHECK_EQ(found, stage.size());
    }
    CHECK_EQ(homes.size(), threads);
  }
}

// The memory that an order counts is what it takes: all of its stages and tasks, in a block of that size.
void the_memory_suffices() {
  const auto check = [](const Plan& plan) {
    Order of_plan(plan);
    const TaskOrder& order = *of_plan;
    CHECK_EQ(order.stages().size(), order.stage_count());
    adafactor::detail::Pieces pieces;
    const TaskOrder counted(plan.leaves(), plan.tiles(), plan.looks_first(), pieces);
    CHECK_EQ(counted.claims(), order.claims());
    CHECK_EQ(counted.stage_count(), order.stage_count());
    CHECK_EQ(counted.partial_count(), order.partial_count());
    CHECK(of_plan.is_intact());
  };
  for (const bool looks_first : {true, false}) {
    for (const DType dtype : {DType::float32, DType::float64}) check(plan_of_many_waves(looks_first, dtype));
  }
  for (int leaves = 0; leaves < 400; leaves += 7) {
    for (const Shape& shape : {Shape{8, 8}, Shape{300, 500}, Shape{1, 4097}, Shape{600, 5000}, Shape{0, 3}}) {
      check(plan_of(std::vector<Shape>(static_cast<std::size_t>(leaves), shape)));
    }
  }
}

void a_global_norm_looks_first_even_where_nan_goes_through() {
  Config config;
  config.on_nonfinite = adafactor::OnNonfinite::propagate;
  config.global_clipnorm = 1.0;
  CHECK(plan_of({{3, 4}}, config).looks_first());
}

// The numbers of the buffer that a wave's partial sums take, side by side.
Indices partials_of(const Plan& plan, const TaskOrder& order, Indices leaves) {
  Indices all{-1, -1};
  for (std::int64_t i = leaves.first; i < leaves.last; ++i) {
    const LeafPlan& leaf = plan.leaves()[static_cast<std::size_t>(i)];
    if (leaf.partials() == 0) continue;
    const std::int64_t first = order.first_partial(static_cast<std::size_t>(i));
    if (all.first == -1) all = {first, first};
    CHECK_EQ(first, all.last);
    CHECK(leaf.row_partials() <= leaf.partials());
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
      Order of_plan(plan);
      const TaskOrder& order = *of_plan;
      std::int64_t largest = 0;
      for (const LeafPlan& leaf : plan.leaves()) {
        largest = std::max(largest, leaf.layout.size() * adafactor::item_size(dtype));
      }
      CHECK(order.partial_count() * 8 <= std::max<std::int64_t>(largest / 50, 65536));
      std::int64_t shared = 0;
      const auto waves = static_cast<std::int64_t>(order.waves().size());
      for (std::int64_t k = 0; k < waves; ++k) {  // the first stages are those of `moments`, the next those of `means`
        const Stage& stage = stage_at(order, k);
        const Indices mine = partials_of(plan, order, order.leaves_of(stage));
        CHECK(mine.last <= order.partial_count());
        std::set<std::int64_t> before;
        add_what_is_before(order, stage, before);
        for (std::int64_t other = 0; other < k; ++other) {
          const Indices theirs = partials_of(plan, order, order.leaves_of(stage_at(order, other)));
          if (theirs.first >= mine.last || mine.first >= theirs.last) continue;
          CHECK(before.contains(waves + other));
          ++shared;
        }
      }
      CHECK(shared > 0);
    }
  }
}

}  // namespace

int main() {
  waves_and_tasks_cover_all_tiles_once_in_order();
  every_stage_has_one_turn_after_what_it_awaits();
  nothing_is_written_before_the_verdict();
  means_are_made_where_partial_sums_are();
  every_task_has_a_home();
  the_memory_suffices();
  a_global_norm_looks_first_even_where_nan_goes_through();
  partial_sums_fit_their_buffer();
  return check::report();
}
