// The plan of a tree of leaves: layouts, tiles, waves, where each piece of state and of scratch lies, and the knobs.
// Immutable; all copies of a state share it.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "adafactor/config.hpp"
#include "adafactor/dtype.hpp"
#include "adafactor/layout.hpp"
#include "adafactor/leaf.hpp"
#include "adafactor/noise_key.hpp"
#include "adafactor/phases/moments.hpp"

namespace adafactor::inline ADAFACTOR_ABI {

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
};

// A piece of the state's memory, in bytes from its beginning.
struct StateArray {
  std::int64_t offset = -1;  // -1: the leaf has none
  std::int64_t count = 0;
  DType dtype = DType::float32;

  bool exists() const { return offset >= 0; }
  std::int64_t nbytes() const { return count * item_size(dtype); }
};

// What a plan knows of one leaf.
struct LeafPlan {
  LeafSpec spec;
  Layout layout;
  DType arithmetic = DType::float32;
  std::uint64_t noise_key = 0;
  std::array<StateArray, kStateKinds> state;

  std::int64_t row_blocks = 1;
  std::int64_t col_blocks = 1;
  std::int64_t first_tile = 0;
  std::int64_t tile_count = 0;

  // Bytes from the beginning of the workspace's moments, and numbers from the beginning of its partial sums.
  std::int64_t row_moment = 0, col_moment = 0, col_factor = 0, row_factor = 0;
  std::int64_t row_partial = 0, col_partial = 0;

  std::int64_t partials() const {
    const std::int64_t rows = col_blocks > 1 ? layout.slices * col_blocks * layout.rows : 0;
    const std::int64_t cols = row_blocks > 1 ? layout.slices * row_blocks * layout.cols : 0;
    return layout.factored ? rows + cols : 0;
  }
};

// A half-open range of indices.
struct Span {
  std::int64_t first = 0;
  std::int64_t last = 0;
};

// Leaves that go through a phase together, the tasks (pieces of work of about the same size) of all their tiles, and
// how much work that is.
struct Wave {
  Span leaves;
  Span tasks;
  std::int64_t elements = 0;
  std::int64_t moments = 0;  // of row and col together
};

// Made once for the shapes, dtypes and knobs of all leaves, then asked for sizes in bytes and handed to a State. A
// leaf has at most kMaxRank axes and kMostElements elements.
class Plan {
 public:
  // Throws Error where a shape or a row of knobs is not allowed; its leaf is the index in `leaves`.
  Plan(std::vector<LeafSpec> leaves, std::vector<Config> knobs) : knobs_(std::move(knobs)) {
    for (const Config& config : knobs_) validate(config);
    require_one_call();
    leaves_.reserve(leaves.size());
    for (LeafSpec& spec : leaves) add_leaf(std::move(spec));
    make_tiles();
    place_state();
    place_scratch();
    make_waves();
  }

  const std::vector<LeafPlan>& leaves() const { return leaves_; }
  const std::vector<Config>& knobs() const { return knobs_; }
  const Config& knobs_of(const LeafPlan& leaf) const { return knobs_[leaf.spec.knobs]; }
  // The knobs that concern the whole call, the same in every row.
  const Config& call() const { return knobs_.front(); }

  const std::vector<Tile>& tiles() const { return tiles_; }
  // A task is a range of tiles.
  const std::vector<Span>& tasks() const { return tasks_; }
  const std::vector<Wave>& moment_waves() const { return moment_waves_; }
  const std::vector<Wave>& waves() const { return waves_; }
  const Wave& everything() const { return everything_; }

  // Whether a step decides to go on after it has seen every gradient; otherwise each wave goes through at once.
  bool looks_first() const {
    return call().on_nonfinite != OnNonfinite::propagate || call().global_clipnorm.has_value();
  }

  std::int64_t state_nbytes() const { return state_nbytes_; }
  std::int64_t moment_scratch_nbytes() const { return moment_scratch_nbytes_; }
  std::int64_t partial_count() const { return partial_count_; }
  std::int64_t axis_count() const { return axis_count_; }

