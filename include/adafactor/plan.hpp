// The plan of a tree of leaves: layouts, tiles, where each piece of state and of scratch lies, and the knobs.
// Immutable; all copies of a state share it.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "adafactor/config.hpp"
#include "adafactor/dtype.hpp"
#include "adafactor/host/pages.hpp"
#include "adafactor/order.hpp"
#include "adafactor/plan/layout.hpp"
#include "adafactor/plan/leaf_plan.hpp"
#include "adafactor/plan/noise_key.hpp"
#include "adafactor/plan/parts.hpp"
#include "adafactor/plan/tile.hpp"
#include "adafactor/tensor.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI {

// Made once for the shapes, dtypes and knobs of all leaves, then asked for sizes in bytes and handed to a State. A
// leaf has at most kMaxRank axes and kMostElements elements.
class Plan {
 public:
  // Throws Error where a shape or a row of knobs is not allowed; its leaf is the index in `leaves`.
  Plan(std::vector<LeafSpec> leaves, std::vector<Config> knobs);
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;

  const std::vector<LeafPlan>& leaves() const { return leaves_; }
  const std::vector<Config>& knobs() const { return knobs_; }
  const Config& knobs_of(const LeafPlan& leaf) const { return knobs_[leaf.spec.knobs]; }
  // The knobs that concern the whole call, the same in every row.
  const Config& call() const { return knobs_.front(); }

  const std::vector<Tile>& tiles() const { return tiles_; }

  // How many groups of parts cut leaves; what the parts add up, in the order in which each group gets it; how many
  // numbers that is of all leaves, and in the buffers of all groups.
  int groups() const { return groups_; }
  const std::vector<SharedPiece>& shared() const { return shared_; }
  std::int64_t shared_count() const { return shared_count_; }
  std::int64_t exchange_count() const {
    std::int64_t count = 0;
    for (int group = 0; group < groups_; ++group) count += shared_count(Round::sums, group);
    return count;
  }
  // How many numbers a group gets in a round.
  std::int64_t shared_count(Round round, int group) const {
    std::int64_t count = 0;
    for (const SharedPiece& piece : shared_) {
      if (piece.round == round && piece.goes_to(group)) count += piece.count;
    }
    return count;
  }

  // Whether a step decides to go on after it has seen every gradient; otherwise each wave goes through at once.
  bool looks_first() const {
    return call().on_nonfinite != OnNonfinite::propagate || call().global_clipnorm.has_value();
  }

  std::int64_t state_nbytes() const { return state_nbytes_; }
  std::int64_t moment_scratch_nbytes() const { return moment_scratch_nbytes_; }
  std::int64_t axis_count() const { return axis_count_; }

 private:
  static constexpr std::int64_t kTileElements = 131072;
  static constexpr std::int64_t kTileRows = 256;  // keeps column partials below 1/64 of a leaf of 16 bits

  ADAFACTOR_RARE void require_one_call() {
    if (knobs_.empty()) throw Error({.expected = "at least one row of knobs", .found = "none"});
    visit_knobs([this](const auto& knob) {
      if (knob.scope != Scope::call) return;
      for (const Config& row : knobs_) {
        if (row.*knob.member == call().*knob.member) continue;
        throw Error({.knob = knob.name, .expected = "one value for the whole call", .found = "several"});
      }
    });
  }

