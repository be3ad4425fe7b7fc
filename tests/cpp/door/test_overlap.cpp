// Whether two arrays share memory, and one with itself: against sets of bytes for thousands of small random arrays, and
// by name for the layouts that models have. Many at once: test_overlap_finder.cpp.
#include <cstdint>
#include <limits>
#include <set>
#include <utility>
#include <vector>

#include "adafactor/door/overlap.hpp"
#include "support/check.hpp"
#include "support/regions.hpp"

namespace {

using adafactor::Overlap;
using regions::Array;
using regions::bytes_of;
using regions::kLeast;
using regions::kMost;
using regions::Random;
using regions::share;

Overlap expected_of(bool shared) { return shared ? Overlap::some : Overlap::none; }

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

}  // namespace

int main() {
  pairs_agree_with_sets_of_bytes();
  single_arrays_agree_with_sets_of_bytes();
  sparse_sums_agree_with_sets_of_bytes();
  two_strides_are_decided_whatever_the_extents();
  the_layouts_of_models_are_decided();
  one_array_is_asked_about_itself();
  numbers_beyond_64_bits_are_undecided_and_not_computed();
  return check::report();
}
