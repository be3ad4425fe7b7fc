// Which leaves go through the phases together, in which stages, and into which tasks their tiles are cut.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "adafactor/dtype.hpp"
#include "adafactor/plan/leaf_plan.hpp"
#include "adafactor/plan/tile.hpp"
#include "adafactor/step/phase.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI {

// Consecutive leaves that go through a phase together, and the tasks (pieces of work of about the same size) of all
// their tiles.
struct Wave {
  Indices leaves;
  Indices tasks;
  Indices tiles;
  std::int64_t elements = 0;
  std::int64_t moments = 0;   // of row and col together
  std::int64_t partials = 0;  // partial sums
  bool adds_up = false;       // whether there is something to do in `means`
};

// A half-open range of tasks or of stages, whose numbers have 32 bits: there are many, and each has several.
struct Numbers {
  std::int32_t first = 0;
  std::int32_t last = 0;

  Numbers() = default;
  Numbers(std::int64_t from, std::int64_t to)
      : first(static_cast<std::int32_t>(from)), last(static_cast<std::int32_t>(to)) {}
  explicit Numbers(Indices range) : Numbers(range.first, range.last) {}
};

// One phase of one wave.
struct Stage {
  Phase phase = Phase::verdict;
  std::int32_t wave = 0;  // of the verdict, which is of all leaves, it means nothing
  Numbers tasks;
  Numbers awaits;                // the stages that have to be complete before it begins
  std::int32_t first_claim = 0;  // the place of its first task in Progress, which counts the tasks of all stages

  std::int64_t size() const { return tasks.last - tasks.first; }
  // What is no pass over tiles goes to whoever comes first.
  bool belongs_to_all() const { return phase != Phase::moments && phase != Phase::rms && phase != Phase::apply; }
  // Whether the tasks are taken from the last to the first: `rms` goes back to what `moments` came to last, and `apply`
  // begins where it ended.
  bool goes_backwards() const { return phase == Phase::rms; }
  // The tasks of one thread of a team, unless another one has nothing else to do. They are the same in all phases, so
  // that it finds a tile in its own cache.
  Numbers of_thread(std::int64_t thread, std::int64_t threads) const {
    const auto first_of = [&](std::int64_t number) { return tasks.first + (number * size() + threads - 1) / threads; };
    if (size() >= threads) return {first_of(thread), first_of(thread + 1)};
    // Those of small stages go round.
    const std::int64_t task = tasks.first + (thread + threads - tasks.first % threads) % threads;
    return {task, (std::min)(task + 1, (std::max)(task, std::int64_t{tasks.last}))};
  }
};

namespace detail {

inline constexpr std::int64_t kTaskElements = 16384;
inline constexpr std::int64_t kWaveBytes = 2 << 20;    // what an update reads, of leaves that are smaller than that
inline constexpr std::int64_t kSerialMoments = 16384;  // so many are made in less time than it takes to share them
inline constexpr std::int64_t kPartials = 8192;

// What `rms` and `apply` read of a leaf.
inline std::int64_t bytes_of(const LeafPlan& leaf) {
  const std::int64_t moments = leaf.layout.factored ? 0 : item_size(leaf.arithmetic);
  return leaf.layout.size() * (2 * item_size(leaf.spec.dtype) + moments);
}

// Calls body(wave) for the waves of the leaves, without their tasks. Small leaves share one.
template <class Body>
void for_waves(const std::vector<LeafPlan>& leaves, const Body& body) {
  const auto count = static_cast<std::int64_t>(leaves.size());
  const auto at = [&](std::int64_t i) -> const LeafPlan& { return leaves[static_cast<std::size_t>(i)]; };
  for (std::int64_t first = 0, last = 0; first < count; first = last) {
    Wave wave;
    std::int64_t bytes = 0;
    for (; last < count; ++last) {
      const LeafPlan& leaf = at(last);
      const bool fits = bytes + bytes_of(leaf) <= kWaveBytes;
      if (wave.elements > 0 && leaf.layout.size() > 0 && !fits) break;  // so no wave but the only one is empty
      bytes += bytes_of(leaf);
      wave.partials += leaf.partials();
      wave.adds_up = wave.adds_up || leaf.adds_up();
      wave.elements += leaf.layout.size();
      if (leaf.layout.factored) wave.moments += leaf.layout.slices * (leaf.layout.rows + leaf.layout.cols);
    }
    wave.leaves = {first, last};
    wave.tiles = {at(first).first_tile, at(last - 1).first_tile + at(last - 1).tile_count};
    body(wave);
  }
}

// Calls body(tiles) for the tasks of a wave.
template <class Body>
void for_tasks(const Wave& wave, const std::vector<Tile>& tiles, const Body& body) {
  Indices task{wave.tiles.first, wave.tiles.first};
  std::int64_t work = 0;
  while (task.last < wave.tiles.last) {
    work += tiles[static_cast<std::size_t>(task.last++)].size();
    if (work < kTaskElements && task.last < wave.tiles.last) continue;
    body(task);
    task.first = task.last;
    work = 0;
  }
}

// The rows and columns of a small wave are one task: they take less time than sharing them would.
inline bool is_serial(const Wave& wave) { return wave.moments <= kSerialMoments; }

}  // namespace detail

}}  // namespace adafactor::ADAFACTOR_ABI
