// What the CPU's threads keep with a workspace: the order of their tasks, how far a step has come, and the sums that
// tiles leave for each other.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "adafactor/cpu/progress.hpp"
#include "adafactor/cpu/tasks.hpp"
#include "adafactor/host/memory.hpp"
#include "adafactor/plan.hpp"
#include "adafactor/step/leaf.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI {

// What the CPU needs besides the workspace: it serves all steps of a state, in memory whose size depends on the plan
// alone.
struct CpuScratch {
  CpuScratch(const Plan& plan, detail::Pieces& pieces)
      : order(plan.leaves(), plan.tiles(), plan.looks_first(), pieces),
        progress(order.stage_count(), order.claims(), pieces),
        partials(pieces.take<double>(order.partial_count())) {}

  // Tells the leaves where their partial sums are.
  void place_partials(const Plan& plan, std::span<Leaf> leaves) {
    for (std::size_t i = 0; i < leaves.size(); ++i) {
      const LeafPlan& leaf = plan.leaves()[i];
      double* first = partials.data() + order.first_partial(i);
      if (leaf.row_partials() > 0) leaves[i].at.row_partial = first;
      if (leaf.col_partials() > 0) leaves[i].at.col_partial = first + leaf.row_partials();
    }
  }

  TaskOrder order;
  Progress progress;
  std::span<double> partials;
};

}}  // namespace adafactor::ADAFACTOR_ABI
