// Whether arrays share memory: against sets of bytes for thousands of small random arrays, and by name for the layouts
// that models have.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <limits>
#include <new>
#include <optional>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "adafactor/door/overlap.hpp"
#include "support/check.hpp"

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

constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t kLeast = std::numeric_limits<std::int64_t>::min();

// A region that owns its shape; addresses are numbers here, since nothing is ever read.
struct Array {
  std::uint64_t address = 1 << 20;
  std::int64_t itemsize = 4;
  std::vector<std::int64_t> shape = {};
  std::vector<std::int64_t> strides = {};
  bool written = true;

  StridedRegion region() const {
    return {reinterpret_cast<const void*>(static_cast<std::uintptr_t>(address)),
            itemsize,
            static_cast<int>(shape.size()),
            shape.data(),
            strides.data(),
            written};
  }
};

std::vector<StridedRegion> regions_of(const std::vector<Array>& arrays) {
  std::vector<StridedRegion> regions;
  for (const Array& array : arrays) regions.push_back(array.region());
  return regions;
}

// Every byte of an array, as often as an index names it.
std::multiset<std::uint64_t> bytes_of(const Array& array) {
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

bool share(const std::multiset<std::uint64_t>& a, const std::multiset<std::uint64_t>& b) {
  for (const std::uint64_t byte : a) {
    if (b.contains(byte)) return true;
  }
  return false;
}

Overlap expected_of(bool shared) { return shared ? Overlap::some : Overlap::none; }

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

// Ranks, extents, strides and distances that make both answers frequent.
struct Family {
  std::int64_t rank, extent, stride, spread;
};
constexpr Family kFamilies[] = {{1, 6, 6, 60}, {2, 4, 12, 80}, {2, 12, 70, 400}, {3, 4, 25, 150}, {4, 3, 60, 400}};

void pairs_agree_with_sets_of_bytes() {
  Random random(1);
  for (const Family& family : kFamilies) {
    int shared = 0;
    const int rounds = 2500;
    for (int round = 0; round < rounds; ++round) {
      const Array a = random.array(random.between(0, family.rank), family.extent, family.stride, family.spread);
      const Array b = random.array(family.rank, family.extent, family.stride, family.spread);
      const bool expected = share(bytes_of(a), bytes_of(b));
      shared += expected ? 1 : 0;
      CHECK_EQ(adafactor::overlap(a.region(), b.region()), expected_of(expected));
      CHECK_EQ(adafactor::overlap(b.region(), a.region()), expected_of(expected));
    }
    CHECK(shared > rounds / 10 && shared < rounds * 9 / 10);
  }
}

void single_arrays_agree_with_sets_of_bytes() {
  Random random(2);
  for (const Family& family : kFamilies) {
    int clashing = 0;
    const int rounds = 2500;
    for (int round = 0; round < rounds; ++round) {
      const Array array = random.array(family.rank, family.extent, family.stride, family.spread);
      const std::multiset<std::uint64_t> bytes = bytes_of(array);
      const bool expected = std::set<std::uint64_t>(bytes.begin(), bytes.end()).size() < bytes.size();
      clashing += expected ? 1 : 0;
      CHECK_EQ(adafactor::self_overlap(array.region()), expected_of(expected));
    }
    CHECK(clashing > rounds / 20 && clashing < rounds * 19 / 20);
  }
}

// Items of one byte and large coprime strides: few sums, far apart, so that only exact arithmetic finds them.
void sparse_sums_agree_with_sets_of_bytes() {
  Random random(3);
  int shared = 0;
  const int rounds = 1500;
  for (int round = 0; round < rounds; ++round) {
    const auto sparse = [&] {
      Array array{.itemsize = 1};
      array.address += static_cast<std::uint64_t>(random.between(0, 20'000));
      array.shape = {random.between(1, 12), random.between(1, 12)};
      array.strides = {random.between(400, 3000), random.between(100, 1500)};
      return array;
    };
    const Array a = sparse();
    const Array b = sparse();
    const bool expected = share(bytes_of(a), bytes_of(b));
    shared += expected ? 1 : 0;
    CHECK_EQ(adafactor::overlap(a.region(), b.region()), expected_of(expected));
  }
  CHECK(shared > rounds / 50);
}

void two_strides_are_decided_whatever_the_extents() {
  // Sums of two primes are far too many to try, and have to be found by arithmetic.
  const Array grid{.itemsize = 1, .shape = {900'000, 900'000}, .strides = {1'000'003, 1'000'033}};
  Array point{.itemsize = 1};
  point.address = grid.address + 1'000'003ULL * 123'456 + 1'000'033ULL * 654'321;
  CHECK_EQ(adafactor::overlap(grid.region(), point.region()), Overlap::some);
  // One way alone leads to 1 + the multiple 766,692 of one prime: the multiple 766,669 of the other.
  CHECK_EQ(1'000'033LL * 766'669 - 1'000'003LL * 766'692, 1LL);
  const Array enough{.itemsize = 1, .shape = {900'000, 766'669 + 1}, .strides = {1'000'003, 1'000'033}};
  const Array too_few{.itemsize = 1, .shape = {900'000, 766'669}, .strides = {1'000'003, 1'000'033}};
  point.address = grid.address + 1'000'003ULL * 766'692 + 1;
  CHECK_EQ(adafactor::overlap(enough.region(), point.region()), Overlap::some);
  CHECK_EQ(adafactor::overlap(too_few.region(), point.region()), Overlap::none);
  const Array two_bytes{.address = point.address - 1, .itemsize = 2};
  const Array few{.itemsize = 1, .shape = {766'692, 766'669}, .strides = {1'000'003, 1'000'033}};
  CHECK_EQ(adafactor::overlap(too_few.region(), two_bytes.region()), Overlap::some);
  CHECK_EQ(adafactor::overlap(few.region(), two_bytes.region()), Overlap::none);
  // The lattice clashes with itself exactly where both extents exceed the other prime.
  CHECK_EQ(adafactor::self_overlap(grid.region()), Overlap::none);
  const Array clash{.itemsize = 1, .shape = {1'000'034, 1'000'004}, .strides = {1'000'003, 1'000'033}};
  const Array narrow{.itemsize = 1, .shape = {1'000'033, 1'000'004}, .strides = {1'000'003, 1'000'033}};
  CHECK_EQ(adafactor::self_overlap(clash.region()), Overlap::some);
  CHECK_EQ(adafactor::self_overlap(narrow.region()), Overlap::none);
}

void the_layouts_of_models_are_decided() {
  const std::uint64_t base = 1 << 20;
  // Column slices of a fused weight of 64 rows of 96, side by side, and one that reaches into its neighbour.
  const Array query{.address = base, .shape = {64, 32}, .strides = {96, 1}};
  const Array key{.address = base + 32 * 4, .shape = {64, 32}, .strides = {96, 1}};
  const Array wide{.address = base, .shape = {64, 33}, .strides = {96, 1}};
  CHECK_EQ(adafactor::overlap(query.region(), key.region()), Overlap::none);
  CHECK_EQ(adafactor::overlap(wide.region(), key.region()), Overlap::some);
  // The same, seen transposed and from the last row upwards.
  const Array transposed{.address = base + 32 * 4, .shape = {32, 64}, .strides = {1, 96}};
  const Array upwards{.address = base + (32 + 63 * 96) * 4, .shape = {64, 32}, .strides = {-96, 1}};
  CHECK_EQ(adafactor::overlap(query.region(), transposed.region()), Overlap::none);
  CHECK_EQ(adafactor::overlap(key.region(), transposed.region()), Overlap::some);
  CHECK_EQ(adafactor::overlap(query.region(), upwards.region()), Overlap::none);
  CHECK_EQ(adafactor::overlap(key.region(), upwards.region()), Overlap::some);
  CHECK_EQ(adafactor::overlap(wide.region(), upwards.region()), Overlap::some);
  // Real and imaginary parts.
  const Array real{.address = base, .shape = {100}, .strides = {2}};
  const Array imaginary{.address = base + 4, .shape = {100}, .strides = {2}};
  CHECK_EQ(adafactor::overlap(real.region(), imaginary.region()), Overlap::none);
  const Array shifted{.address = base + 2, .shape = {100}, .strides = {2}};
  CHECK_EQ(adafactor::overlap(real.region(), shifted.region()), Overlap::some);
  // Neighbours in a flat buffer, of unequal item sizes.
  const Array front{.address = base, .shape = {10}, .strides = {1}};
  const Array back{.address = base + 40, .itemsize = 8, .shape = {10}, .strides = {1}};
  const Array inside{.address = base + 39, .itemsize = 1, .shape = {}, .strides = {}};
  CHECK_EQ(adafactor::overlap(front.region(), back.region()), Overlap::none);
  CHECK_EQ(adafactor::overlap(front.region(), inside.region()), Overlap::some);
  CHECK_EQ(adafactor::overlap(back.region(), inside.region()), Overlap::none);
}

void one_array_is_asked_about_itself() {
  const auto verdict = [](std::vector<std::int64_t> shape, std::vector<std::int64_t> strides) {
    return adafactor::self_overlap(Array{.shape = std::move(shape), .strides = std::move(strides)}.region());
  };
  CHECK_EQ(verdict({}, {}), Overlap::none);
  CHECK_EQ(verdict({3, 4, 5}, {20, 5, 1}), Overlap::none);
  CHECK_EQ(verdict({5, 4, 3}, {1, 5, 20}), Overlap::none);
  CHECK_EQ(verdict({3, 4, 5}, {-40, -10, 2}), Overlap::none);
  CHECK_EQ(verdict({8, 3}, {1, 1}), Overlap::some);       // a sliding window
  CHECK_EQ(verdict({8, 3}, {3, 1}), Overlap::none);       // windows side by side
  CHECK_EQ(verdict({8, 3}, {2, 1}), Overlap::some);       // windows that share one
  CHECK_EQ(verdict({3}, {0}), Overlap::some);             // one element, broadcast
  CHECK_EQ(verdict({1, 1}, {0, kLeast}), Overlap::none);  // strides that no index uses
  CHECK_EQ(verdict({0, 3}, {kMost, 0}), Overlap::none);
  CHECK_EQ(verdict({3, 1, 4}, {4, 4, 1}), Overlap::none);
  CHECK_EQ(verdict({2, 2, 2}, {3, 2, 1}), Overlap::some);  // 3 = 2 + 1
  CHECK_EQ(verdict({2, 2, 2}, {4, 2, 1}), Overlap::none);
}

void numbers_beyond_64_bits_are_undecided_and_not_computed() {
  const Array plain{.shape = {4}, .strides = {1}};
  const auto verdict = [&](std::vector<std::int64_t> shape, std::vector<std::int64_t> strides,
                           std::uint64_t address = 1 << 20, std::int64_t itemsize = 8) {
    const Array array{address, itemsize, std::move(shape), std::move(strides)};
    CHECK_EQ(adafactor::overlap(array.region(), plain.region()), adafactor::overlap(plain.region(), array.region()));
    return adafactor::overlap(array.region(), plain.region());
  };
  CHECK_EQ(verdict({2}, {kMost}), Overlap::undecided);
  CHECK_EQ(verdict({2}, {kLeast}), Overlap::undecided);
  CHECK_EQ(verdict({kMost}, {1}), Overlap::undecided);
  CHECK_EQ(verdict({kMost, kMost}, {kMost, kMost}), Overlap::undecided);
  CHECK_EQ(verdict({kMost, 0}, {kMost, kMost}), Overlap::none);
  CHECK_EQ(verdict({1, 1}, {kMost, kLeast}), Overlap::some);
  CHECK_EQ(verdict({4}, {-1}, 8), Overlap::undecided);  // below address 0
  CHECK_EQ(verdict({4}, {1}, std::numeric_limits<std::uint64_t>::max() - 8), Overlap::undecided);
  const Array endless{.shape = {2, 2}, .strides = {kMost, 1}};
  CHECK_EQ(adafactor::self_overlap(endless.region()), Overlap::undecided);
  const Array broadcast{.shape = {2, 2}, .strides = {kMost, 0}};
  CHECK_EQ(adafactor::self_overlap(broadcast.region()), Overlap::some);
  const Array deep{
      .itemsize = 1, .shape = std::vector<std::int64_t>(65, 2), .strides = std::vector<std::int64_t>(65, 1)};
  CHECK_EQ(adafactor::overlap(deep.region(), plain.region()), Overlap::undecided);
}

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
  pairs_agree_with_sets_of_bytes();
  single_arrays_agree_with_sets_of_bytes();
  sparse_sums_agree_with_sets_of_bytes();
  two_strides_are_decided_whatever_the_extents();
  the_layouts_of_models_are_decided();
  one_array_is_asked_about_itself();
  numbers_beyond_64_bits_are_undecided_and_not_computed();
  a_search_without_end_is_given_up();
  the_first_pair_of_many_agrees_with_sets_of_bytes();
  tiles_of_one_matrix_agree_with_sets_of_bytes();
  a_moved_slice_is_found_at_every_offset();
  the_first_pair_is_that_of_the_smallest_indices();
  reading_the_same_memory_twice_is_fine();
  many_regions_take_little_time_and_no_new_memory();
  return check::report();
}
