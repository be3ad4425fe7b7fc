// Memory that a test hands out, with more of it around that nobody may touch.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace guarded {

// As a number of any type it is NaN, or nearly the largest.
inline constexpr std::byte kPoison{0xff};

// So many bytes, poisoned like those around them, which begin `shift` bytes after a line of the cache.
class Memory {
 public:
  explicit Memory(std::int64_t nbytes, std::size_t shift = 0)
      : nbytes_(static_cast<std::size_t>(nbytes)), memory_(nbytes_ + 3 * kAround, kPoison) {
    const auto address = reinterpret_cast<std::uintptr_t>(memory_.data());
    first_ = kAround + (kAround - address % kAround) % kAround + shift;
  }

  std::span<std::byte> bytes() { return std::span(memory_).subspan(first_, nbytes_); }
  std::byte* data() { return memory_.data() + first_; }
  const std::byte* data() const { return memory_.data() + first_; }
  void fill(std::byte value) { std::ranges::fill(bytes(), value); }

  // Whether nothing around it was written.
  bool is_intact() const {
    const auto poisoned = [](std::byte byte) { return byte == kPoison; };
    const auto end = memory_.begin() + static_cast<std::ptrdiff_t>(first_ + nbytes_);
    return std::all_of(memory_.begin(), memory_.begin() + static_cast<std::ptrdiff_t>(first_), poisoned) &&
           std::all_of(end, memory_.end(), poisoned);
  }

 private:
  static constexpr std::size_t kAround = 128;

  std::size_t nbytes_;
  std::vector<std::byte> memory_;
  std::size_t first_ = 0;
};

}  // namespace guarded
