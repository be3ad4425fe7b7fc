// Scratch of a step: the leaves as the phases see them, and what the phases find.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "adafactor/host/memory.hpp"
#include "adafactor/plan.hpp"
#include "adafactor/step/decide.hpp"
#include "adafactor/step/leaf.hpp"
#include "adafactor/step/places.hpp"

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

  const Plan& plan;

  std::vector<Leaf> leaves;
  std::vector<TileSums> sums;
  std::vector<Axis> axes;
  Verdict verdict;
  int threads = 0;                           // the most that a region of this call has had
  std::unique_ptr<detail::Kept> of_backend;  // scratch of its own

 private:
  detail::Bytes moments_;
};

}}  // namespace adafactor::ADAFACTOR_ABI

#if ADAFACTOR_DEFINES_STEP

namespace adafactor { inline namespace ADAFACTOR_ABI {

ADAFACTOR_FUNCTION Workspace::Workspace(const Plan& made_for, std::byte* memory)
    : plan(made_for),
      leaves(plan.leaves().size()),
      sums(plan.tiles().size()),
      axes(static_cast<std::size_t>(plan.axis_count())),
      moments_(detail::allocate_zeros(plan.moment_scratch_nbytes())) {
  for (std::size_t i = 0; i < leaves.size(); ++i) {
    const LeafPlan& leaf = plan.leaves()[i];
    const Layout& layout = leaf.layout;
    leaves[i].shape = {leaf.arithmetic, layout.factored, layout.slices,   layout.rows,    layout.cols,
                       leaf.row_blocks, leaf.col_blocks, leaf.first_tile, leaf.tile_count};
    detail::place_memory(leaves[i].at, leaf, memory, moments_.get());
  }
}

}}  // namespace adafactor::ADAFACTOR_ABI

#endif  // ADAFACTOR_DEFINES_STEP
