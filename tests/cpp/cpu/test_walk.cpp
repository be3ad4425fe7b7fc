// Arrays of any strides: where an element of a layout lies, and runs read from it and written to it, against a plain
// count through all indices.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "adafactor/cpu/runs/walk.hpp"
#include "adafactor/door/arguments.hpp"
#include "adafactor/door/view.hpp"
#include "adafactor/step/places.hpp"
#include "support/check.hpp"

namespace {

using adafactor::Axis;
using adafactor::Config;
using adafactor::DType;
using adafactor::Factored;
using adafactor::Layout;
using Shape = std::vector<std::int64_t>;

// Offsets of the elements of an array in the order [slice][row][column] of a layout, by counting all indices in C
// order.
std::vector<std::int64_t> offsets_in_order(const Shape& shape, const Shape& strides, const Layout& layout) {
  std::vector<std::int64_t> offsets(static_cast<std::size_t>(layout.size()));
  Shape index(shape.size(), 0);
  for (std::size_t count = 0; count < offsets.size(); ++count) {
    std::int64_t slice = 0;
    std::int64_t col = 0;
    std::int64_t row = 0;
    std::int64_t offset = 0;
    for (std::size_t axis = 0; axis < shape.size(); ++axis) {
      offset += index[axis] * strides[axis];
      if (static_cast<int>(axis) == layout.row_axis) {
        row = index[axis];
      } else if (!layout.factored || static_cast<int>(axis) == layout.col_axis) {
        col = col * shape[axis] + index[axis];
      } else {
        slice = slice * shape[axis] + index[axis];
      }
    }
    offsets[static_cast<std::size_t>((slice * layout.rows + row) * layout.cols + col)] = offset;
    for (std::size_t axis = shape.size(); axis-- > 0;) {
      if (++index[axis] < shape[axis]) break;
      index[axis] = 0;
    }
  }
  return offsets;
}

// Strides of an array that lies in memory in a given order of axes, with gaps, some axes backwards.
struct Placement {
  Shape strides;
  std::int64_t start = 0;  // the offset of the first element in memory
  std::int64_t room = 1;   // elements of the memory
};

Placement place(const Shape& shape, std::mt19937& random, bool with_gaps) {
  Placement result{Shape(shape.size(), 1)};
  std::vector<std::size_t> order(shape.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::shuffle(order, random);
  for (const std::size_t axis : order) {
    const std::int64_t gap = with_gaps ? static_cast<std::int64_t>(random() % 3) : 0;
    const std::int64_t stride = result.room * (1 + gap);
    const bool backwards = random() % 3 == 0;
    result.strides[axis] = backwards ? -stride : stride;
    if (backwards) result.start += (shape[axis] - 1) * stride;
    result.room += (shape[axis] - 1) * stride;
    if (!with_gaps) result.room = stride * shape[axis];
  }
  result.room += 1;
  return result;
}

struct Setting {
  Shape shape;
  Placement placement;
  Layout layout;
  std::string name;
};

// Whole numbers from 1 to 200, which every type holds.
template <class S>
std::vector<S> whole_numbers(std::int64_t count) {
  std::vector<S> numbers(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    adafactor::store(&numbers[i], static_cast<float>(1 + i % 200), adafactor::One{});
  }
  return numbers;
}

template <class S>
bool same_bits(const std::vector<S>& a, const std::vector<S>& b) {
  return std::memcmp(a.data(), b.data(), a.size() * sizeof(S)) == 0;
}

// S is what the array is stored as, T what a run holds.
template <class T, class S>
void runs_are_those_of_the_array(const Setting& setting) {
  std::vector<S> memory = whole_numbers<S>(setting.placement.room);
  S* first = memory.data() + setting.placement.start;
  const adafactor::TensorView view{first,
                                   adafactor::dtype_of<S>,
                                   {},
                                   static_cast<int>(setting.shape.size()),
                                   setting.shape.data(),
                                   setting.placement.strides.data()};
  std::vector<Axis> axes(std::max<std::size_t>(setting.shape.size(), 1));
  const adafactor::Walk walk = adafactor::make_walk(view, setting.layout, axes.data());
  const auto offsets = offsets_in_order(setting.shape, setting.placement.strides, setting.layout);

  std::vector<S> target(memory.size());
  std::vector<S> copied(memory.size());
  std::vector<S> expected_target(memory.size());
  bool good = true;
  const Layout& layout = setting.layout;
  for (std::int64_t slice = 0; slice < layout.slices; ++slice) {
    const adafactor::Slice from(walk, slice);
    adafactor::Walk out_walk = walk;
    out_walk.data = reinterpret_cast<std::byte*>(target.data() + setting.placement.start);
    const adafactor::Slice to(out_walk, slice);
    out_walk.data = reinterpret_cast<std::byte*>(copied.data() + setting.placement.start);
    const adafactor::Slice copy(out_walk, slice);
    for (std::int64_t row = 0; row < layout.rows; ++row) {
      for (std::int64_t begin = 0; begin < layout.cols; begin += 5) {
        const std::int64_t n = std::min<std::int64_t>(5, layout.cols - begin);
        T buffer[5];
        const T* run = adafactor::read_run(from.row(row), begin, n, buffer).at;
        for (std::int64_t i = 0; i < n; ++i) {
          const auto place = static_cast<std::size_t>((slice * layout.rows + row) * layout.cols + begin + i);
          const S wanted = first[offsets[place]];
          good = good && run[i] == adafactor::load<T>(&wanted, adafactor::One{});
          expected_target[static_cast<std::size_t>(setting.placement.start + offsets[place])] = wanted;
        }
        adafactor::write_run(to.row(row), begin, n, run);
        adafactor::copy_run<T>(from.row(row), copy.row(row), begin, n);
      }
    }
  }
  CHECK_EQ(setting.name + (good ? " read" : " misread"), setting.name + " read");
  CHECK(same_bits(target, expected_target));
  CHECK(same_bits(copied, expected_target));
}

void any_strides() {
  std::mt19937 random(11);
  const std::vector<Shape> shapes{{},         {1},       {13},         {3, 7},    {1, 9},       {9, 1},
                                  {2, 3, 11}, {4, 1, 6}, {2, 3, 4, 5}, {1, 1, 1}, {5, 2, 1, 3}, {2, 2, 2, 2, 3}};
  for (const Shape& shape : shapes) {
    for (const Factored rule : {Factored::off, Factored::last_two, Factored::largest_two}) {
      Config config;
      config.factored = rule;
      const Layout layout = adafactor::make_layout(shape, config);
      for (int round = 0; round < 20; ++round) {
        const Setting setting{shape, place(shape, random, round % 2 == 0), layout,
                              check::describe(shape) + " round " + std::to_string(round)};
        runs_are_those_of_the_array<float, float>(setting);
        runs_are_those_of_the_array<double, double>(setting);
        runs_are_those_of_the_array<float, adafactor::Bfloat16>(setting);
        runs_are_those_of_the_array<float, adafactor::Float16>(setting);
      }
    }
  }
}

void offsets_along_axes() {
  const Axis axes[]{{2, 100}, {3, -10}, {4, 1}};
  std::int64_t index = 0;
  for (std::int64_t i = 0; i < 2; ++i) {
    for (std::int64_t j = 0; j < 3; ++j) {
      for (std::int64_t k = 0; k < 4; ++k) {
        CHECK_EQ(adafactor::offset_along(axes, 3, index++), 100 * i - 10 * j + k);
      }
    }
  }
  CHECK_EQ(adafactor::offset_along(axes, 1, 1), 100);
  CHECK_EQ(adafactor::offset_along(nullptr, 0, 0), 0);
}

adafactor::Walk walk_of(const Shape& shape, const Shape& strides, Factored rule, std::vector<Axis>& axes) {
  Config config;
  config.factored = rule;
  axes.resize(std::max<std::size_t>(shape.size(), 1));
  static float memory[1];
  const adafactor::TensorView view{memory,       DType::float32,
                                   {},           static_cast<int>(shape.size()),
                                   shape.data(), strides.empty() ? nullptr : strides.data()};
  return adafactor::make_walk(view, adafactor::make_layout(shape, config), axes.data());
}

// Axes that continue each other are walked as one, so that what is contiguous is seen to be.
void contiguous_arrays_are_recognised() {
  std::vector<Axis> axes;
  CHECK(walk_of({4, 5, 6}, {}, Factored::off, axes).contiguous);
  CHECK(walk_of({4, 5, 6}, {30, 6, 1}, Factored::off, axes).contiguous);
  CHECK(!walk_of({4, 5, 6}, {1, 4, 20}, Factored::off, axes).contiguous);
  CHECK(!walk_of({4, 5, 6}, {40, 8, 1}, Factored::off, axes).contiguous);
  CHECK(walk_of({4, 5, 6}, {40, 8, 1}, Factored::last_two, axes).contiguous);
  CHECK(!walk_of({4, 5}, {1, 4}, Factored::last_two, axes).contiguous);
  CHECK(walk_of({4, 1}, {1, 77}, Factored::last_two, axes).contiguous);
  CHECK(walk_of({}, {}, Factored::off, axes).contiguous);
  CHECK_EQ(walk_of({4, 5, 6, 7}, {}, Factored::last_two, axes).slice_rank, 1);
  CHECK_EQ(walk_of({4, 5, 6, 7}, {300, 50, 7, 1}, Factored::last_two, axes).slice_rank, 2);
}

// Reads of an axis that does not move, as a broadcast gradient has it.
void a_stride_of_zero_reads_one_element_again() {
  float memory[3] = {1, 2, 3};
  const Shape shape{4, 3};
  const Shape strides{0, 1};
  Config config;
  std::vector<Axis> axes(2);
  const adafactor::TensorView view{memory, DType::float32, {}, 2, shape.data(), strides.data()};
  const adafactor::Walk walk = adafactor::make_walk(view, adafactor::make_layout(shape, config), axes.data());
  float buffer[3];
  for (std::int64_t row = 0; row < 4; ++row) {
    const float* run = adafactor::read_run(adafactor::Slice(walk, 0).row(row), 0, 3, buffer).at;
    CHECK(run[0] == 1 && run[1] == 2 && run[2] == 3);
  }
}

}  // namespace

int main() {
  offsets_along_axes();
  any_strides();
  contiguous_arrays_are_recognised();
  a_stride_of_zero_reads_one_element_again();
  return check::report();
}
