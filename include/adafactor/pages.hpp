// Where scratch lies beside the caller's arrays. Many CPUs hold a load back behind earlier stores whose addresses end
// in the same twelve bits. In rows of whole pages that may be so at every element: a tenth of a step, by chance.
#pragma once

#include <cstdint>

#include "adafactor/abi.hpp"

namespace adafactor::inline ADAFACTOR_DATA {

inline constexpr std::int64_t kPageBytes = 4096;
inline constexpr std::int64_t kLineBytes = 64;
template <class Item>
inline constexpr std::int64_t kPageItems = kPageBytes / static_cast<std::int64_t>(sizeof(Item));

// How many items into a room, by lines of the cache and less than a page, its places lie half a page from those of an
// array.
template <class Item>
ADAFACTOR_ALWAYS_INLINE std::int64_t items_apart(const Item* room, const void* array) {
  const auto distance = reinterpret_cast<std::uintptr_t>(array) - reinterpret_cast<std::uintptr_t>(room);
  const auto bytes = static_cast<std::int64_t>((distance + kPageBytes / 2) % kPageBytes);
  return bytes / kLineBytes * (kLineBytes / static_cast<std::int64_t>(sizeof(Item)));
}

}  // namespace adafactor::inline ADAFACTOR_DATA
