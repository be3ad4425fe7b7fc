// The seam for a device: phases over leaves. What they find (sums, clipping factors, whether the call is skipped) stays
// in the workspace, where the next phase reads it; the orchestration never looks.
#pragma once

#include "adafactor/compiler/abi.hpp"
#include "adafactor/plan/tile.hpp"
#include "adafactor/step/phase.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI {

// workspace.hpp.
class Workspace;

// What a device does for a call; none of it throws, but for memory that it makes at the first call of a workspace.
class Backend {
 public:
  virtual ~Backend() = default;
  // Some phases of some leaves, each phase with the decision that follows it. Nothing of the caller's, and nothing of
  // the state, is written before `apply`, and where the plan looks first, nothing before the verdict.
  virtual void run(Workspace& workspace, Phases phases, Indices leaves) const = 0;
  // Returns when what the phases found can be read in the workspace.
  virtual void finish(Workspace& workspace) const = 0;
};

}}  // namespace adafactor::ADAFACTOR_ABI
