// The first pair among many arrays that share memory: against sets of bytes, for slices and tiles of one matrix, and
// for ten thousand arrays without new memory and in little time.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <new>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "adafactor/door/overlap.hpp"
#include "support/check.hpp"
#include "support/regions.hpp"

namespace {

std::size_t allocations = 0;

}  // namespace

// Not inlined: GCC pairs an inlined free() with the operator new that it did not inline, and warns of a mismatch.
[[gnu::noinline]] void* operator new(std::size_t size) {
  ++allocations;
  if (void* memory = std::malloc(size > 0 ? size : 1)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace {

using adafactor::Overlap;
using adafactor::OverlapFinder;
using adafactor::OverlappingPair;
using adafactor::StridedRegion;
using regions::Array;
using regions::bytes_of;
using regions::kMost;
using regions::Random;
using regions::regions_of;
using regions::share;

// A subset-sum problem of 40 random strides is beyond any bound; it has to end soon, and never in a wrong "none".
void a_search_without_end_is_given_up() {
  Random random(4);
  Array hard{.itemsize = 1};
  std::int64_t total = 0;
  for (int axis = 0; axis < 40; ++axis) {
    hard.shape.push_back(2);
    hard.strides.push_back(random.between(std::int64_t{1} << 50, std::int64_t{1} << 51));
    if (axis % 2 == 0) total += hard.strides.back();
  }
  const Array point{.address = hard.address + static_cast<std::uint64_t>(total), .itemsize = 1};
  CHECK(adafactor::overlap(hard.region(), point.region()) != Overlap::none);
  const Array beside{.address = point.address + 1, .itemsize = 1};
  CHECK_EQ(adafactor::overlap(hard.region(), beside.region()), Overlap::undecided);
  OverlapFinder finder;
  const auto pair = finder.find(regions_of({hard, beside}));
  CHECK(pair && pair->verdict == Overlap::undecided);
}

std::optional<OverlappingPair> first_by_brute_force(const std::vector<Array>& arrays) {
  std::vector<std::multiset<std::uint64_t>> bytes;
  for (const Array& array : arrays) bytes.push_back(bytes_of(array));
  for (std::size_t i = 0; i < arrays.size(); ++i) {
    for (std::size_t j = i + 1; j < arrays.size(); ++j) {
      if ((arrays[i].written || arrays[j].written) && share(bytes[i], bytes[j])) {
        return OverlappingPair{i, j, Overlap::some};
      }
    }
  }
  return std::nullopt;
}

void agrees(const std::optional<OverlappingPair>& found, const std::optional<OverlappingPair>& expected) {
  CHECK_EQ(found.has_value(), expected.has_value());
  if (!found || !expected) return;
  CHECK_EQ(found->first, expected->first);
  CHECK_EQ(found->second, expected->second);
  CHECK_EQ(found->verdict, expected->verdict);
}

void the_first_pair_of_many_agrees_with_sets_of_bytes() {
  Random random(5);
  OverlapFinder finder;
  int with_pair = 0;
  const int rounds = 400;
  for (int round = 0; round < rounds; ++round) {
    std::vector<Array> arrays;
    const std::int64_t spread = random.between(1, 4) * 300;
    for (std::int64_t count = random.between(0, 14); count > 0; --count) {
      arrays.push_back(random.array(random.between(0, 2), 4, 12, spread));
    }
    const auto expected = first_by_brute_force(arrays);
    with_pair += expected ? 1 : 0;
    agrees(finder.find(regions_of(arrays)), expected);
  }
  CHECK(with_pair > rounds / 5 && with_pair < rounds * 4 / 5);
}

// Tiles of a matrix with gaps, more than are compared one by one, with now and then one that is moved or read.
void tiles_of_one_matrix_agree_with_sets_of_bytes() {
  Random random(6);
  OverlapFinder finder;
  int with_pair = 0;
  const int rounds = 120;
  for (int round = 0; round < rounds; ++round) {
    const std::int64_t row = random.between(60, 80);
    const std::int64_t step = random.between(1, 3);
    const bool transposed = random.between(0, 1) == 1;
    std::vector<Array> arrays;
    for (std::int64_t column = 0; column + 3 * step <= row; column += 3 * step) {
      for (std::int64_t lane = 0; lane < step; ++lane) {
        const std::int64_t offset = column + lane + (random.between(0, 150) == 0 ? random.between(1, 3) : 0);
        Array tile{.itemsize = 2, .shape = {6, 3}, .strides = {row, step}};
        tile.address += static_cast<std::uint64_t>(offset * 2);
        tile.written = random.between(0, 3) > 0;
        if (transposed) std::swap(tile.shape[0], tile.shape[1]), std::swap(tile.strides[0], tile.strides[1]);
        arrays.push_back(tile);
      }
    }
    const auto expected = first_by_brute_force(arrays);
    with_pair += expected ? 1 : 0;
    agrees(finder.find(regions_of(arrays)), expected);
  }
  CHECK(with_pair > rounds / 10 && with_pair < rounds * 9 / 10);
}

// Wherever in a row the first slice begins, so that each slice in turn lies across the end of the circle.
void a_moved_slice_is_found_at_every_offset() {
  OverlapFinder finder;
  for (std::uint64_t offset = 0; offset < 100; ++offset) {
    std::vector<Array> slices;
    for (std::uint64_t i = 0; i < 25; ++i) {
      slices.push_back({.address = 100'000 + offset + i * 4, .itemsize = 1, .shape = {5, 4}, .strides = {100, 1}});
    }
    CHECK(!finder.find(regions_of(slices)));
    for (std::size_t moved = 0; moved + 1 < slices.size(); ++moved) {
      slices[moved].address += 1;
      agrees(finder.find(regions_of(slices)), OverlappingPair{moved, moved + 1, Overlap::some});
      slices[moved].address -= 1;
    }
  }
}

void the_first_pair_is_that_of_the_smallest_indices() {
  const Array wide{.shape = {100}, .strides = {1}};
  const Array low{.address = wide.address + 40, .shape = {2}, .strides = {1}};
  const Array high{.address = wide.address + 80, .shape = {2}, .strides = {1}};
  OverlapFinder finder;
  agrees(finder.find(regions_of({wide, high, low})), OverlappingPair{0, 1, Overlap::some});
  agrees(finder.find(regions_of({low, high, wide})), OverlappingPair{0, 2, Overlap::some});
  agrees(finder.find(regions_of({low, low, wide})), OverlappingPair{0, 1, Overlap::some});
}

void reading_the_same_memory_twice_is_fine() {
  const Array read{.shape = {4}, .strides = {1}, .written = false};
  const Array written{.shape = {4}, .strides = {1}, .written = true};
  OverlapFinder finder;
  CHECK(!finder.find(regions_of({read, read, read})));
  agrees(finder.find(regions_of({read, read, written})), OverlappingPair{0, 2, Overlap::some});
  agrees(finder.find(regions_of({written, read, written})), OverlappingPair{0, 1, Overlap::some});
  const Array endless{.shape = {2}, .strides = {kMost}, .written = false};
  agrees(finder.find(regions_of({endless, read, written})), OverlappingPair{0, 2, Overlap::undecided});
  CHECK(!finder.find({}));
}

double milliseconds(OverlapFinder& finder, const std::vector<StridedRegion>& regions, bool expect_pair) {
  double best = 1e9;
  for (int repeat = 0; repeat < 5; ++repeat) {
    const auto start = std::chrono::steady_clock::now();
    const bool found = finder.find(regions).has_value();
    const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;
    best = std::min(best, took.count());
    CHECK_EQ(found, expect_pair);
  }
  return best;
}

// The bound is a hundred times what was measured, for sanitizers and busy machines; the 50 million pairs of each case
// would still take far longer.
void many_regions_take_little_time_and_no_new_memory() {
  const std::uint64_t base = 1 << 20;
  std::vector<Array> apart, columns, lanes, shared_gradient;
  for (std::uint64_t i = 0; i < 10'000; ++i) {
    apart.push_back({.address = base + (i * 7919 % 10'000) * 4096, .shape = {32, 32}, .strides = {32, 1}});
    shared_gradient.push_back({.address = base, .shape = {64}, .strides = {1}, .written = false});
    columns.push_back({.address = base + i * 64, .shape = {512, 16}, .strides = {160'000, 1}});
    lanes.push_back({.address = base + i * 4, .shape = {512, 16}, .strides = {160'000, 10'000}});
  }
  const std::pair<const char*, const std::vector<Array>*> cases[] = {{"10,000 arrays apart", &apart},
                                                                     {"10,000 column slices", &columns},
                                                                     {"10,000 interleaved slices", &lanes},
                                                                     {"10,000 times one gradient", &shared_gradient}};
  OverlapFinder finder;
  for (const auto& [name, arrays] : cases) {
    std::vector<StridedRegion> regions = regions_of(*arrays);
    finder.find(regions);
    const std::size_t before = allocations;
    finder.find(regions);
    CHECK_EQ(allocations, before);
    const double took = milliseconds(finder, regions, false);
    std::cout << name << ": " << took << " ms\n";
    CHECK(took < 200);
    // The last one moved onto the first: found among as many.
    regions.back() = regions.front();
    regions.back().written = true;
    const auto pair = finder.find(regions);
    CHECK(pair && pair->first == 0 && pair->second == regions.size() - 1);
  }
}

}  // namespace

int main() {
  a_search_without_end_is_given_up();
  the_first_pair_of_many_agrees_with_sets_of_bytes();
  tiles_of_one_matrix_agree_with_sets_of_bytes();
  a_moved_slice_is_found_at_every_offset();
  the_first_pair_is_that_of_the_smallest_indices();
  reading_the_same_memory_twice_is_fine();
  many_regions_take_little_time_and_no_new_memory();
  return check::report();
}
