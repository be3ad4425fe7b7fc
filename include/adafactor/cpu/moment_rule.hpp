// How the moments of a leaf are made, and M of them.
#pragma once

#include "adafactor/cpu/runs/formulas.hpp"
#include "adafactor/step/leaf.hpp"

#include "adafactor/compiler/exact_begin.hpp"

namespace adafactor { inline namespace ADAFACTOR_LOOPS {

// By which numbers the moments of a leaf are made.
ADAFACTOR_DEVICE inline MomentRule moment_rule(const Leaf& leaf) {
  return {leaf.rule.beta_2, leaf.rule.one_minus_beta_2, leaf.found.norm_factor * leaf.found.norm_factor,
          leaf.rule.clamps ? 0 : leaf.rule.epsilon_1};
}

// M of a slice, the mean of its new R, from the means of the old ones and of G^2: whoever has a part of a slice knows
// its M as soon as these two are added up, before there is a new R. Of one slice or of sixteen.
template <class Numbers>
ADAFACTOR_INLINE Numbers mean_moment(const Leaf& leaf, const MomentRule& rule, const Numbers& old,
                                     const Numbers& mean) {
  return larger(next_moment(rule, old, mean), leaf.rule.clamps ? leaf.rule.epsilon_1 : 0.0);
}

}}  // namespace adafactor::ADAFACTOR_LOOPS

#include "adafactor/compiler/exact_end.hpp"
