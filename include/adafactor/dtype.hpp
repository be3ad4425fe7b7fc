// The storage types of arrays, one row each. The loops compute in float (of all that is narrower too) or double.
//
// A new type is an enumerator, an element, a row, and in lanes/formats.hpp how its bits become a float and back.
#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "adafactor/compiler/abi.hpp"

namespace adafactor { inline namespace ADAFACTOR_DATA {

// The upper half of a float32: 8 bits of exponent, 7 of fraction.
struct Bfloat16 {
  std::uint16_t bits;
};

// IEEE's half precision: 5 bits of exponent, 10 of fraction; the largest number is 65504.
struct Float16 {
  std::uint16_t bits;
};

// How numbers are stored.
enum class DType : std::uint8_t { float32, float64, bfloat16, float16 };

// A list of types for templates.
template <class...>
struct TypeList {};

// What an element of each storage type is in C++, in the order of DType.
using Elements = TypeList<float, double, Bfloat16, Float16>;

// What is to be known of a storage type, beside its numbers.
struct DTypeTraits {
  const char* name;     // as users write it, and NumPy or ml_dtypes
  std::int64_t bytes;   // of one element
  DType arithmetic;     // what a leaf is computed in, and its state kept in but for small momentum
  double epsilon;       // the difference between 1 and the next number
  char letter;          // NumPy's, also in formats of buffers; 0: they have none, and its bits travel as whole numbers
  std::uint8_t dlpack;  // DLPack's code of such numbers
};

// The row of a type.
ADAFACTOR_ALWAYS_INLINE constexpr DTypeTraits traits_of(DType dtype) {
  switch (dtype) {
    case DType::float32:
      return {"float32", 4, DType::float32, 0x1p-23, 'f', 2};
    case DType::float64:
      return {"float64", 8, DType::float64, 0x1p-52, 'd', 2};
    case DType::bfloat16:
      return {"bfloat16", 2, DType::float32, 0x1p-7, 0, 4};
    case DType::float16:
      return {"float16", 2, DType::float32, 0x1p-10, 'e', 2};
  }
  return {"unknown", 0, dtype, 0, 0, 0};
}

namespace dtype_detail {

template <class... S>
consteval std::array<DType, sizeof...(S)> dtypes_of(TypeList<S...>) {
  std::array<DType, sizeof...(S)> all{};
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<DType>(i);
  return all;
}

template <class T, class... S>
consteval std::size_t place_in(TypeList<S...>) {
  std::size_t place = 0;
  (void)((std::same_as<T, S> || (++place, false)) || ...);
  return place;
}

template <class... S>
consteval bool have_their_sizes(TypeList<S...> list) {
  return ((traits_of(static_cast<DType>(place_in<S>(list))).bytes == sizeof(S)) && ...);
}
static_assert(have_their_sizes(Elements{}));

}  // namespace dtype_detail

// All of them.
inline constexpr auto kDTypes = dtype_detail::dtypes_of(Elements{});

// The element types that a parameter may have.
template <class T>
concept Element = dtype_detail::place_in<T>(Elements{}) < kDTypes.size();

// The storage type of an element.
template <class T>
  requires Element<std::remove_const_t<T>>
inline constexpr DType dtype_of = static_cast<DType>(dtype_detail::place_in<std::remove_const_t<T>>(Elements{}));

// Bytes of one element.
ADAFACTOR_ALWAYS_INLINE constexpr std::int64_t item_size(DType dtype) { return traits_of(dtype).bytes; }

// The type as NumPy calls it.
ADAFACTOR_ALWAYS_INLINE constexpr const char* name(DType dtype) { return traits_of(dtype).name; }

// What a leaf of parameters stored so is computed in, and its state kept in but for small momentum.
ADAFACTOR_ALWAYS_INLINE constexpr DType arithmetic_of(DType dtype) { return traits_of(dtype).arithmetic; }

// Whether numbers are rounded when they are stored.
ADAFACTOR_ALWAYS_INLINE constexpr bool rounds(DType dtype) {
  return item_size(dtype) < item_size(arithmetic_of(dtype));
}

// The difference between 1 and the next number: what `epsilon_1 = None` stands for.
ADAFACTOR_ALWAYS_INLINE constexpr double machine_epsilon(DType dtype) { return traits_of(dtype).epsilon; }

// Some of the storage types.
struct DTypes {
  std::uint32_t bits;  // that of each which is among them

  ADAFACTOR_ALWAYS_INLINE constexpr bool contains(DType dtype) const {
    return ((bits >> static_cast<unsigned>(dtype)) & 1U) != 0;
  }
};

// One alone.
ADAFACTOR_ALWAYS_INLINE constexpr DTypes only(DType dtype) { return {1U << static_cast<unsigned>(dtype)}; }

// All types that parameters may have.
inline constexpr DTypes kParameterTypes{(1U << kDTypes.size()) - 1};

namespace dtype_detail {

consteval DTypes computed_in(DType arithmetic) {
  DTypes dtypes{0};
  for (std::size_t i = 0; i < kDTypes.size(); ++i) {
    const auto dtype = static_cast<DType>(i);
    if (arithmetic_of(dtype) == arithmetic) dtypes.bits |= only(dtype).bits;
  }
  return dtypes;
}

}  // namespace dtype_detail

// The types of the gradients that a leaf of parameters of one type takes: what is computed in float32 goes together in
// any pairing.
ADAFACTOR_ALWAYS_INLINE constexpr DTypes gradients_of(DType parameter) {
  return arithmetic_of(parameter) == DType::float64 ? dtype_detail::computed_in(DType::float64)
                                                    : dtype_detail::computed_in(DType::float32);
}

// Whether a leaf of parameters of one type takes gradients of another.
ADAFACTOR_ALWAYS_INLINE constexpr bool takes_gradient(DType parameter, DType gradient) {
  return gradients_of(parameter).contains(gradient);
}

}}  // namespace adafactor::ADAFACTOR_DATA
