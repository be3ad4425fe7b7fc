// The seam for a device: whole phases over a wave of leaves. What the phases find (sums, clipping factors, whether the
// step goes on) stays in the workspace, where the next phase reads it; the orchestration never looks.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>

#include "adafactor/exact_begin.hpp"
#include "adafactor/kernel_table.hpp"
#include "adafactor/parallel.hpp"
#include "adafactor/plan.hpp"
#include "adafactor/state.hpp"

namespace adafactor::inline ADAFACTOR_ABI {

// Whether the parameter's scale or the clipping of U asks for `rms`.
inline bool measures(const Leaf& leaf) {
  return leaf.action == Action::update &&
         (leaf.scales_parameter || leaf.clip_threshold < std::numeric_limits<double>::infinity());
}

// The phases of one device. `accumulate` is the end of a call that only adds its gradients up. None of them throws.
class Backend {
 public:
  virtual ~Backend() = default;
  virtual void moments(const Wave& wave) = 0;
  virtual void factors(const Wave& wave) = 0;
  virtual void rms(const Wave& wave) = 0;
  virtual void apply(const Wave& wave) = 0;
  virtual void accumulate(const Wave& wave) = 0;
};

// Loops over tiles in parallel, with the kernels of one instruction set.
class CpuBackend final : public Backend {
 public:
  CpuBackend(const Plan& plan, Workspace& workspace, const KernelTable& kernels, int threads)
      : plan_(plan), workspace_(workspace), kernels_(kernels), team_(team_for(plan, threads)) {}

  void moments(const Wave& wave) override {
    for_tiles(wave, wave.elements, [&](const Tile& tile, const Leaf& leaf, const Kernels& kernels) {
      if (leaf.action != Action::keep) kernels.moments(leaf, tile, sums_of(tile));
    });
    if (!any(wave, [](const Leaf& leaf) { return leaf.row_blocks > 1 || leaf.col_blocks > 1; })) return;
    for_tiles(wave, wave.moments,
              [&](const Tile& tile, const Leaf& leaf, const Kernels& kernels) { kernels.means(leaf, tile); });
  }

  void factors(const Wave& wave) override {
    find_norms(wave);
    if (!goes()) return;
    for_tiles(wave, wave.moments, [&](const Tile& tile, const Leaf& leaf, const Kernels& kernels) {
      if (leaf.action == Action::update && leaf.factored) kernels.new_moments(leaf, tile, sums_of(tile));
    });
    for (std::int64_t i = wave.leaves.first; i < wave.leaves.last; ++i) {
      Leaf& leaf = leaf_at(i);
      leaf.clamp_binds = leaf.clamps && leaf.factored && leaf.action == Action::update && may_clamp(leaf);
    }
  }

  void rms(const Wave& wave) override {
    if (!goes()) return;
    if (any(wave, measures)) {
      // What the phase before came to last is in the cache still.
      for_tiles(
          wave, wave.elements,
          [&](const Tile& tile, const Leaf& leaf, const Kernels& kernels) {
            if (measures(leaf)) kernels.rms(leaf, tile, sums_of_leaf(leaf), sums_of(tile));
          },
          Order::backwards);
    }
    for (std::int64_t i = wave.leaves.first; i < wave.leaves.last; ++i) find_step(i);
  }

  void apply(const Wave& wave) override {
    for_tiles(wave, wave.elements, [&](const Tile& tile, const Leaf& leaf, const Kernels& kernels) {
      if (goes() || leaf.action == Action::keep) kernels.apply(leaf, tile, sums_of_leaf(leaf));
    });
  }

  void accumulate(const Wave& wave) override {
    if (!goes()) return;
    for_tiles(wave, wave.elements,
              [&](const Tile& tile, const Leaf& leaf, const Kernels& kernels) { kernels.accumulate(leaf, tile); });
  }

 private:
  bool goes() const { return workspace_.finite || plan_.call().on_nonfinite == OnNonfinite::propagate; }

  Leaf& leaf_at(std::int64_t index) { return workspace_.leaves[static_cast<std::size_t>(index)]; }
  const Kernels& kernels_at(std::int64_t index) const {
    return kernels_.of(plan_.leaves()[static_cast<std::size_t>(index)].arithmetic);
  }
  TileSums& sums_of(const Tile& tile) {
    return workspace_.sums[static_cast<std::size_t>(&tile - plan_.tiles().data())];
  }
  TileSums* sums_of_leaf(const Leaf& leaf) { return workspace_.sums.data() + leaf.first_tile; }