 private:
  static constexpr std::int64_t kTileElements = 131072;
  static constexpr std::int64_t kTileRows = 256;  // keeps column partials below 1/64 of a leaf of 16 bits
  static constexpr std::int64_t kTaskElements = 16384;
  static constexpr std::int64_t kWaveBytes = 8 << 20;  // gradient and parameter, to stay in the cache between phases
  static constexpr std::int64_t kPartialBytes = 64 << 10;

  void require_one_call() {
    if (knobs_.empty()) throw Error({.expected = "at least one row of knobs", .found = "none"});
    const Config& first = knobs_.front();
    const auto refuse = [](bool differs, const char* knob) {
      if (differs) throw Error({.knob = knob, .expected = "one value for the whole call", .found = "several"});
    };
    for (const Config& row : knobs_) {
      refuse(row.global_clipnorm != first.global_clipnorm, "global_clipnorm");
      refuse(row.gradient_accumulation_steps != first.gradient_accumulation_steps, "gradient_accumulation_steps");
      refuse(row.loss_scale_factor != first.loss_scale_factor, "loss_scale_factor");
      refuse(row.on_nonfinite != first.on_nonfinite, "on_nonfinite");
      refuse(row.use_ema != first.use_ema, "use_ema");
      refuse(row.ema_momentum != first.ema_momentum, "ema_momentum");
      refuse(row.ema_overwrite_frequency != first.ema_overwrite_frequency, "ema_overwrite_frequency");
      refuse(row.ema_on != first.ema_on, "ema_on");
      refuse(row.seed != first.seed, "seed");
    }
  }

  void add_leaf(LeafSpec spec) {
    const auto index = static_cast<std::int64_t>(leaves_.size());
    if (spec.knobs >= knobs_.size()) throw Error({.leaf = index, .expected = "the index of a row of knobs"});
    if (spec.shape.size() > kMaxRank) {
      throw Error({.leaf = index,
                   .expected = "at most " + std::to_string(kMaxRank) + " axes",
                   .found = std::to_string(spec.shape.size()) + " axes"});
    }
    try {
      checked_size(spec.shape);
    } catch (const Error& error) {
      throw Error({.leaf = index, .expected = error.expected(), .found = error.found()});
    }
    LeafPlan leaf;
    leaf.layout = make_layout(spec.shape, knobs_[spec.knobs]);
    leaf.arithmetic = arithmetic_of(spec.dtype);
    if (spec.path.empty()) spec.path = std::to_string(index);
    leaf.noise_key = noise_key(spec.path, static_cast<std::uint64_t>(knobs_[spec.knobs].seed));
    leaf.spec = std::move(spec);
    axis_count_ += 4 * std::max<std::int64_t>(static_cast<std::int64_t>(leaf.spec.shape.size()), 1);
    leaves_.push_back(std::move(leaf));
  }

  static std::int64_t ceil_of(std::int64_t n, std::int64_t unit) { return (n + unit - 1) / unit; }

  // Cuts [0, n) into `count` pieces of almost the same length, a multiple of `unit` each but the last.
  static std::int64_t piece(std::int64_t n, std::int64_t count, std::int64_t unit) {
    return ceil_of(ceil_of(n, count), unit) * unit;
  }

  // How many rows and columns a tile of a leaf has: whole rows up to kPanel columns, at least kTileRows of them where
  // there are as many, so that memory is walked in long stretches and column partials stay few.
  static std::pair<std::int64_t, std::int64_t> tile_shape(const Layout& layout) {
    const std::int64_t widest =
        std::max(kPanel, kTileElements / std::max<std::int64_t>(layout.rows, 1) / kBlock * kBlock);
    const std::int64_t col_blocks = ceil_of(layout.cols, widest);
    const std::int64_t cols = col_blocks == 1 ? layout.cols : piece(layout.cols, col_blocks, kBlock);
    const std::int64_t fewest = std::max(kTileRows, kTileElements / cols);
    const std::int64_t row_blocks = std::max<std::int64_t>(layout.rows / fewest, 1);
    return {piece(layout.rows, row_blocks, 1), cols};
  }

  // Several slices where they are small, else a part of one.
  static Tile first_tile(const Layout& layout) {
    const auto [rows, cols] = tile_shape(layout);
    const bool whole = rows == layout.rows && cols == layout.cols;
    const std::int64_t slices = whole ? std::clamp<std::int64_t>(kTileElements / (rows * cols), 1, layout.slices) : 1;
    return {.slices = slices, .rows = rows, .cols = cols};
  }

