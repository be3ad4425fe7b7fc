// Leaves that are parts of larger ones, which lie in other memory or in that of other processes: what such a part has
// to be, and which of its numbers the parts add up, group by group.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "adafactor/error.hpp"
#include "adafactor/plan/leaf_plan.hpp"
#include "adafactor/plan/tile.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI {

// When numbers are known that parts add up: the sums of `moments`, or the squares of `rms`.
enum class Round : std::uint8_t { sums, squares };

// Numbers that some groups add up, one group after the other.
struct SharedPiece {
  Round round = Round::sums;
  std::uint32_t groups = 0;
  std::int64_t first = 0;  // in doubles from the beginning of those of all leaves
  std::int64_t count = 0;

  bool goes_to(int group) const { return ((groups >> group) & 1) != 0; }
};

// Throws Error unless `spec` is a whole leaf, or a part that lies in its whole and says which groups cut it.
ADAFACTOR_FUNCTION void check_part(const LeafSpec& spec);

// The number, in C order, of the whole's element that a part begins with.
ADAFACTOR_FUNCTION std::int64_t first_element(const LeafSpec& spec);

// Places the numbers of a leaf that its parts add up behind the `count` of the leaves before it, and counts them.
ADAFACTOR_FUNCTION void place_shared(LeafPlan& leaf, std::vector<SharedPiece>& pieces, std::int64_t& count);

}}  // namespace adafactor::ADAFACTOR_ABI

#if ADAFACTOR_DEFINES_STEP

namespace adafactor { inline namespace ADAFACTOR_ABI {

ADAFACTOR_RARE ADAFACTOR_FUNCTION void check_part(const LeafSpec& spec) {
  const std::size_t rank = spec.shape.size();
  if (spec.global_shape.empty() && spec.offset.empty() && spec.split.empty()) return;
  if (spec.global_shape.size() != rank || spec.offset.size() != rank || spec.split.size() != rank) {
    throw Error({.expected = "global_shape, offset and split with a number for each axis, or without any"});
  }
  std::uint32_t seen = 0;
  for (std::size_t axis = 0; axis < rank; ++axis) {
    const std::int64_t most = spec.global_shape[axis] - spec.shape[axis];
    const std::string where = " on axis " + std::to_string(axis);
    if (spec.offset[axis] < 0 || spec.offset[axis] > most) {
      throw Error({.expected = "a part inside global_shape" + where,
                   .found = "offset " + counted(spec.offset[axis], " and extent ") + std::to_string(spec.shape[axis])});
    }
    if (most > 0 && spec.split[axis] == 0) {
      throw Error({.expected = "the groups that split it" + where, .found = "none, although it is a part there"});
    }
    if ((seen & spec.split[axis]) != 0) {
      throw Error({.expected = "groups that split one axis each", .found = "one of another axis" + where});
    }
    seen |= spec.split[axis];
  }
}

ADAFACTOR_RARE ADAFACTOR_FUNCTION std::int64_t first_element(const LeafSpec& spec) {
  std::int64_t first = 0;
  for (std::size_t axis = 0; axis < spec.offset.size(); ++axis) {
    first = first * spec.global_shape[axis] + spec.offset[axis];
  }
  return first;
}

ADAFACTOR_RARE ADAFACTOR_FUNCTION void place_shared(LeafPlan& leaf, std::vector<SharedPiece>& pieces,
                                                    std::int64_t& count) {
  if (!leaf.is_cut()) return;
  const Layout& layout = leaf.layout;
  const SharedNumbers numbers = leaf.shared_numbers();
  leaf.shared = std::exchange(count, count + numbers.count());
  const auto share = [&](Round round, std::uint32_t groups, std::int64_t first, std::int64_t size) {
    if (groups != 0) pieces.push_back({round, groups, leaf.shared + first, size});
  };
  share(Round::sums, leaf.cuts.any(), numbers.totals(), SharedNumbers::kTotals);
  share(Round::squares, leaf.cuts.any(), numbers.squares(), SharedNumbers::kSquares);
  if (!layout.factored) return;
  share(Round::sums, leaf.cuts.inside_slices(), numbers.slice_squares(), layout.slices);
  share(Round::sums, leaf.cuts.rows, numbers.old_moments(), layout.slices);
  share(Round::sums, leaf.cuts.cols, numbers.row_sums(), layout.slices * layout.rows);
  share(Round::sums, leaf.cuts.rows, numbers.col_sums(), layout.slices * layout.cols);
}

}}  // namespace adafactor::ADAFACTOR_ABI

#endif  // ADAFACTOR_DEFINES_STEP
