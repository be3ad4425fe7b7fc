// Scratch of a step: the leaves as the phases see them, and what the phases find.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "adafactor/host/memory.hpp"
#include "adafactor/plan.hpp"
#include "adafactor/step/decide.hpp"
#include "adafactor/step/leaf.hpp"
#include "adafactor/step/places.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI {

// Whose arrays of the state the leaves know: those that a call has brought along, or those of a State's own memory.
enum class StateSource : std::uint8_t { none, call, memory };

namespace detail {

// What the phases know of a leaf's layout.
inline LeafShape shape_of(const LeafPlan& plan) {
  const Layout& layout = plan.layout;
  LeafShape shape;
  shape.arithmetic = plan.arithmetic;
  shape.factored = layout.factored;
  shape.shares_rows = layout.factored && plan.cuts.rows != 0;
  shape.shares_cols = layout.factored && plan.cuts.cols != 0;
  shape.slices = layout.slices;
  shape.rows = layout.rows;
  shape.cols = layout.cols;
  shape.row_blocks = plan.row_blocks;
  shape.col_blocks = plan.col_blocks;
  shape.first_tile = plan.first_tile;
  shape.tile_count = plan.tile_count;
  shape.whole_rows = plan.whole.rows;
  shape.whole_cols = plan.whole.cols;
  shape.whole_size = plan.whole.size();
  return shape;
}

}  // namespace detail

// Scratch of a step, in one block of memory whose size depends on the plan alone.
class Workspace {
 public:
  // Takes its memory from `pieces`, the last of it for so many bytes that a backend keeps there.
  Workspace(const Plan& plan, std::int64_t backend_nbytes, detail::Pieces& pieces);

  std::byte* moments() const { return moments_.data(); }
  // Where a device keeps what its phases need (Backend::device_nbytes()); null on a CPU.
  std::byte* on_device = nullptr;
  // What the backend keeps: it alone knows what that is.
  std::byte* of_backend() const { return of_backend_.data(); }

  const Plan& plan;

  std::span<Leaf> leaves;
  std::span<TileSums> sums;
  std::span<Axis> axes;
  std::span<double> shared;    // the numbers that parts of leaves add up
  std::span<double> exchange;  // those of each group, on their way
  Verdict verdict;
  int threads = 0;  // the most that a region of this call has had
  StateSource state_source = StateSource::none;

 private:
  std::span<std::byte> moments_;
  std::span<std::byte> of_backend_;
};

}}  // namespace adafactor::ADAFACTOR_ABI

#if ADAFACTOR_DEFINES_STEP

namespace adafactor { inline namespace ADAFACTOR_ABI {

ADAFACTOR_RARE ADAFACTOR_FUNCTION Workspace::Workspace(const Plan& made_for, std::int64_t backend_nbytes,
                                                       detail::Pieces& pieces)
    : plan(made_for),
      leaves(pieces.take<Leaf>(static_cast<std::int64_t>(plan.leaves().size()))),
      sums(pieces.take<TileSums>(static_cast<std::int64_t>(plan.tiles().size()))),
      axes(pieces.take<Axis>(plan.axis_count())),
      shared(pieces.take<double>(plan.shared_count())),
      exchange(pieces.take<double>(plan.exchange_count())),
      moments_(pieces.take_lines(plan.moment_scratch_nbytes())),
      of_backend_(pieces.take_lines(backend_nbytes)) {
  for (std::size_t i = 0; i < leaves.size(); ++i) {
    const LeafPlan& leaf = plan.leaves()[i];
    leaves[i].shape = detail::shape_of(leaf);
    detail::place_scratch(leaves[i].at, leaf, moments(), shared.data());
    // What tiles do not cut goes straight to what parts share.
    leaves[i].at.row_partial = leaves[i].row_sums();
    leaves[i].at.col_partial = leaves[i].col_sums();
  }
}

}}  // namespace adafactor::ADAFACTOR_ABI

#endif  // ADAFACTOR_DEFINES_STEP
