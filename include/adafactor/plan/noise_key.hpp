// What tells the noise of one leaf from that of others, and one seed from another.
#pragma once

#include <cstdint>
#include <string_view>

#include "adafactor/compiler/abi.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI {

// The key of a leaf's noise; philox.hpp says of what it is made.
inline std::uint64_t noise_key(std::string_view path, std::uint64_t seed) {
  std::uint64_t hash = 0xcbf29ce484222325U;
  for (const char byte : path) hash = (hash ^ static_cast<unsigned char>(byte)) * 0x100000001b3U;
  std::uint64_t mixed = (seed ^ (seed >> 30)) * 0xbf58476d1ce4e5b9U;
  mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebU;
  return hash ^ mixed ^ (mixed >> 31);
}

}}  // namespace adafactor::ADAFACTOR_ABI
