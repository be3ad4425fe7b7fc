// What numbers are stored as, and which of it loops read and write where it lies; the rest goes through a buffer.
//
// One loop for each arithmetic is enough for the numbers. Others, of special cases, are faster there, and each takes as
// long to compile as the first: whoever includes the headers alone, and compiles them in every file, has those of
// float32 where there is nothing but the step; a program that compiles them once has all.
#pragma once

#include <concepts>

#include "adafactor/compiler/abi.hpp"
#include "adafactor/dtype.hpp"

namespace adafactor { inline namespace ADAFACTOR_LOOPS {

// Whether special cases in T have loops of their own: narrower formats, gradient links, short rows, slices of known
// shapes. In double, which is seldom, none has.
template <class T>
inline constexpr bool kSpecialLoops = ADAFACTOR_COMPILED_ONCE && sizeof(T) == sizeof(float);

// Whether the loops in T that go on with the update make it themselves. Otherwise it goes through a buffer to them.
template <class T>
inline constexpr bool kFusesUpdate = ADAFACTOR_COMPILED_ONCE || sizeof(T) == sizeof(float);

// What stands for an element as an argument of a body.
template <class S>
struct Storage {
  using type = S;
  static constexpr DType dtype = dtype_of<S>;
};

namespace loop_detail {

// Calls the body where numbers of T are stored as S, and not as T itself.
template <class T, class S, class Body>
ADAFACTOR_INLINE bool try_storage(DType dtype, const Body& body) {
  if constexpr (!std::same_as<S, T> && arithmetic_of(dtype_of<S>) == dtype_of<T>) {
    if (dtype != dtype_of<S>) return false;
    body(Storage<S>{});
    return true;
  } else {
    return false;
  }
}

template <class T, class Body, class... S>
ADAFACTOR_INLINE void with_storage_of(TypeList<S...>, DType dtype, const Body& body) {
  if (!(try_storage<T, S>(dtype, body) || ...)) body(Storage<T>{});
}

}  // namespace loop_detail

// Calls body(Storage<S>{}), where S is how the numbers are stored that become numbers of T, or are made of them.
template <class T, class Body>
ADAFACTOR_INLINE void with_storage(DType dtype, const Body& body) {
  loop_detail::with_storage_of<T>(Elements{}, dtype, body);
}

// What with_storage() does for loops, which read and write some types as they are stored and see the others as T.
template <class T>
constexpr bool has_loops(DType dtype) {
  return kSpecialLoops<T> || dtype == dtype_of<T>;
}
template <class T, class Body>
ADAFACTOR_INLINE void with_loops(DType dtype, const Body& body) {
  if constexpr (kSpecialLoops<T>) {
    with_storage<T>(dtype, body);
  } else {
    body(Storage<T>{});
  }
}

// The types that are worth every loop.
constexpr bool is_common(DType dtype) { return dtype == DType::float32 || dtype == DType::bfloat16; }

// What with_loops() does, for common types alone: of another one the body is not called.
template <class T, class Body>
ADAFACTOR_INLINE void with_common_loops(DType dtype, const Body& body) {
  with_loops<T>(dtype, [&](auto storage) {
    if constexpr (is_common(decltype(storage)::dtype)) body(storage);
  });
}

// Whether every loop reads a gradient and a parameter as they are stored: both in one type, or in common ones. Other
// pairs have such a loop where it matters alone: in `apply` where there are no links.
constexpr bool has_all_loops(DType gradient, DType parameter) {
  return gradient == parameter || (is_common(gradient) && is_common(parameter));
}

// Whether loops in T read a gradient through its links where it lies.
template <class T>
constexpr bool loops_read_links(DType gradient) {
  return kSpecialLoops<T> && is_common(gradient);
}

}}  // namespace adafactor::ADAFACTOR_LOOPS