  template <class Predicate>
  bool any(const Wave& wave, const Predicate& predicate) {
    for (std::int64_t i = wave.leaves.first; i < wave.leaves.last; ++i) {
      if (predicate(leaf_at(i))) return true;
    }
    return false;
  }

  // So much work, in elements, is worth another thread: below it the threads' meeting costs more than it saves.
  static constexpr std::int64_t kWorkOfThread = 65536;

  // One number of threads for all loops of a state: where it changes from loop to loop, the threads' library ends some
  // and starts others.
  static int team_for(const Plan& plan, int threads) {
    const Wave& all = plan.everything();
    const std::int64_t useful = std::min(all.elements / kWorkOfThread, all.tasks.last - all.tasks.first);
    return static_cast<int>(std::clamp<std::int64_t>(useful, 1, threads));
  }

  enum class Order : std::uint8_t { forwards, backwards };

  // All tiles of all leaves of the wave are one parallel loop.
  template <class Body>
  void for_tiles(const Wave& wave, std::int64_t work, const Body& body, Order order = Order::forwards) {
    const int threads = work >= 2 * kWorkOfThread ? team_ : 1;
    const std::int64_t ends = wave.tasks.first + wave.tasks.last - 1;
    const int used = parallel_for(wave.tasks.first, wave.tasks.last, threads, [&](std::int64_t task) {
      const std::int64_t index = order == Order::forwards ? task : ends - task;
      const Span tiles = plan_.tasks()[static_cast<std::size_t>(index)];
      for (std::int64_t t = tiles.first; t < tiles.last; ++t) {
        const Tile& tile = plan_.tiles()[static_cast<std::size_t>(t)];
        body(tile, leaf_at(tile.leaf), kernels_at(tile.leaf));
      }
    });
    workspace_.threads = std::max(workspace_.threads, used);
  }

  // Adds up the squares of G, leaf by leaf and over all; from them the factors of clipping by norm.
  void find_norms(const Wave& wave) {
    for (std::int64_t i = wave.leaves.first; i < wave.leaves.last; ++i) {
      Leaf& leaf = leaf_at(i);
      if (!leaf.judged) continue;
      leaf.gradient_squares = 0;
      const TileSums* sums = sums_of_leaf(leaf);
      for (std::int64_t t = 0; t < leaf.tile_count; ++t) leaf.gradient_squares += sums[t].gradient_squares;
      if (leaf.action == Action::accumulate && !fits(leaf.gradient_squares, i)) leaf.gradient_squares = kInfinity;
      if (!std::isfinite(leaf.gradient_squares)) workspace_.finite = false;
      workspace_.add_squares(leaf.gradient_squares);
      leaf.norm_factor = norm_factor(leaf.clipnorm, std::sqrt(leaf.gradient_squares));
    }
    if (!plan_.call().global_clipnorm) return;
    const double factor = norm_factor(*plan_.call().global_clipnorm, workspace_.gradient_norm());
    for (std::int64_t i = wave.leaves.first; i < wave.leaves.last; ++i) leaf_at(i).norm_factor = factor;
  }

  // Whether a window of accumulation that holds this much could be completed by zeros: the update's sums stay in range.
  bool fits(double squares, std::int64_t index) const {
    const bool narrow = plan_.leaves()[static_cast<std::size_t>(index)].arithmetic == DType::float32;
    return !narrow || squares <= static_cast<double>(std::numeric_limits<float>::max());
  }

  static double norm_factor(double limit, double norm) { return norm <= limit ? 1 : limit / norm; }

  // From the sums of U^2 and P^2: the factor of clipping by rms, and alpha.
  void find_step(std::int64_t index) {
    Leaf& leaf = leaf_at(index);
    if (leaf.action != Action::update || leaf.size() == 0) return;
    leaf.wide = false;
    if (measures(leaf)) {
      add_squares(leaf);
      if (narrow_overflow(index)) {
        leaf.wide = true;
        measure_wide(index);
      }
    }
    const double size = static_cast<double>(leaf.size());
    const double update_rms = std::sqrt(leaf.update_squares / size);
    const double parameter_rms = std::sqrt(leaf.parameter_squares / size);
    leaf.clip_factor = update_rms <= leaf.clip_threshold || !measures(leaf) ? 1 : leaf.clip_threshold / update_rms;
    double scale = 1;
    if (leaf.scales_parameter) {
      scale = leaf.decays_first ? std::abs(1 - leaf.weight_decay) * parameter_rms : parameter_rms;
      if (scale < leaf.epsilon_2) scale = leaf.epsilon_2;
      if (scale > leaf.max_parameter_scale) scale = leaf.max_parameter_scale;
    }
    leaf.step_size = leaf.rho * scale;
    if (leaf.decays_by_step) leaf.weight_decay *= leaf.step_size;
    leaf.wide = leaf.wide || may_overflow(index);
  }

