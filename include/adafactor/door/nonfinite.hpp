// What is said of a call that changed nothing because something was not finite.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "adafactor/error.hpp"
#include "adafactor/state.hpp"
#include "adafactor/step/report.hpp"
#include "adafactor/tensor.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI {

// Whether it is the gradient of a leaf that a call found not to be finite, or else its parameter or its state.
ADAFACTOR_FUNCTION Role role_of_nonfinite(const Stepper& stepper, std::size_t leaf);

// Throws Error{nonfinite} for that array of a leaf, after a call of the stepper that changed nothing. `found` is what
// nonfinite_text() says of the array, where there is one.
[[noreturn]] ADAFACTOR_FUNCTION void refuse_nonfinite(const Stepper& stepper, std::size_t leaf, std::string found);

}}  // namespace adafactor::ADAFACTOR_ABI

#if ADAFACTOR_DEFINES_STEP

#include <cmath>

namespace adafactor { inline namespace ADAFACTOR_ABI {

ADAFACTOR_FUNCTION Role role_of_nonfinite(const Stepper& stepper, std::size_t leaf) {
  return std::isfinite(report(stepper, leaf, false).grad_norm) ? Role::params : Role::grads;
}

ADAFACTOR_RARE ADAFACTOR_FUNCTION void refuse_nonfinite(const Stepper& stepper, std::size_t leaf, std::string found) {
  const Role role = role_of_nonfinite(stepper, leaf);
  if (found.empty() && stepper.plan().leaves()[leaf].is_cut()) {
    found = "finite, but not so in another part of it";
  } else if (found.empty()) {
    found = role == Role::grads
                ? "finite, but the sum of the squares of what the step uses overflows"
                : "finite, but the sum of its squares overflows, or a moment in the state is not finite";
  }
  std::int64_t more = -1;
  for (std::size_t i = 0; i < stepper.plan().leaves().size(); ++i) more += report(stepper, i, false).nonfinite;
  if (more > 0) found += ", and " + counted(more, more == 1 ? " more leaf" : " more leaves");
  throw Error({.kind = ErrorKind::nonfinite,
               .role = name(role),
               .leaf = static_cast<std::int64_t>(leaf),
               .found = found + "; nothing was changed; on_nonfinite=\"skip\" skips such a call, \"propagate\" lets it "
                                "through"});
}

}}  // namespace adafactor::ADAFACTOR_ABI

#endif  // ADAFACTOR_DEFINES_STEP
