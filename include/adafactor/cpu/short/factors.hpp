// Leaves whose rows are shorter than the lanes, as those of a 3x3 kernel: the rows of a tile follow each other, slice
// after slice, and as many as fit in a block make one run, in which each element has its own factors beside it. Lane =
// place in the run mod 16.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "adafactor/cpu/row_factors.hpp"
#include "adafactor/cpu/runs/loops.hpp"
#include "adafactor/cpu/short/rows.hpp"
#include "adafactor/lanes/lanes.hpp"
#include "adafactor/step/leaf.hpp"

#include "adafactor/compiler/exact_begin.hpp"

namespace adafactor { inline namespace ADAFACTOR_LOOPS {

// Numbers that are few and lie close together, spread over many elements by the CPU's permutations: the factors of
// small slices, where each row or column of three serves three elements. The table of places is made once for a tile.

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

// The factors of each element of one run, and with them U.
template <class T>
class NarrowFactors {
 public:
  NarrowFactors(const Leaf& leaf, const Tile& tile, double scale)
      : leaf_(leaf), scale_(leaf.gradient_scale() * leaf.found.norm_factor * scale) {
    if constexpr (kPermutes<T>) {
      permutes_ = has_small_slices(leaf) && table_.make(tile.slices, leaf.shape.rows, leaf.shape.cols);
    }
  }

  // A range has at most so many rows.
  static std::int64_t most_rows(const Leaf& leaf) { return rows_of_run(leaf); }

  // Makes the factors of these rows.
  void prepare(RowRange range) {
    if (permutes_) {
      read_row_factors(range);
      columns_ = static_cast<const T*>(leaf_.at.col_factor) + range.first / leaf_.shape.rows * leaf_.shape.cols;
      return;
    }
    if (leaf_.shape.cols > 8) {
      prepare_rows<16>(range);
    } else if (leaf_.shape.cols > 4) {
      prepare_rows<8>(range);
    } else {
      prepare_rows<4>(range);
    }
  }

  // Calls body(u_of) with U as a function of lanes.
  template <class Body>
  ADAFACTOR_INLINE void with_lanes(const Body& body) const {
    if constexpr (kPermutes<T>) {
      if (permutes_) return body(SmallSliceTable::U<T>{factors_, columns_, table_});
    }
    body(Plain{rows_, cols_});
  }

 private:
  struct Plain {
    const T* rows;
    const T* cols;

    template <class Numbers, class Amount>
    ADAFACTOR_INLINE Numbers operator()(const Numbers& g, std::int64_t i, Amount amount) const {
      return (g * load<T>(rows + i, amount)) * load<T>(cols + i, amount);
    }
  };

  // `width` elements are written at once for each row; what is written past its end, the next row overwrites.
  template <int width>
  void prepare_rows(RowRange range) {
    const std::int64_t cols = leaf_.shape.cols;
    for_slices(leaf_, range, [&](std::int64_t slice, std::int64_t, std::int64_t count, std::int64_t offset) {
      const auto columns = loop_detail::load_group<T, width>(static_cast<const T*>(leaf_.at.col_factor) + slice * cols);
      for (std::int64_t r = offset; r < offset + count; ++r) loop_detail::store_group(cols_ + r * cols, columns);
      if (!has_small_slices(leaf_)) make_row_factors(slice, range.first + offset, count, offset);
    });
    if (has_small_slices(leaf_)) read_row_factors(range);
    spread<width>(factors_, range.count, rows_);
  }

  // Each factor to the elements of its row.
  template <int width>
  void spread(const T* factors, std::int64_t count, T* elements) const {
    for (std::int64_t r = 0; r < count; ++r) {
      loop_detail::store_group(elements + r * leaf_.shape.cols, loop_detail::fill_group<T, width>(factors[r]));
    }
  }

  // The factors of rows of one slice.
  void make_row_factors(std::int64_t slice, std::int64_t first, std::int64_t count, std::int64_t offset) {
    store_row_factors(static_cast<const T*>(leaf_.at.row_moment) + first, leaf_.at.mean_moment[slice], scale_,
                      factors_ + offset, count);
  }

  // Takes the factors of rows from those that `factors` has kept.
  void read_row_factors(RowRange range) {
    const T* kept = static_cast<const T*>(leaf_.at.row_factor) + range.first;
    scale_row_factors(kept, scale_, factors_, range.count);
  }

  const Leaf& leaf_;
  double scale_;
  bool permutes_ = false;  // small slices
  const T* columns_ = nullptr;
  SmallSliceTable table_;
  T factors_[kBlock + kLanes];
  T rows_[kBlock + kLanes];
  T cols_[kBlock + kLanes];
};

}}  // namespace adafactor::ADAFACTOR_LOOPS

#include "adafactor/compiler/exact_end.hpp"