  void make_tiles() {
    std::int64_t count = 0;
    for (LeafPlan& leaf : leaves_) {
      leaf.first_tile = count;
      if (leaf.layout.size() == 0) continue;
      const Tile tile = first_tile(leaf.layout);
      leaf.row_blocks = ceil_of(leaf.layout.rows, tile.rows);
      leaf.col_blocks = ceil_of(leaf.layout.cols, tile.cols);
      leaf.tile_count = ceil_of(leaf.layout.slices, tile.slices) * leaf.row_blocks * leaf.col_blocks;
      count += leaf.tile_count;
    }
    // At once, so that a shape that is too large for the memory fails at once.
    tiles_.reserve(static_cast<std::size_t>(count));
    for (std::size_t i = 0; i < leaves_.size(); ++i) {
      if (leaves_[i].tile_count > 0) add_tiles(leaves_[i], static_cast<std::int64_t>(i));
    }
  }

  void add_tiles(const LeafPlan& leaf, std::int64_t index) {
    const Layout& layout = leaf.layout;
    const Tile tile = first_tile(layout);
    for (std::int64_t slice = 0; slice < layout.slices; slice += tile.slices) {
      for (std::int64_t r = 0; r < leaf.row_blocks; ++r) {
        for (std::int64_t c = 0; c < leaf.col_blocks; ++c) {
          const std::int64_t row = r * tile.rows;
          const std::int64_t col = c * tile.cols;
          tiles_.push_back({index, slice, std::min(tile.slices, layout.slices - slice), row,
                            std::min(tile.rows, layout.rows - row), col, std::min(tile.cols, layout.cols - col), r, c});
        }
      }
    }
  }

  // The arrays of the state lie one after another without gaps, those with the largest elements first.
  void place_state() {
    for (LeafPlan& leaf : leaves_) {
      const Config& config = knobs_of(leaf);
      const Layout& layout = leaf.layout;
      const auto add = [&](StateKind kind, bool wanted, std::int64_t count, DType dtype) {
        if (wanted) leaf.state[static_cast<std::size_t>(kind)] = {0, count, dtype};
      };
      const DType arithmetic = leaf.arithmetic;
      add(StateKind::row, layout.factored, layout.slices * layout.rows, arithmetic);
      add(StateKind::col, layout.factored, layout.slices * layout.cols, arithmetic);
      add(StateKind::full, !layout.factored, layout.size(), arithmetic);
      const bool small = config.momentum_dtype == MomentumDType::bfloat16;
      add(StateKind::momentum, config.beta_1.has_value(), layout.size(), small ? DType::bfloat16 : arithmetic);
      add(StateKind::average, config.use_ema, layout.size(), arithmetic);
      add(StateKind::accumulator, config.gradient_accumulation_steps.has_value(), layout.size(), arithmetic);
    }
    for (const DType dtype : {DType::float64, DType::float32, DType::bfloat16}) {
      for (LeafPlan& leaf : leaves_) {
        for (StateArray& array : leaf.state) {
          if (!array.exists() || array.dtype != dtype) continue;
          array.offset = state_nbytes_;
          state_nbytes_ += array.nbytes();
        }
      }
    }
  }

  void place_scratch() {
    for (const DType arithmetic : {DType::float64, DType::float32}) {
      for (LeafPlan& leaf : leaves_) {
        if (leaf.arithmetic != arithmetic || !leaf.layout.factored) continue;
        const auto place = [&](std::int64_t count) {
          return std::exchange(moment_scratch_nbytes_, moment_scratch_nbytes_ + count * item_size(arithmetic));
        };
        leaf.row_moment = place(leaf.layout.slices * leaf.layout.rows);
        leaf.col_moment = place(leaf.layout.slices * leaf.layout.cols);
        leaf.col_factor = place(leaf.layout.slices * leaf.layout.cols);
        if (leaf.layout.has_small_slices()) leaf.row_factor = place(leaf.layout.slices * leaf.layout.rows);
      }
    }
    // The last factors are read sixteen at a time, too.
    if (moment_scratch_nbytes_ > 0) moment_scratch_nbytes_ += kLanes * item_size(DType::float64);
  }