  void add_squares(Leaf& leaf) {
    leaf.update_squares = 0;
    leaf.parameter_squares = 0;
    const TileSums* sums = sums_of_leaf(leaf);
    for (std::int64_t t = 0; t < leaf.tile_count; ++t) {
      leaf.update_squares += sums[t].update_squares;
      leaf.parameter_squares += sums[t].parameter_squares;
    }
  }

  // The squares left float although the gradient is finite.
  bool narrow_overflow(std::int64_t index) {
    const Leaf& leaf = leaf_at(index);
    return plan_.leaves()[static_cast<std::size_t>(index)].arithmetic == DType::float32 &&
           std::isfinite(leaf.gradient_squares) &&
           !(std::isfinite(leaf.update_squares) && std::isfinite(leaf.parameter_squares));
  }

  void measure_wide(std::int64_t index) {
    Leaf& leaf = leaf_at(index);
    parallel_for(leaf.first_tile, leaf.first_tile + leaf.tile_count, team_, [&](std::int64_t t) {
      const Tile& tile = plan_.tiles()[static_cast<std::size_t>(t)];
      kernels_at(index).rms(leaf, tile, sums_of_leaf(leaf), sums_of(tile));
    });
    add_squares(leaf);
  }

  // Whether float may not hold what `apply` forms on the way to a finite update: the row factor, into which everything
  // else is multiplied, its product with G, and U where nobody has measured it.
  bool may_overflow(std::int64_t index) {
    constexpr double limit = 1e38;
    const Leaf& leaf = leaf_at(index);
    if (!leaf.factored || plan_.leaves()[static_cast<std::size_t>(index)].arithmetic != DType::float32) return false;
    const auto [rows, cols] = moment_ranges(leaf);
    const double mean = leaf.clamps ? std::max(rows.largest, leaf.epsilon_1) : rows.largest;
    const double row_factor = std::sqrt(mean / rows.smallest);
    const double norm = leaf.norm_factor * std::sqrt(leaf.gradient_squares);
    // G^2 is at most all columns' share of R.
    const double share = static_cast<double>(leaf.cols) / leaf.one_minus_beta_2;
    const double product = std::min(row_factor * norm, std::sqrt(mean * share));
    const double scale = leaf.clip_factor * (leaf.scales_early() ? leaf.step_size : 1);
    const double gradient_scale = std::abs(Gradient<float>::scale(leaf)) * leaf.norm_factor;
    if (std::max(row_factor * gradient_scale, product) * scale > limit) return true;
    return !measures(leaf) && row_factor / std::sqrt(cols.smallest) * norm > limit;
  }

  // Whether the largest product of factors reaches the limit, or may by rounding.
  bool may_clamp(const Leaf& leaf) {
    const auto [rows, cols] = moment_ranges(leaf);
    const double row_factor = std::sqrt(std::max(rows.largest, leaf.epsilon_1) / rows.smallest);
    return !(row_factor / std::sqrt(cols.smallest) * leaf.epsilon_1 < 0.999);
  }

  std::pair<MomentRange, MomentRange> moment_ranges(const Leaf& leaf) {
    MomentRange rows{kInfinity, 0};
    MomentRange cols = rows;
    const auto widen = [](MomentRange& range, const MomentRange& more) {
      range = {std::min(range.smallest, more.smallest), std::max(range.largest, more.largest)};
    };
    const TileSums* sums = sums_of_leaf(leaf);
    for (std::int64_t t = 0; t < leaf.tile_count; ++t) {
      widen(rows, sums[t].rows);
      widen(cols, sums[t].cols);
    }
    return {rows, cols};
  }

  const Plan& plan_;
  Workspace& workspace_;
  const KernelTable& kernels_;
  int team_;
};

}  // namespace adafactor::inline ADAFACTOR_ABI

#include "adafactor/exact_end.hpp"
