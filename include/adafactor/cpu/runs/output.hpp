// How new parameters reach memory: converted to what they are stored as, in 16 bits to nearest or by noise.
#pragma once

#include <cstdint>
#include <cstring>

#include "adafactor/cpu/runs/noise.hpp"
#include "adafactor/cpu/runs/walk.hpp"
#include "adafactor/step/leaf.hpp"

#include "adafactor/compiler/exact_begin.hpp"

namespace adafactor { inline namespace ADAFACTOR_LOOPS {

namespace loop_detail {

// At most a block of numbers into a row from `first` on, rounded by noise.
template <Formatted S>
void write_by_noise(const Row& row, std::int64_t first, std::int64_t n, const float* numbers,
                    const std::uint16_t* noise) {
  S rounded[kBlock];
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    store_format_group(rounded + i, load<float>(numbers + i, Full{}).group, noise + i);
  }
  for (; i < n; ++i) rounded[i] = round_to<S>(numbers[i], noise[i]);
  write_elements(row, first, n, rounded);
}

}  // namespace loop_detail

// One row of a leaf's output, or all of it where its elements lie side by side; `element` is the number of the first in
// C order.
template <class T>
class OutputRow {
 public:
  OutputRow(const Leaf& leaf, const Row& row, std::int64_t element) : leaf_(leaf), row_(row), element_(element) {}

  // Whether a loop may store into it as it is.
  bool takes_stores() const { return !leaf_.rule.rounds_by_noise && row_.contiguous && has_loops<T>(row_.dtype); }
  const Row& row() const { return row_; }

  // At most a block of numbers from `first` on: rounded to nearest or by noise where they are stored in fewer bits.
  ADAFACTOR_OWN_FRAME void write(std::int64_t first, std::int64_t n, const T* numbers) const {
    if constexpr (sizeof(T) == sizeof(float)) {
      if (leaf_.rule.rounds_by_noise) {
        std::uint16_t noise[kBlock];
        read_noise(first, n, noise);
        return with_storage<T>(row_.dtype, [&](auto storage) {
          using S = typename decltype(storage)::type;
          if constexpr (Formatted<S>) loop_detail::write_by_noise<S>(row_, first, n, numbers, noise);
        });
      }
    }
    write_run(row_, first, n, numbers);
  }

 private:
  void read_noise(std::int64_t first, std::int64_t n, std::uint16_t* noise) const {
    const Walk& walk = leaf_.at.elements;
    if (walk.contiguous) return make_noise(leaf_.rule.noise, element_ + first, n, noise);
    for (std::int64_t i = 0; i < n; ++i) {
      noise[i] = noise_of(leaf_.rule.noise, element_ + offset_along(walk.col_axes, walk.col_rank, first + i));
    }
  }

  const Leaf& leaf_;
  Row row_;
  std::int64_t element_;
};

// Whether the elements of a leaf's output lie side by side, in the order of their numbers.
inline bool has_whole_output(const Leaf& leaf) {
  return leaf.at.parameter_out.whole && (!leaf.rule.rounds_by_noise || leaf.at.elements.whole);
}
template <class T>
OutputRow<T> whole_output(const Leaf& leaf) {
  return {leaf, whole_row(leaf.at.parameter_out), leaf.rule.noise.first};
}

// The output of one slice of a leaf.
template <class T>
class SliceOutput {
 public:
  SliceOutput(const Leaf& leaf, std::int64_t slice) : leaf_(leaf), slice_(leaf.at.parameter_out, slice) {
    if (leaf.rule.rounds_by_noise) {
      first_element_ =
          leaf.rule.noise.first + offset_along(leaf.at.elements.slice_axes, leaf.at.elements.slice_rank, slice);
    }
  }

  OutputRow<T> row(std::int64_t index) const {
    return {leaf_, slice_.row(index), first_element_ + index * leaf_.at.elements.row_stride};
  }

 private:
  const Leaf& leaf_;
  Slice slice_;
  std::int64_t first_element_ = 0;
};

}}  // namespace adafactor::ADAFACTOR_LOOPS

#include "adafactor/compiler/exact_end.hpp"