  Wave make_wave(Span leaves) {
    Wave wave{leaves, {static_cast<std::int64_t>(tasks_.size()), 0}};
    std::int64_t work = kTaskElements;
    for (std::int64_t i = leaves.first; i < leaves.last; ++i) {
      const LeafPlan& leaf = leaves_[static_cast<std::size_t>(i)];
      for (std::int64_t t = leaf.first_tile; t < leaf.first_tile + leaf.tile_count; ++t) {
        if (work >= kTaskElements) {
          tasks_.push_back({t, t});
          work = 0;
        }
        tasks_.back().last = t + 1;
        work += tiles_[static_cast<std::size_t>(t)].size();
      }
      wave.elements += leaf.layout.size();
      if (leaf.layout.factored) wave.moments += leaf.layout.slices * (leaf.layout.rows + leaf.layout.cols);
    }
    wave.tasks.last = static_cast<std::int64_t>(tasks_.size());
    return wave;
  }

  // Consecutive leaves, as many as a limit on some cost allows, at least one.
  template <class Cost, class Close>
  void group_leaves(const Cost& cost, const Close& close) {
    const auto count = static_cast<std::int64_t>(leaves_.size());
    Span leaves;
    for (; leaves.first < count; leaves.first = leaves.last) {
      leaves.last = leaves.first + 1;
      auto total = cost(leaves_[static_cast<std::size_t>(leaves.first)]);
      for (; leaves.last < count; ++leaves.last) {
        const auto next = total + cost(leaves_[static_cast<std::size_t>(leaves.last)]);
        if (next > 1) break;
        total = next;
      }
      close(leaves);
    }
  }

  // `moments` runs over as many leaves at once as the buffer of partial sums holds; `rms` and `apply` over as many as
  // the cache holds. A step that does not look first takes both limits for one wave.
  void make_waves() {
    std::int64_t most = kPartialBytes / 8;
    for (const LeafPlan& leaf : leaves_) most = std::max(most, leaf.partials());
    const auto of_partials = [&](const LeafPlan& leaf) {
      return static_cast<double>(leaf.partials()) / static_cast<double>(most);
    };
    const auto of_cache = [](const LeafPlan& leaf) {
      return static_cast<double>(2 * leaf.layout.size() * item_size(leaf.spec.dtype)) / static_cast<double>(kWaveBytes);
    };
    everything_ = make_wave({0, static_cast<std::int64_t>(leaves_.size())});
    if (looks_first()) {
      group_leaves(of_partials, [&](Span leaves) {
        place_partials(leaves);
        moment_waves_.push_back(make_wave(leaves));
      });
      group_leaves(of_cache, [&](Span leaves) { waves_.push_back(make_wave(leaves)); });
    } else {
      const auto of_both = [&](const LeafPlan& leaf) { return std::max(of_partials(leaf), of_cache(leaf)); };
      group_leaves(of_both, [&](Span leaves) {
        place_partials(leaves);
        waves_.push_back(make_wave(leaves));
      });
    }
  }

  // The waves take turns with one buffer.
  void place_partials(Span leaves) {
    std::int64_t next = 0;
    for (std::int64_t i = leaves.first; i < leaves.last; ++i) {
      LeafPlan& leaf = leaves_[static_cast<std::size_t>(i)];
      leaf.row_partial = next;
      leaf.col_partial = next + (leaf.col_blocks > 1 ? leaf.layout.slices * leaf.col_blocks * leaf.layout.rows : 0);
      next += leaf.partials();
    }
    partial_count_ = std::max(partial_count_, next);
  }

  std::vector<Config> knobs_;
  std::vector<LeafPlan> leaves_;
  std::vector<Tile> tiles_;
  std::vector<Span> tasks_;
  std::vector<Wave> moment_waves_;
  std::vector<Wave> waves_;
  Wave everything_;
  std::int64_t state_nbytes_ = 0;
  std::int64_t moment_scratch_nbytes_ = 0;
  std::int64_t partial_count_ = 0;
  std::int64_t axis_count_ = 0;
};

}  // namespace adafactor::inline ADAFACTOR_ABI
