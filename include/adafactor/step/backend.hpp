// The seam for a device: what a call does to all leaves. What the phases find (sums, clipping factors, whether the step
// goes on) stays in the workspace, where the next phase reads it; the orchestration never looks.
#pragma once

#include "adafactor/compiler/abi.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI {

// What a device does for a call; none of it throws.
class Backend {
 public:
  virtual ~Backend() = default;
  // All phases. Nothing of the caller's is written before `apply`, and where the plan looks first, nothing before the
  // verdict.
  virtual void update() = 0;
  // All phases of an update but `apply`: nothing is written, and every leaf that could not be stepped is known.
  virtual void measure() = 0;
  // The end of a call that only adds its gradients up: finds the verdict of the sums so far, and stores them.
  virtual void accumulate() = 0;
  // `apply` for the leaves that keep their parameters: their averages, and outputs that are other arrays.
  virtual void keep() = 0;
};

}}  // namespace adafactor::ADAFACTOR_ABI
