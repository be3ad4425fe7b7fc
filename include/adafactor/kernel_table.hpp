// The seam for an instruction set: one function a phase, for one tile, in float and in double. A header-only user gets
// the table that his own flags make; a build for several instruction sets compiles this file once for each.
//
// The functions take a tile, not a run: a call for each row costs more than three columns do, and a reader finds the
// walk over a tile beside the loop that it feeds.
#pragma once

#include "adafactor/dtype.hpp"
#include "adafactor/phases/apply.hpp"
#include "adafactor/phases/factors.hpp"
#include "adafactor/phases/moments.hpp"
#include "adafactor/phases/rms.hpp"

namespace adafactor::inline ADAFACTOR_ABI {

// The phases of one tile for one arithmetic. The sums that are read are those of the leaf's tiles, those that are
// written the tile's own.
struct Kernels {
  void (*moments)(const Leaf&, const Tile&, TileSums&);
  void (*means)(const Leaf&, const Tile&);
  void (*new_moments)(const Leaf&, const Tile&, TileSums&);
  void (*rms)(const Leaf&, const Tile&, const TileSums*, TileSums&);
  void (*apply)(const Leaf&, const Tile&, const TileSums*);
  void (*accumulate)(const Leaf&, const Tile&);
};

// What was compiled for one instruction set.
struct KernelTable {
  const char* isa;
  Kernels float32;
  Kernels float64;

  const Kernels& of(DType arithmetic) const { return arithmetic == DType::float64 ? float64 : float32; }
};

// The functions of the phases for T, as the including file's flags compile them.
template <class T>
constexpr Kernels make_kernels() {
  return {moments_of_tile<T>, means_of_tile<T>, new_moments_of_tile<T>,
          rms_of_tile<T>,     apply_to_tile<T>, accumulate_tile<T>};
}

// The same of both arithmetics, under the name of an instruction set.
constexpr KernelTable make_kernel_table(const char* isa) {
  return {isa, make_kernels<float>(), make_kernels<double>()};
}

#define ADAFACTOR_STRING(text) #text
#define ADAFACTOR_EXPAND_STRING(text) ADAFACTOR_STRING(text)

// The kernels as this file's own flags compile them.
inline const KernelTable& compiled_kernels() {
  static constexpr KernelTable table = make_kernel_table(ADAFACTOR_EXPAND_STRING(ADAFACTOR_ISA_TAG));
  return table;
}

}  // namespace adafactor::inline ADAFACTOR_ABI
