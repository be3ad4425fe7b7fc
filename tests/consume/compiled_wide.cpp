// The same from a file for a newer CPU, on an optimizer that another file has made.
#include "digest.hpp"

std::uint64_t compiled_wide_digest(adafactor::Optimizer& optimizer);  // main.cpp says the same
std::uint64_t compiled_wide_digest(adafactor::Optimizer& optimizer) { return digest_of_steps(optimizer); }
