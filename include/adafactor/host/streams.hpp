// What a machine does where a stream that is read comes to the end of a page of 4 KB.
#pragma once

#include <string>

#include "adafactor/compiler/abi.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI { namespace detail {

// Whether a loop that waits for memory alone is faster if it asks for each page before it comes to it. AMD's CPUs look
// up where the page lies no sooner than they are told, which is up to a quarter of the time on one thread, a tenth on
// two; but if pages are larger than that, asking costs them up to a tenth.
ADAFACTOR_FUNCTION bool asks_for_pages();

// Whether Linux gives large arrays pages of 2 MB that nobody asked for; it says so in a file, which lies under `root`:
// "" for this machine.
ADAFACTOR_FUNCTION bool gives_large_pages(const std::string& root);

}}}  // namespace adafactor::ADAFACTOR_ABI::detail

#if ADAFACTOR_DEFINES_STEP

#include "adafactor/host/files.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI { namespace detail {

ADAFACTOR_FUNCTION bool gives_large_pages(const std::string& root) {
  return text_of(root + "/sys/kernel/mm/transparent_hugepage/enabled").find("[always]") != std::string::npos;
}

ADAFACTOR_FUNCTION bool asks_for_pages() {
#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))
  return __builtin_cpu_is("amd") && !gives_large_pages("");
#else
  return false;
#endif
}

}}}  // namespace adafactor::ADAFACTOR_ABI::detail

#endif  // ADAFACTOR_DEFINES_STEP
