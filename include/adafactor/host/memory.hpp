// Memory that is zero when it is given out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

#include "adafactor/compiler/abi.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI { namespace detail {

// What somebody keeps for whoever made it, without knowing what it is.
struct Kept {
  Kept() = default;
  virtual ~Kept() = default;
  Kept(const Kept&) = delete;
  Kept& operator=(const Kept&) = delete;
};

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};
using Bytes = std::unique_ptr<std::byte, Free>;

// Zeroed by calloc, which leaves large pages untouched until somebody writes them.
inline Bytes allocate_zeros(std::int64_t nbytes) {
  if (nbytes == 0) return {};
  auto* memory = static_cast<std::byte*>(std::calloc(static_cast<std::size_t>(nbytes), 1));
  if (!memory) throw std::bad_alloc();
  return Bytes(memory);
}

}}}  // namespace adafactor::ADAFACTOR_ABI::detail
