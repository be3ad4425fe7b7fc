// Memory that is zero when it is given out, and how one block of it is cut into arrays.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <span>
#include <type_traits>
#include <utility>

#include "adafactor/compiler/abi.hpp"
#include "adafactor/host/pages.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI { namespace detail {

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

// Room for one T.
template <class T>
struct Place {
  alignas(T) std::byte bytes[sizeof(T)];
};

// Cuts a block of memory, wherever it lies, into arrays that follow each other. Without a block it makes none and
// counts what they take, so that who sizes a block and who fills it are the same lines. Nobody destroys what is made.
class Pieces {
 public:
  Pieces() = default;
  explicit Pieces(std::byte* block) : first_(block + line_after(block)) {}

  // So many elements, made as `T` makes itself: plain numbers are left as they are.
  template <class T>
  std::span<T> take(std::int64_t count) {
    static_assert(std::is_trivially_destructible_v<T>, "nobody destroys what lies in a block");
    auto* elements = reinterpret_cast<T*>(take_bytes(count * static_cast<std::int64_t>(sizeof(T)), alignof(T)));
    if (!elements) return {};
    for (std::int64_t i = 0; i < count; ++i) new (elements + i) T;
    return {elements, static_cast<std::size_t>(count)};
  }

  // Bytes that begin at a line of the cache.
  std::span<std::byte> take_lines(std::int64_t nbytes) {
    std::byte* bytes = take_bytes(nbytes, kLineBytes);
    return {bytes, bytes ? static_cast<std::size_t>(nbytes) : 0};
  }

  bool only_counts() const { return !first_; }
  // What a block of all that was taken needs, wherever it lies.
  std::int64_t nbytes() const { return used_ + kLineBytes - 1; }

 private:
  static std::int64_t line_after(const std::byte* place) {
    return static_cast<std::int64_t>(-reinterpret_cast<std::uintptr_t>(place) % kLineBytes);
  }
  // Where they begin; null where they are only counted.
  std::byte* take_bytes(std::int64_t nbytes, std::int64_t alignment) {
    const std::int64_t place = (used_ + alignment - 1) / alignment * alignment;
    used_ = place + nbytes;
    return first_ ? first_ + place : nullptr;
  }

  std::byte* first_ = nullptr;
  std::int64_t used_ = 0;
};

// The bytes of a T and of all that it takes; its constructor's last argument is where it takes them from.
template <class T, class... Arguments>
std::int64_t nbytes_of(const Arguments&... arguments) {
  Pieces pieces;
  pieces.take<Place<T>>(1);
  T(arguments..., pieces);
  return pieces.nbytes();
}

// Makes a T at the beginning of such a block.
template <class T, class... Arguments>
T* make_in(std::byte* block, const Arguments&... arguments) {
  Pieces pieces(block);
  return new (pieces.take<Place<T>>(1).data()) T(arguments..., pieces);
}

// A list that grows in memory which has room for it.
template <class T>
class List {
 public:
  List() = default;
  explicit List(std::span<T> room) : first_(room.data()) {}

  void push_back(const T& element) { first_[size_++] = element; }
  void clear() { size_ = 0; }
  T& back() { return first_[size_ - 1]; }
  std::int64_t size() const { return size_; }
  std::span<const T> all() const { return {first_, static_cast<std::size_t>(size_)}; }
  T& operator[](std::int64_t index) { return first_[index]; }
  const T& operator[](std::int64_t index) const { return first_[index]; }

 private:
  T* first_ = nullptr;
  std::int64_t size_ = 0;
};

}}}  // namespace adafactor::ADAFACTOR_ABI::detail
