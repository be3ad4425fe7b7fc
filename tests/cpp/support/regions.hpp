// Arrays of any strides for the tests of overlaps: drawn at random, and every byte of each as a set, which is what the
// library's answers are held against.
#pragma once

#include <cstdint>
#include <limits>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "adafactor/door/overlap.hpp"

namespace regions {

inline constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
inline constexpr std::int64_t kLeast = std::numeric_limits<std::int64_t>::min();

// A region that owns its shape; addresses are numbers here, since nothing is ever read.
struct Array {
  std::uint64_t address = 1 << 20;
  std::int64_t itemsize = 4;
  std::vector<std::int64_t> shape = {};
  std::vector<std::int64_t> strides = {};
  bool written = true;

  adafactor::StridedRegion region() const {
    return {reinterpret_cast<const void*>(static_cast<std::uintptr_t>(address)),
            itemsize,
            static_cast<int>(shape.size()),
            shape.data(),
            strides.data(),
            written};
  }
};

inline std::vector<adafactor::StridedRegion> regions_of(const std::vector<Array>& arrays) {
  std::vector<adafactor::StridedRegion> regions;
  for (const Array& array : arrays) regions.push_back(array.region());
  return regions;
}

// Every byte of an array, as often as an index names it.
inline std::multiset<std::uint64_t> bytes_of(const Array& array) {
  std::vector<std::uint64_t> starts{array.address};
  for (std::size_t axis = 0; axis < array.shape.size(); ++axis) {
    std::vector<std::uint64_t> next;
    for (const std::uint64_t start : starts) {
      for (std::int64_t i = 0; i < array.shape[axis]; ++i) {
        next.push_back(start + static_cast<std::uint64_t>(i * array.strides[axis] * array.itemsize));
      }
    }
    starts = std::move(next);
  }
  std::multiset<std::uint64_t> bytes;
  for (const std::uint64_t start : starts) {
    for (std::int64_t k = 0; k < array.itemsize; ++k) bytes.insert(start + static_cast<std::uint64_t>(k));
  }
  return bytes;
}

inline bool share(const std::multiset<std::uint64_t>& a, const std::multiset<std::uint64_t>& b) {
  for (const std::uint64_t byte : a) {
    if (b.contains(byte)) return true;
  }
  return false;
}

class Random {
 public:
  explicit Random(unsigned seed) : engine_(seed) {}
  std::int64_t between(std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(engine_);
  }
  Array array(std::int64_t rank, std::int64_t extent, std::int64_t stride, std::int64_t spread) {
    Array array;
    array.address += static_cast<std::uint64_t>(between(0, spread));
    array.itemsize = between(1, 4);
    for (std::int64_t axis = 0; axis < rank; ++axis) {
      array.shape.push_back(between(between(0, 9) == 0 ? 0 : 1, extent));
      array.strides.push_back(between(-stride, stride));
    }
    array.written = between(0, 1) == 1;
    return array;
  }

 private:
  std::mt19937_64 engine_;
};

}  // namespace regions
