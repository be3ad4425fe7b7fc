// The seam for an instruction set: one function a phase, for one tile, in float and in double. A header-only user gets
// the table that his own flags make (table.hpp); a build for several instruction sets compiles the loops once for each.
//
// The functions take a tile, not a run: a call for each row costs more than three columns do, and a reader finds the
// walk over a tile beside the loop that it feeds.
#pragma once

#include "adafactor/compiler/abi.hpp"
#include "adafactor/dtype.hpp"
#include "adafactor/step/call.hpp"
#include "adafactor/step/leaf.hpp"

namespace adafactor { inline namespace ADAFACTOR_DATA {

// The phases of one tile for one arithmetic. The sums that are read are those of the leaf's tiles, those that are
// written the tile's own.
struct Kernels {
  void (*moments)(const Leaf&, const Tile&, TileSums&);
  void (*means)(const Leaf&, const Tile&, const TileSums*);
  void (*factors)(const Leaf&, const Tile&, const TileSums*, TileSums&);
  void (*rms)(const Leaf&, const Tile&, TileSums&);
  void (*apply)(const Leaf&, const Tile&);
};

// What was compiled for one instruction set.
struct KernelTable {
  const char* isa;
  Kernels float32;
  Kernels float64;
  bool (*computes_as_written)();

  ADAFACTOR_ALWAYS_INLINE const Kernels& of(DType arithmetic) const {
    return arithmetic == DType::float64 ? float64 : float32;
  }
};

}}  // namespace adafactor::ADAFACTOR_DATA

namespace adafactor { inline namespace ADAFACTOR_ABI {

// The kernels that this file steps with: as its own flags compile them; with ADAFACTOR_COMPILED those of the program,
// of the best instruction set that the machine has. Throws Error where they do not compute as they are written.
ADAFACTOR_FUNCTION const KernelTable& compiled_kernels();

// This machine's cores with these kernels, for step(). Throws what compiled_kernels() throws.
ADAFACTOR_FUNCTION const Backend& cpu_backend();

}}  // namespace adafactor::ADAFACTOR_ABI
