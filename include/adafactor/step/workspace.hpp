// Scratch of a step: the leaves as the phases see them, and what the phases find.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

#include "adafactor/host/memory.hpp"
#include "adafactor/plan.hpp"
#include "adafactor/step/decide.hpp"
#include "adafactor/step/leaf.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI {

// Scratch of a step; owned by a state, made at its first step, of a size that depends on the plan alone.
class Workspace final : public detail::Kept {
 public:
  // `memory` is the state's.
  Workspace(const Plan& plan, std::byte* memory);

  // The bytes of a workspace, without what the backend keeps.
  static std::int64_t nbytes(const Plan& plan) {
    return static_cast<std::int64_t>(sizeof(Workspace) + plan.leaves().size() * sizeof(Leaf) +
                                     plan.tiles().size() * sizeof(TileSums)) +
           plan.axis_count() * static_cast<std::int64_t>(sizeof(Axis)) + plan.moment_scratch_nbytes();
  }

  std::byte* moments() { return moments_.get(); }

  std::vector<Leaf> leaves;
  std::vector<TileSums> sums;
  std::vector<Axis> axes;
  Verdict verdict;
  int threads = 0;                           // the most that a region of this call has had
  std::unique_ptr<detail::Kept> of_backend;  // scratch of its own

 private:
  // What of a leaf does not change from call to call: where it lies and how it is cut, and most of its rule.
  void place(Leaf& leaf, const LeafPlan& plan) {
    leaf.arithmetic = plan.arithmetic;
    leaf.factored = plan.layout.factored;
    leaf.slices = plan.layout.slices;
    leaf.rows = plan.layout.rows;
    leaf.cols = plan.layout.cols;
    leaf.row_blocks = plan.row_blocks;
    leaf.col_blocks = plan.col_blocks;
    leaf.first_tile = plan.first_tile;
    leaf.tile_count = plan.tile_count;
    if (!leaf.factored) return;
    leaf.row_moment = moments_.get() + plan.row_moment;
    leaf.col_moment = moments_.get() + plan.col_moment;
    leaf.col_factor = moments_.get() + plan.col_factor;
    if (plan.layout.has_small_slices()) {
      leaf.row_factor = moments_.get() + plan.row_factor;
    } else {
      leaf.mean_moment = reinterpret_cast<double*>(moments_.get() + plan.mean_moment);
    }
  }

  static StateArrays state_arrays(const LeafPlan& leaf, std::byte* memory) {
    const auto at = [&](StateKind kind) -> void* {
      const StateArray& array = leaf.state[static_cast<std::size_t>(kind)];
      return array.exists() ? memory + array.offset : nullptr;
    };
    return {at(StateKind::row),      at(StateKind::col),     at(StateKind::full),
            at(StateKind::momentum), at(StateKind::average), at(StateKind::accumulator)};
  }

  static void set_rule(Leaf& leaf, const LeafPlan& plan, const Config& config) {
    constexpr double none = std::numeric_limits<double>::infinity();
    leaf.rounds_by_noise = config.rounding == Rounding::stochastic && rounds(plan.spec.dtype);
    leaf.noise.key = plan.noise_key;
    leaf.epsilon_1 = config.epsilon_1.value_or(machine_epsilon(plan.spec.dtype));
    leaf.clamps = config.epsilon_1_mode == EpsilonMode::clamp;
    leaf.epsilon_2 = config.epsilon_2;
    leaf.max_parameter_scale = config.max_parameter_scale.value_or(none);
    leaf.scales_parameter = config.scale_parameter;
    leaf.clip_threshold = config.clip_threshold.value_or(none);
    leaf.clipnorm = config.clipnorm.value_or(none);
    leaf.clips_by_norm = config.clipnorm || config.global_clipnorm;
    leaf.decays_by_step = config.weight_decay_on == WeightDecayOn::step;
    leaf.decays_first = config.decays_first();
    leaf.has_momentum = config.beta_1.has_value();
    leaf.beta_1 = config.beta_1.value_or(0);
    leaf.momentum_is_bfloat16 = config.momentum_dtype == MomentumDType::bfloat16;
    leaf.momentum_of_scaled = config.momentum_on == MomentumOn::scaled;
    leaf.uses_exact_momentum = config.momentum_use == MomentumUse::exact;
    leaf.ema_momentum = config.ema_momentum;
  }

  detail::Bytes moments_;
};

// Whether a step writes anything after its verdict.
inline bool goes_on(const Plan& plan, const Workspace& workspace) {
  return plan.call().on_nonfinite == OnNonfinite::propagate || workspace.verdict.finite;
}

}}  // namespace adafactor::ADAFACTOR_ABI

#if ADAFACTOR_DEFINES_STEP

namespace adafactor { inline namespace ADAFACTOR_ABI {

ADAFACTOR_FUNCTION Workspace::Workspace(const Plan& plan, std::byte* memory)
    : leaves(plan.leaves().size()),
      sums(plan.tiles().size()),
      axes(static_cast<std::size_t>(plan.axis_count())),
      moments_(detail::allocate_zeros(plan.moment_scratch_nbytes())) {
  for (std::size_t i = 0; i < leaves.size(); ++i) {
    const LeafPlan& leaf = plan.leaves()[i];
    place(leaves[i], leaf);
    leaves[i].before = leaves[i].after = state_arrays(leaf, memory);
    set_rule(leaves[i], leaf, plan.knobs_of(leaf));
  }
}

}}  // namespace adafactor::ADAFACTOR_ABI

#endif  // ADAFACTOR_DEFINES_STEP
