// What the CPU's threads keep with a workspace: how far a step has come, and the sums that tiles leave for each other.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "adafactor/cpu/progress.hpp"
#include "adafactor/cpu/tasks.hpp"
#include "adafactor/host/memory.hpp"
#include "adafactor/plan/leaf_plan.hpp"
#include "adafactor/step/leaf.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI {

// What the CPU needs besides the workspace: it serves all steps of a state, and its size depends on the plan alone.
struct CpuScratch final : detail::Kept {
  // Tells the leaves where their partial sums are.
  CpuScratch(const TaskOrder& order, const std::vector<LeafPlan>& plans, std::span<Leaf> leaves)
      : progress(order), partials(static_cast<std::size_t>(order.partial_count())) {
    for (std::size_t i = 0; i < leaves.size(); ++i) {
      if (plans[i].partials() == 0) continue;
      leaves[i].at.row_partial = partials.data() + order.first_partial(i);
      leaves[i].at.col_partial = leaves[i].at.row_partial + plans[i].row_partials();
    }
  }

  static std::int64_t nbytes(const TaskOrder& order) {
    return static_cast<std::int64_t>(sizeof(CpuScratch)) + Progress::nbytes(order) +
           order.partial_count() * static_cast<std::int64_t>(sizeof(double));
  }

  Progress progress;
  std::vector<double> partials;
};

}}  // namespace adafactor::ADAFACTOR_ABI
