// Which axes are factored under each rule, what is a slice, and where a shape leaves 64 bits.
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "adafactor/plan/layout.hpp"
#include "adafactor/tensor.hpp"
#include "support/check.hpp"

namespace {

using adafactor::Config;
using adafactor::DType;
using adafactor::Factored;
using adafactor::Layout;
using Shape = std::vector<std::int64_t>;

Layout layout_of(const Shape& shape, Factored factored, std::int64_t least = 0) {
  Config config;
  config.factored = factored;
  config.min_dim_size_to_factor = least;
  return adafactor::make_layout(shape, config);
}

// (row axis, column axis, slices, rows, columns); the axes are -1 where the leaf is not factored.
std::vector<std::int64_t> facts(const Layout& layout) {
  CHECK_EQ(layout.factored, layout.row_axis >= 0);
  CHECK_EQ(layout.factored, layout.col_axis >= 0);
  return {layout.row_axis, layout.col_axis, layout.slices, layout.rows, layout.cols};
}

void expect(const Shape& shape, Factored factored, const std::vector<std::int64_t>& expected, std::int64_t least = 0) {
  const Layout layout = layout_of(shape, factored, least);
  CHECK_EQ(facts(layout), expected);
  std::int64_t size = 1;
  for (const std::int64_t extent : shape) size *= extent;
  CHECK_EQ(layout.size(), size);
}

void the_last_two_axes() {
  constexpr Factored rule = Factored::last_two;
  expect({}, rule, {-1, -1, 1, 1, 1});
  expect({5}, rule, {-1, -1, 1, 1, 5});
  expect({0}, rule, {-1, -1, 1, 1, 0});
  expect({1, 5}, rule, {0, 1, 1, 1, 5});
  expect({5, 1}, rule, {0, 1, 1, 5, 1});
  expect({0, 4}, rule, {0, 1, 1, 0, 4});
  expect({3, 4, 5}, rule, {1, 2, 3, 4, 5});
  expect({512, 256, 3, 3}, rule, {2, 3, 131072, 3, 3});
  expect({3, 3, 256, 256}, rule, {2, 3, 9, 256, 256});
}

void the_two_largest_axes() {
  constexpr Factored rule = Factored::largest_two;
  expect({}, rule, {-1, -1, 1, 1, 1});
  expect({5}, rule, {-1, -1, 1, 1, 5});
  // The largest is the column axis, so `row` is the mean over it.
  expect({1, 5}, rule, {0, 1, 1, 1, 5});
  expect({5, 1}, rule, {1, 0, 1, 1, 5});
  expect({0, 4}, rule, {0, 1, 1, 0, 4});
  expect({3, 4, 5}, rule, {1, 2, 3, 4, 5});
  expect({5, 4, 3}, rule, {1, 0, 3, 4, 5});
  expect({4, 3, 5}, rule, {0, 2, 3, 4, 5});
  expect({512, 256, 3, 3}, rule, {1, 0, 9, 256, 512});
  expect({3, 3, 256, 256}, rule, {2, 3, 9, 256, 256});
}

void of_equal_axes_the_later_counts_as_the_larger() {
  constexpr Factored rule = Factored::largest_two;
  expect({4, 4}, rule, {0, 1, 1, 4, 4});
  expect({4, 4, 4}, rule, {1, 2, 4, 4, 4});
  expect({4, 4, 3}, rule, {0, 1, 3, 4, 4});
  expect({4, 3, 4}, rule, {0, 2, 3, 4, 4});
  expect({3, 7, 3}, rule, {2, 1, 3, 3, 7});
  expect({7, 3, 3}, rule, {2, 0, 3, 3, 7});
  expect({3, 3, 7}, rule, {1, 2, 3, 3, 7});
}

void the_leading_two_or_the_last_two() {
  constexpr Factored rule = Factored::leading_two_or_last_two;
  expect({18, 17, 3, 3}, rule, {0, 1, 9, 18, 17}, 17);
  expect({3, 3, 18, 17}, rule, {2, 3, 9, 18, 17}, 17);
  expect({18, 3, 3, 17}, rule, {-1, -1, 1, 1, 18 * 3 * 3 * 17}, 17);
  expect({18, 17}, rule, {0, 1, 1, 18, 17}, 17);
  expect({40, 40, 20, 30}, rule, {0, 1, 600, 40, 40}, 17);
  expect({7}, rule, {-1, -1, 1, 1, 7}, 0);
}

void both_factored_axes_must_be_long_enough() {
  for (const Factored rule : {Factored::last_two, Factored::largest_two}) {
    expect({3, 16, 16}, rule, {1, 2, 3, 16, 16}, 16);
    expect({3, 15, 16}, rule, {-1, -1, 1, 1, 720}, 16);
    expect({3, 16, 15}, rule, {-1, -1, 1, 1, 720}, 16);
  }
  expect({20, 16, 15}, Factored::largest_two, {1, 0, 15, 16, 20}, 16);
  expect({20, 16, 15}, Factored::last_two, {-1, -1, 1, 1, 4800}, 16);
}

void nothing_is_factored_where_nobody_asks() {
  expect({20, 30}, Factored::off, {-1, -1, 1, 1, 600});
  expect({4, 20, 30}, Factored::off, {-1, -1, 1, 1, 2400});
}

// Every rank up to the limit, against the definition.
void any_rank() {
  for (int rank = 2; rank <= adafactor::kMaxRank; ++rank) {
    Shape shape(static_cast<std::size_t>(rank), 1);
    shape[static_cast<std::size_t>(rank / 2)] = 7;
    shape[0] = 3;
    const Layout last = layout_of(shape, Factored::last_two);
    CHECK_EQ(last.row_axis, rank - 2);
    CHECK_EQ(last.col_axis, rank - 1);
    const Layout largest = layout_of(shape, Factored::largest_two);
    CHECK_EQ(largest.col_axis, rank / 2);
    CHECK_EQ(largest.row_axis, 0);
    CHECK_EQ(largest.size(), 21);
  }
}

void a_shape_of_more_elements_than_any_memory_is_refused() {
  using adafactor::checked_size;
  using adafactor::kMostElements;
  constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max();
  CHECK_EQ(checked_size({}), 1);
  CHECK_EQ(checked_size({3, 4, 5}), 60);
  CHECK_EQ(checked_size({kMostElements}), kMostElements);
  CHECK_EQ(checked_size({kMostElements, 0, 1}), 0);
  CHECK_EQ(checked_size({0, kMostElements}), 0);
  CHECK_THROWS(checked_size({most, most, 0}), adafactor::Error);
  CHECK_THROWS(checked_size({0, most, most}), adafactor::Error);
  CHECK_THROWS(checked_size({kMostElements + 1}), adafactor::Error);
  CHECK_THROWS(checked_size({std::int64_t{1} << 24, (std::int64_t{1} << 24) + 1}), adafactor::Error);
  CHECK_EQ(CHECK_THROWS(checked_size({most, most}), adafactor::Error),
           "shape (9223372036854775807, 9223372036854775807), expected at most 2**48 elements");
  CHECK_EQ(CHECK_THROWS(checked_size({3, -1}), adafactor::Error), "extent -1, expected extents >= 0");
  CHECK_THROWS(checked_size({0, -1}), adafactor::Error);
}

}  // namespace

int main() {
  the_last_two_axes();
  the_two_largest_axes();
  of_equal_axes_the_later_counts_as_the_larger();
  the_leading_two_or_the_last_two();
  both_factored_axes_must_be_long_enough();
  nothing_is_factored_where_nobody_asks();
  any_rank();
  a_shape_of_more_elements_than_any_memory_is_refused();
  return check::report();
}
