// What the parts of a leaf tell each other between the phases of a step: sums, in one flat buffer for each group of
// parts. A number that several groups share goes through them one after the other, so a buffer is filled when it is
// asked for.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "adafactor/plan.hpp"
#include "adafactor/plan/parts.hpp"
#include "adafactor/step/leaf.hpp"

#include "adafactor/compiler/exact_begin.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI { namespace detail {

// The numbers of one call that parts add up.
class Exchange {
 public:
  // `shared` has the numbers of all leaves, `buffers` room for those of each group.
  Exchange(const Plan& plan, std::span<const Leaf> leaves, std::span<double> shared, std::span<double> buffers)
      : plan_(plan), leaves_(leaves), shared_(shared), buffers_(buffers) {
    std::fill(shared_.begin(), shared_.end(), 0.0);
  }

  // The buffer of a group, filled with what the groups before it have added up. Whoever asks for it writes into it what
  // all parts of the group have together.
  std::span<double> fill(Round round, int group) {
    if (group == 0) collect(round);
    round_ = round;
    group_ = group;
    double* const begin = begin_of(group);
    double* end = begin;
    for_pieces([&](std::span<double> numbers) { end = std::copy(numbers.begin(), numbers.end(), end); });
    return {begin, static_cast<std::size_t>(end - begin)};
  }

  // Takes back the last buffer that was filled. Returns whether it was that of the last group.
  bool settle() {
    if (group_ < 0) return false;
    const double* next = begin_of(group_);
    for_pieces([&](std::span<double> numbers) {
      std::copy_n(next, numbers.size(), numbers.begin());
      next += numbers.size();
    });
    const bool is_last = group_ + 1 == plan_.groups();
    group_ = -1;
    return is_last;
  }

 private:
  // There are fewer squares than sums.
  double* begin_of(int group) const {
    double* begin = buffers_.data();
    for (int earlier = 0; earlier < group; ++earlier) begin += plan_.shared_count(Round::sums, earlier);
    return begin;
  }

  // Calls body(numbers) for those of a group, in the order of the plan.
  template <class Body>
  void for_pieces(const Body& body) {
    for (const SharedPiece& piece : plan_.shared()) {
      if (piece.round != round_ || !piece.goes_to(group_)) continue;
      body(shared_.subspan(static_cast<std::size_t>(piece.first), static_cast<std::size_t>(piece.count)));
    }
  }

  // What the phases have found goes among the numbers; the sums by row and column lie there already.
  void collect(Round round) {
    for (const Leaf& leaf : leaves_) {
      if (!leaf.is_part()) continue;
      if (round == Round::sums) {
        double* totals = leaf.at.shared + leaf.shared().totals();
        totals[0] = leaf.in_verdict() ? leaf.found.gradient_squares : 0;
        // A part without elements follows the others; where none has any, all of them do what one does.
        const bool has_a_say = leaf.shape.size() > 0 || leaf.shape.whole_size == 0;
        totals[1] = has_a_say && leaf.at.gradient.data ? 1 : 0;
        totals[2] = has_a_say ? 1 : 0;
      } else {
        double* squares = leaf.at.shared + leaf.shared().squares();
        squares[0] = leaf.measures() ? leaf.found.update_squares : 0;
        squares[1] = leaf.measures() ? leaf.found.parameter_squares : 0;
      }
    }
  }

  const Plan& plan_;
  std::span<const Leaf> leaves_;
  std::span<double> shared_;
  std::span<double> buffers_;
  Round round_ = Round::sums;
  int group_ = -1;  // whose buffer is away
};

}}}  // namespace adafactor::ADAFACTOR_ABI::detail

#include "adafactor/compiler/exact_end.hpp"
