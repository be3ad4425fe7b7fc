// The choice between the instruction sets of this build: what each asks of the machine, and the name that overrides.
#include "dispatch.hpp"

#include <cstdlib>
#include <string>
#include <string_view>

#include "adafactor/cpu/backend.hpp"
#include "adafactor/cpu/kernel_check.hpp"
#include "adafactor/error.hpp"

#if defined(__x86_64__) && defined(__GNUC__)
#include <cpuid.h>
#endif

namespace adafactor { inline namespace ADAFACTOR_ABI {

namespace cpu {

// The flags of each object are in CMakeLists.txt; what they allow is what is asked of the machine here.
#if defined(__x86_64__) && defined(__GNUC__)

// Not every compiler's builtin knows the name. The system's part is that of AVX2.
bool has_f16c() {
  unsigned int a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

std::vector<const KernelTable*> usable_kernels() {
  std::vector<const KernelTable*> usable;
  const bool has_v2 =
      __builtin_cpu_supports("ssse3") && __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("popcnt");
  if (!has_v2) return usable;
  usable.push_back(&x86_64_v2);
  const bool has_v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2") && has_f16c();
  if (!has_v3) return usable;
  usable.push_back(&x86_64_v3);
  const bool has_v4 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (has_v4) usable.push_back(&x86_64_v4);
  return usable;
}

#elif defined(__aarch64__) && defined(__GNUC__)

std::vector<const KernelTable*> usable_kernels() { return {&neon}; }

#else

std::vector<const KernelTable*> usable_kernels() { return {&generic}; }

#endif

namespace {

std::string names_of(const std::vector<const KernelTable*>& usable) {
  std::string names;
  for (const KernelTable* kernels : usable) names += (names.empty() ? "'" : ", '") + std::string(kernels->isa) + "'";
  return names.empty() ? "a CPU with SSE4.2" : names;
}

const KernelTable& choose(const char* wanted) {
  const std::vector<const KernelTable*> usable = usable_kernels();
  if ((!wanted || !*wanted) && !usable.empty()) return *usable.back();
  for (const KernelTable* kernels : usable) {
    if (std::string_view(kernels->isa) == wanted) return *kernels;
  }
  throw Error({.knob = "ADAFACTOR_ISA",
               .expected = "an instruction set that this build has and this machine can run: " + names_of(usable),
               .found = wanted ? "'" + std::string(wanted) + "'" : "a CPU without any"});
}

}  // namespace

}  // namespace cpu

// The kernels of the instruction set that the environment variable ADAFACTOR_ISA named when this was first called, else
// the fastest. Throws Error where the variable names none that this machine can run, at every call.
ADAFACTOR_FUNCTION const KernelTable& compiled_kernels() {
  static const KernelTable& chosen = checked_kernels(cpu::choose(std::getenv("ADAFACTOR_ISA")));
  return chosen;
}

ADAFACTOR_FUNCTION const Backend& cpu_backend() {
  // It is never destroyed, since a program may end while a thread of its own is in a step.
  static const Backend& backend = *new CpuBackend(compiled_kernels());
  return backend;
}

}}  // namespace adafactor::ADAFACTOR_ABI
