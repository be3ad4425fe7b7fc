// Where scratch lies beside the caller's arrays. Many CPUs hold a load back behind earlier stores whose addresses end
// in the same twelve bits. In rows of whole pages that may be so at every element: a tenth of a step, by chance.
#pragma once

#include <cstdint>

#include "adafactor/compiler/abi.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI {

// What twelve bits tell apart.
inline constexpr std::int64_t kPageBytes = 4096;

// A line of the cache, on every CPU that matters.
inline constexpr std::int64_t kLineBytes = 64;

// How far into a room, by lines of the cache and less than a page, its places lie half a page from those of an array.
inline std::int64_t bytes_apart(const void* room, const void* array) {
  const auto distance = reinterpret_cast<std::uintptr_t>(array) - reinterpret_cast<std::uintptr_t>(room);
  return static_cast<std::int64_t>((distance + kPageBytes / 2) % kPageBytes) / kLineBytes * kLineBytes;
}

}}  // namespace adafactor::ADAFACTOR_ABI
