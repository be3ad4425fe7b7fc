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

// Whether special cases in T have loops of their own: numbers of 16 bits, gradient links, short rows, slices of known
// shapes. In double, which is seldom, none has.
template <class T>
inline constexpr bool kSpecialLoops = ADAFACTOR_COMPILED_ONCE && sizeof(T) == sizeof(float);

// Whether the loops in T that go on with the update make it themselves. Otherwise it goes through a buffer to them.
template <class T>
inline constexpr bool kFusesUpdate = ADAFACTOR_COMPILED_ONCE || sizeof(T) == sizeof(float);

// Calls body(Storage<S>{}), where S is how the numbers are stored that become numbers of T, or are made of them.
template <class S>
struct Storage {
  using type = S;
  static constexpr DType dtype = std::same_as<S, double>     ? DType::float64
                                 : std::same_as<S, Bfloat16> ? DType::bfloat16
                                 : std::same_as<S, Float16>  ? DType::float16
                                                             : DType::float32;
};
template <class T, class Body>
ADAFACTOR_INLINE void with_storage(DType dtype, const Body& body) {
  if constexpr (sizeof(T) == sizeof(double)) {
    body(Storage<double>{});
  } else if (dtype == DType::bfloat16) {
    body(Storage<Bfloat16>{});
  } else if (dtype == DType::float16) {
    body(Storage<Float16>{});
  } else {
    body(Storage<float>{});
  }
}

// The same where loops read and write them as they are stored.
template <class T>
constexpr bool has_loops(DType dtype) {
  return kSpecialLoops<T> || dtype == Storage<T>::dtype;
}
template <class T, class Body>
ADAFACTOR_INLINE void with_loops(DType dtype, const Body& body) {
  if constexpr (kSpecialLoops<T>) {
    with_storage<T>(dtype, body);
  } else {
    body(Storage<T>{});
  }
}

// Whether every loop reads a gradient and a parameter as they are stored: both in one type, or in float32 and bfloat16.
// Other pairs have such a loop where it matters alone: in `apply` where there are no links.
constexpr bool has_all_loops(DType gradient, DType parameter) {
  return gradient == parameter || (gradient != DType::float16 && parameter != DType::float16);
}

// Whether loops in T read a gradient through its links where it lies.
template <class T>
constexpr bool loops_read_links(DType gradient) {
  return kSpecialLoops<T> && gradient != DType::float16;
}

}}  // namespace adafactor::ADAFACTOR_LOOPS