  ADAFACTOR_RARE void plan_leaf(LeafPlan& leaf, LeafSpec spec, std::int64_t index) {
    if (spec.knobs >= knobs_.size()) throw Error({.leaf = index, .expected = "the index of a row of knobs"});
    if (spec.shape.size() > kMaxRank) {
      throw Error({.leaf = index,
                   .expected = "at most " + counted(kMaxRank, " axes"),
                   .found = counted(static_cast<std::int64_t>(spec.shape.size()), " axes")});
    }
    try {
      checked_size(spec.shape);
      checked_size(spec.whole_shape());
      check_part(spec);
    } catch (const Error& error) {
      throw Error({.leaf = index, .expected = error.expected(), .found = error.found()});
    }
    leaf.whole = make_layout(spec.whole_shape(), knobs_[spec.knobs]);
    leaf.layout = part_of(leaf.whole, spec.shape);
    leaf.cuts = cuts_of(leaf.whole, spec.split);
    place_shared(leaf, shared_, shared_count_);
    groups_ = (std::max)(groups_, static_cast<int>(std::bit_width(leaf.cuts.any())));
    leaf.arithmetic = arithmetic_of(spec.dtype);
    if (spec.path.empty()) spec.path = std::to_string(index);
    leaf.first_element = first_element(spec);
    leaf.noise_key = noise_key(spec.path, static_cast<std::uint64_t>(knobs_[spec.knobs].seed));
    leaf.spec = std::move(spec);
    axis_count_ += 4 * std::max<std::int64_t>(static_cast<std::int64_t>(leaf.spec.shape.size()), 1);
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
        (std::max)(kPanel, kTileElements / std::max<std::int64_t>(layout.rows, 1) / kBlock * kBlock);
    const std::int64_t col_blocks = ceil_of(layout.cols, widest);
    const std::int64_t cols = col_blocks == 1 ? layout.cols : piece(layout.cols, col_blocks, kBlock);
    const std::int64_t fewest = (std::max)(kTileRows, kTileElements / cols);
    const std::int64_t row_blocks = std::max<std::int64_t>(layout.rows / fewest, 1);
    return {row_blocks == 1 ? layout.rows : piece(layout.rows, row_blocks, kRowGroup), cols};
  }

  // Whether something is done to the leaf: a part without elements has moments that the others change, if they have
  // any.
  static bool has_tiles(const LeafPlan& leaf) {
    const Layout& layout = leaf.layout;
    if (layout.size() > 0) return true;
    const bool has_moments = layout.factored && layout.slices * (layout.rows + layout.cols) > 0;
    return has_moments && leaf.is_cut() && leaf.whole.size() > 0;
  }

  // Several slices where they are small, else a part of one.
  static Tile first_tile(const Layout& layout) {
    if (layout.size() == 0) return {.slices = 1, .rows = layout.rows, .cols = layout.cols};
    const auto [rows, cols] = tile_shape(layout);
    const bool whole = rows == layout.rows && cols == layout.cols;
    const std::int64_t slices = whole ? std::clamp<std::int64_t>(kTileElements / (rows * cols), 1, layout.slices) : 1;
    return {.slices = slices, .rows = rows, .cols = cols};
  }

  ADAFACTOR_RARE void make_tiles() {
    std::int64_t count = 0;
    for (LeafPlan& leaf : leaves_) {
      leaf.first_tile = count;
      if (!has_tiles(leaf)) continue;
      const Tile tile = first_tile(leaf.layout);
      leaf.row_blocks = leaf.layout.rows == tile.rows ? 1 : ceil_of(leaf.layout.rows, tile.rows);
      leaf.col_blocks = leaf.layout.cols == tile.cols ? 1 : ceil_of(leaf.layout.cols, tile.cols);
      leaf.tile_count = ceil_of(leaf.layout.slices, tile.slices) * leaf.row_blocks * leaf.col_blocks;
      count += leaf.tile_count;
    }
    // All memory is taken at once, so that a shape that is too large for it fails at once.
    tiles_.reserve(static_cast<std::size_t>(count));
    for (std::size_t i = 0; i < leaves_.size(); ++i) {
      if (leaves_[i].tile_count > 0) add_tiles(leaves_[i], static_cast<std::int64_t>(i));
    }
  }

  ADAFACTOR_RARE void add_tiles(const LeafPlan& leaf, std::int64_t index) {
    const Layout& layout = leaf.layout;
    const Tile tile = first_tile(layout);
    for (std::int64_t slice = 0; slice < layout.slices; slice += tile.slices) {
      for (std::int64_t r = 0; r < leaf.row_blocks; ++r) {
        for (std::int64_t c = 0; c < leaf.col_blocks; ++c) {
          const std::int64_t row = r * tile.rows;
          const std::int64_t col = c * tile.cols;
          tiles_.push_back({index, slice, (std::min)(tile.slices, layout.slices - slice), row,
                            (std::min)(tile.rows, layout.rows - row), col, (std::min)(tile.cols, layout.cols - col), r,
                            c});
        }
      }
    }
  }

