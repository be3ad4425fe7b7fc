// The formulas of the update rule, of one number or of sixteen at a time; the loops say of which.
#pragma once

#include "adafactor/lanes/numbers.hpp"

#include "adafactor/compiler/exact_begin.hpp"

namespace adafactor { inline namespace ADAFACTOR_LOOPS {

// What turns the means of g^2 into new moments.
struct MomentRule {
  double beta_2;
  double one_minus_beta_2;
  double square_scale;  // of the mean of g^2: the square of the factor of clipping by norm
  double epsilon;       // added to it
};

// beta2 old + (1 - beta2) (square_scale mean + epsilon).
template <class Numbers>
ADAFACTOR_INLINE Numbers next_moment(const MomentRule& rule, const Numbers& old, const Numbers& mean) {
  return rule.beta_2 * old + rule.one_minus_beta_2 * (rule.square_scale * mean + rule.epsilon);
}

// moment^-1/2, 0 where the moment is 0.
template <class Numbers>
ADAFACTOR_INLINE Numbers inverse_root(const Numbers& moment) {
  return where_nonzero(1.0 / square_root(moment), moment);
}

// (R / M)^-1/2, 0 where R is 0; a NaN stays one. Of each R, with the M of all or each with its own.
template <class Numbers, class Mean>
ADAFACTOR_INLINE Numbers row_factor(const Numbers& moment, const Mean& mean) {
  return where_nonzero(square_root(mean / moment), moment);
}

// The rule of an unfactored leaf.
template <class T>
struct FullRule {
  T gradient_scale;
  T beta_2;
  T one_minus_beta_2;
  T epsilon;  // added to g^2
  T floor;    // of the estimate under the root
};

// beta2 v + (1 - beta2) (x^2 + epsilon), where x is G.
template <class T, class Numbers>
ADAFACTOR_INLINE Numbers next_moment(const FullRule<T>& rule, const Numbers& old, const Numbers& x) {
  return rule.beta_2 * old + rule.one_minus_beta_2 * (x * x + rule.epsilon);
}

// x / sqrt(max(moment, floor)), 0 where that is 0.
template <class T, class Numbers>
ADAFACTOR_INLINE Numbers full_u(const FullRule<T>& rule, const Numbers& x, const Numbers& moment) {
  const Numbers estimate = larger(moment, rule.floor);
  return where_nonzero(x / square_root(estimate), estimate);
}

// momentum old + (1 - momentum) x.
template <class T>
class MovingMean {
 public:
  ADAFACTOR_INLINE explicit MovingMean(double momentum)
      : decay_(static_cast<T>(momentum)), gain_(static_cast<T>(1 - momentum)) {}

  template <class Numbers>
  ADAFACTOR_INLINE Numbers operator()(const Numbers& old, const Numbers& x) const {
    return decay_ * old + gain_ * x;
  }

 private:
  T decay_;
  T gain_;
};

// u + decay p: an update with weight decay.
template <class T, class Numbers>
ADAFACTOR_INLINE Numbers with_decay(const Numbers& p, const Numbers& u, T decay) {
  return u + decay * p;
}

// The new parameter, p - (u + decay p). Never p (1 - decay): 1 - decay loses what is below a unit of 1.
template <class T, class Numbers>
ADAFACTOR_INLINE Numbers decayed(const Numbers& p, const Numbers& u, T decay) {
  return p - with_decay(p, u, decay);
}

}}  // namespace adafactor::ADAFACTOR_LOOPS

#include "adafactor/compiler/exact_end.hpp"
