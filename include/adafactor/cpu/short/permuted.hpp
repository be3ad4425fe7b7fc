// Numbers that are few and lie close together, spread over many elements by the CPU's permutations: the factors of
// small slices, where each row or column of three serves three elements. The table of places is made once for a tile.
#pragma once

#include <cstddef>
#include <cstdint>

#include "adafactor/lanes/lanes.hpp"

#include "adafactor/compiler/exact_begin.hpp"

namespace adafactor { inline namespace ADAFACTOR_LOOPS {

// Whether this file's instruction set permutes the numbers of a register by places known at run time.
template <class T>
inline constexpr bool kPermutes =
#if ADAFACTOR_NATIVE_LANES && (defined(__AVX512F__) || defined(__AVX2__))
    sizeof(T) == 4;
#else
    false;
#endif

namespace loop_detail {

inline constexpr int kNearbyWidth = kRegisterBytes >= 64 ? 16 : 8;

template <class T>
ADAFACTOR_INLINE Group<T, 16> permute_group(const T* numbers, const std::int32_t* offset, const std::int32_t* place) {
  T permuted[kLanes];
  for (int i = 0; i < kLanes; ++i) permuted[i] = numbers[offset[i / kNearbyWidth] + place[i]];
  return load_group<T, 16>(permuted);
}

#if ADAFACTOR_NATIVE_LANES && defined(__AVX512F__)
ADAFACTOR_INLINE Group<float, 16> permute_group(const float* numbers, const std::int32_t* offset,
                                                const std::int32_t* place) {
  Group<float, 16> group;
  const __m512 nearby = _mm512_loadu_ps(numbers + offset[0]);
  group.value =
      reinterpret_cast<decltype(group.value)>(_mm512_maskz_permutexvar_ps(0xffff, _mm512_loadu_si512(place), nearby));
  return group;
}
#elif ADAFACTOR_NATIVE_LANES && defined(__AVX2__)
ADAFACTOR_INLINE Group<float, 8> permute_eight(const float* nearby, const std::int32_t* place) {
  __m256i places;
  std::memcpy(&places, place, sizeof places);
  Group<float, 8> group;
  group.value = reinterpret_cast<decltype(group.value)>(_mm256_permutevar8x32_ps(_mm256_loadu_ps(nearby), places));
  return group;
}
ADAFACTOR_INLINE Group<float, 16> permute_group(const float* numbers, const std::int32_t* offset,
                                                const std::int32_t* place) {
  return {permute_eight(numbers + offset[0], place), permute_eight(numbers + offset[1], place + 8)};
}
#endif

}  // namespace loop_detail

// Where the factors of sixteen neighbouring elements lie: for each register an offset, from which `width` numbers are
// read, and for each lane its place among these.
struct Nearby {
  static constexpr int width = loop_detail::kNearbyWidth;
  std::int32_t offset[kLanes / width];
  std::int32_t place[kLanes];

  // Finds the places for the elements first, first + 1, ..., where index(element) says which number each has. Returns
  // false where they lie too far apart.
  template <class Index>
  bool set(std::int32_t first, const Index& index) {
    for (int part = 0; part < kLanes / width; ++part) {
      std::int32_t least = index(first + part * width);
      for (int i = 1; i < width; ++i) {
        const std::int32_t at = index(first + part * width + i);
        if (at < least) least = at;
      }
      offset[part] = least;
      for (int i = 0; i < width; ++i) {
        const std::int32_t at = index(first + part * width + i) - least;
        if (at >= width) return false;
        place[part * width + i] = at;
      }
    }
    return true;
  }

  template <class T>
  ADAFACTOR_INLINE T read_one(const T* numbers, int lane) const {
    return numbers[offset[lane / width] + place[lane]];
  }

  // The numbers of sixteen elements; `width` numbers from each offset on can be read.
  template <class T>
  ADAFACTOR_INLINE Lanes<T> read(const T* numbers, Full) const {
    return {loop_detail::permute_group(numbers, offset, place)};
  }
  // Reads fewer, from a lane on.
  template <class T, int n>
  ADAFACTOR_INLINE Lanes<T, n> read(const T* numbers, int lane, Exactly<n> amount) const {
    T read[std::size_t{n}];
    for (int i = 0; i < n; ++i) read[i] = read_one(numbers, lane + i);
    return load<T>(read, amount);
  }
  template <class T>
  ADAFACTOR_INLINE Lanes<T> read(const T* numbers, Part part) const {
    T read[kLanes] = {};
    for (int i = 0; i < part.count; ++i) read[i] = read_one(numbers, i);
    return load<T>(read, Full{});
  }
};

// The rows and columns of the elements of up to a block of small slices.
class SmallSliceTable {
 public:
  // Whether it pays and can be done.
  bool make(std::int64_t slices, std::int64_t rows, std::int64_t cols) {
    constexpr std::int64_t worth = 16 * kBlock;
    if (slices * rows * cols < worth) return false;
    const auto c = static_cast<std::int32_t>(cols);
    const auto k = static_cast<std::int32_t>(rows * cols);
    for (std::int32_t i = 0; i < kBlock / kLanes; ++i) {
      Elements& elements = elements_[i];
      const auto row = [&](std::int32_t e) { return e / c; };
      const auto col = [&](std::int32_t e) { return e / k * c + e % c; };
      if (!elements.rows.set(i * kLanes, row) || !elements.cols.set(i * kLanes, col)) return false;
    }
    return true;
  }

  // U with the factors of the rows and columns from the block's first slice on.
  template <class T>
  struct U {
    const T* rows;
    const T* cols;
    const SmallSliceTable& table;

    template <class Numbers, class Amount>
    ADAFACTOR_INLINE Numbers operator()(const Numbers& g, std::int64_t i, Amount amount) const {
      const auto& elements = table.elements_[i / kLanes];
      return (g * elements.rows.read(rows, amount)) * elements.cols.read(cols, amount);
    }
    template <int n>
      requires(n < kLanes)
    ADAFACTOR_INLINE Lanes<T, n> operator()(const Lanes<T, n>& g, std::int64_t i, Exactly<n> amount) const {
      const auto& elements = table.elements_[i / kLanes];
      const auto lane = static_cast<int>(i % kLanes);
      return (g * elements.rows.read(rows, lane, amount)) * elements.cols.read(cols, lane, amount);
    }
    ADAFACTOR_INLINE T operator()(T g, std::int64_t i, One) const {
      const auto& elements = table.elements_[i / kLanes];
      const auto lane = static_cast<int>(i % kLanes);
      return (g * elements.rows.read_one(rows, lane)) * elements.cols.read_one(cols, lane);
    }
  };

 private:
  struct Elements {
    Nearby rows;
    Nearby cols;
  };

  Elements elements_[kBlock / kLanes];
};

}}  // namespace adafactor::ADAFACTOR_LOOPS

#include "adafactor/compiler/exact_end.hpp"
