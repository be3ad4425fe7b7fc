// The seam for a device: phases over leaves. What they find (sums, clipping factors, whether the call is skipped) stays
// in the workspace, where the next phase reads it; the orchestration never looks.
#pragma once

#include <cstdint>

#include "adafactor/compiler/abi.hpp"
#include "adafactor/plan/tile.hpp"
#include "adafactor/step/phase.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI {

// workspace.hpp.
class Workspace;

// plan.hpp.
class Plan;

// What a device does for a call; none of it allocates, or throws unless the device itself fails.
class Backend {
 public:
  virtual ~Backend() = default;
  // The bytes of scratch that it keeps with a workspace of this plan, on any machine and for any number of threads.
  virtual std::int64_t scratch_nbytes(const Plan& plan) const = 0;
  // The bytes that it keeps on the device.
  virtual std::int64_t device_nbytes(const Plan&) const { return 0; }
  // Makes what lies there, once, when the workspace is new.
  virtual void prepare(Workspace& workspace) const = 0;
  // Some phases of some leaves, each phase with the decision that follows it. Nothing of the caller's, and nothing of
  // the state, is written before `apply`, and where the plan looks first, nothing before the verdict. It may return
  // before they are done; they are done in the order of the runs.
  virtual void run(Workspace& workspace, Phases phases, Indices leaves) const = 0;
  // Copies some bytes of a state, where nothing else is to be done.
  virtual void copy(void* to, const void* from, std::int64_t nbytes) const = 0;
  // Asks for what the runs so far find to be brought to the workspace: `finish` then waits for them, and for nothing
  // that somebody else gives the device meanwhile.
  virtual void collect(Workspace&) const {}
  // Returns when all runs are done, and what they found can be read in the workspace. A step asks for it at its end,
  // and before the parts of a leaf tell each other their sums or squares: these, and what follows from them, it writes
  // into the workspace for the next run.
  virtual void finish(Workspace& workspace) const = 0;
};

}}  // namespace adafactor::ADAFACTOR_ABI
