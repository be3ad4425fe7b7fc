// The loops for one instruction set. The build compiles this file once for each, with that instruction set's flags:
// ADAFACTOR_CPU_NAME is what people call it, ADAFACTOR_ISA_TAG the namespace of its loops and the name of its table.
//
// An inline function or a template with external linkage that two of these objects hold is one symbol to the linker,
// which keeps either: a CPU would run instructions that it does not have, or lose those that it has. So the loops stand
// in a namespace of their own for each object, and what they share with others is data without functions that become
// symbols.
#include "adafactor/cpu/table.hpp"
#include "dispatch.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI { namespace cpu {

#if defined(__GNUC__) && !defined(__clang__)
[[gnu::externally_visible]]  // -fwhole-program says that nobody needs what this object holds
#endif
extern const KernelTable ADAFACTOR_ISA_TAG;
constexpr KernelTable ADAFACTOR_ISA_TAG = make_kernel_table(ADAFACTOR_CPU_NAME);

}}}  // namespace adafactor::ADAFACTOR_ABI::cpu