  // The arrays of the state lie one after another without gaps, those with the largest elements first.
  ADAFACTOR_RARE void place_state() {
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
      const bool is_short = config.momentum_dtype == MomentumDType::bfloat16;
      add(StateKind::momentum, config.beta_1.has_value(), layout.size(), is_short ? DType::bfloat16 : arithmetic);
      add(StateKind::average, config.use_ema, layout.size(), arithmetic);
      add(StateKind::accumulator, config.gradient_accumulation_steps.has_value(), layout.size(), arithmetic);
    }
    for (const std::int64_t bytes : {8, 4, 2, 1}) {
      for (LeafPlan& leaf : leaves_) {
        for (StateArray& array : leaf.state) {
          if (!array.exists() || item_size(array.dtype) != bytes) continue;
          array.offset = state_nbytes_;
          state_nbytes_ += array.nbytes();
        }
      }
    }
  }

  ADAFACTOR_RARE void place_scratch() {
    // Numbers of 8 bytes first. Small slices keep their row factors, and no M.
    for (LeafPlan& leaf : leaves_) {
      if (!leaf.layout.factored || leaf.has_small_slices()) continue;
      leaf.mean_moment = std::exchange(moment_scratch_nbytes_, moment_scratch_nbytes_ + 8 * leaf.layout.slices);
    }
    for (const DType arithmetic : {DType::float64, DType::float32}) {
      for (LeafPlan& leaf : leaves_) {
        if (leaf.arithmetic != arithmetic || !leaf.layout.factored) continue;
        const auto place = [&](std::int64_t count) {
          return std::exchange(moment_scratch_nbytes_, moment_scratch_nbytes_ + count * item_size(arithmetic));
        };
        leaf.row_moment = place(leaf.layout.slices * leaf.layout.rows);
        leaf.col_moment = place(leaf.layout.slices * leaf.layout.cols);
        leaf.col_factor = place(leaf.layout.slices * leaf.layout.cols);
        if (leaf.moves_factors()) place(kPageBytes / item_size(arithmetic));
        if (leaf.has_small_slices()) leaf.row_factor = place(leaf.layout.slices * leaf.layout.rows);
        // The factors of short rows are read by whole registers, past the last one: not into what others write.
        if (leaf.layout.cols < kLanes) place(kLanes);
      }
    }
  }

  std::vector<Config> knobs_;
  std::vector<LeafPlan> leaves_;
  std::vector<Tile> tiles_;
  std::int64_t state_nbytes_ = 0;
  std::int64_t moment_scratch_nbytes_ = 0;
  std::int64_t axis_count_ = 0;
  int groups_ = 0;
  std::vector<SharedPiece> shared_;
  std::int64_t shared_count_ = 0;
};

}}  // namespace adafactor::ADAFACTOR_ABI

#if ADAFACTOR_DEFINES_STEP

namespace adafactor { inline namespace ADAFACTOR_ABI {

ADAFACTOR_RARE ADAFACTOR_FUNCTION Plan::Plan(std::vector<LeafSpec> leaves, std::vector<Config> knobs)
    : knobs_(std::move(knobs)) {
  for (const Config& config : knobs_) validate(config);
  require_one_call();
  leaves_ = std::vector<LeafPlan>(leaves.size());
  for (std::size_t i = 0; i < leaves.size(); ++i) {
    plan_leaf(leaves_[i], std::move(leaves[i]), static_cast<std::int64_t>(i));
  }
  make_tiles();
  place_state();
  place_scratch();
}

}}  // namespace adafactor::ADAFACTOR_ABI

#endif  // ADAFACTOR_DEFINES_STEP
