// Arrays of a state that come along with a call: what shape and strides each has, what is refused in which words, and
// that one which lies where it lay is not held against the plan again.
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "adafactor/door/lent.hpp"
#include "adafactor/door/memory.hpp"
#include "adafactor/plan.hpp"
#include "adafactor/plan/arrays.hpp"
#include "support/check.hpp"
#include "support/plans.hpp"

namespace {

using adafactor::Config;
using adafactor::DType;
using adafactor::ErrorKind;
using adafactor::Factored;
using adafactor::LentState;
using adafactor::Plan;
using adafactor::StateKind;
using adafactor::TensorView;
using Numbers = std::vector<std::int64_t>;

Plan plan_of(const Numbers& shape, Factored factored = Factored::last_two, DType dtype = DType::float32) {
  Config config;
  config.factored = factored;
  config.beta_1 = 0.9;
  return Plan({{shape, dtype}}, {config});
}

std::pair<Numbers, Numbers> layout_of(const Plan& plan, StateKind kind) {
  const std::size_t rank = plan.leaves()[0].spec.shape.size();
  Numbers shape(rank);
  Numbers strides(rank);
  shape_of_state(plan.leaves()[0], kind, shape.data());
  strides_of_state(plan.leaves()[0], kind, strides.data());
  return {shape, strides};
}

void arrays_have_the_axes_of_their_leaf_in_the_order_of_the_core() {
  const Plan last = plan_of({4, 3, 5});
  CHECK(layout_of(last, StateKind::row) == std::pair(Numbers{4, 3, 1}, Numbers{3, 1, 1}));
  CHECK(layout_of(last, StateKind::col) == std::pair(Numbers{4, 1, 5}, Numbers{5, 5, 1}));
  CHECK(layout_of(last, StateKind::momentum) == std::pair(Numbers{4, 3, 5}, Numbers{15, 5, 1}));
  // A convolution: its two long axes are rows and columns, whichever come first.
  const Plan largest = plan_of({32, 48, 3, 2}, Factored::largest_two);
  const adafactor::Layout& layout = largest.leaves()[0].layout;
  CHECK_EQ(layout.row_axis, 0);
  CHECK_EQ(layout.col_axis, 1);
  CHECK(layout_of(largest, StateKind::row) == std::pair(Numbers{32, 1, 3, 2}, Numbers{1, 1, 64, 32}));
  CHECK(layout_of(largest, StateKind::col) == std::pair(Numbers{1, 48, 3, 2}, Numbers{48, 1, 96, 48}));
  CHECK(layout_of(largest, StateKind::momentum) == std::pair(Numbers{32, 48, 3, 2}, Numbers{48, 1, 3072, 1536}));
  const Plan vector = plan_of({7});
  CHECK(layout_of(vector, StateKind::full) == std::pair(Numbers{7}, Numbers{1}));
  CHECK(layout_of(plan_of({}), StateKind::full) == std::pair(Numbers{}, Numbers{}));
}

// The words of the refusal of a view as the row moments of a leaf of 4 x 6; "" where it is taken.
std::string refusal_of(const TensorView& view, ErrorKind& kind) {
  const Plan plan = plan_of({4, 6});
  try {
    check_lent(view, plan.leaves()[0], StateKind::row, 0);
  } catch (const adafactor::Error& error) {
    kind = error.kind();
    return error.what();
  }
  return "";
}

void no_elements_lie_anywhere() {
  const Plan plan = plan_of({0, 6});
  const std::int64_t shape[] = {0, 1};
  float numbers[2] = {};
  check_lent({reinterpret_cast<std::byte*>(numbers) + 1, DType::float32, {}, 2, shape, nullptr}, plan.leaves()[0],
             StateKind::row, 0);
}

void what_does_not_fit_is_refused_by_name() {
  float numbers[16] = {};
  const std::int64_t shape[] = {4, 1};
  const std::int64_t flat[] = {4};
  const std::int64_t turned[] = {1, 4};
  const std::int64_t strides[] = {2, 1};
  const std::int64_t any[] = {1, 77};  // of an axis that is 1 long
  ErrorKind kind = ErrorKind::busy;
  CHECK_EQ(refusal_of({numbers, DType::float32, {}, 2, shape, nullptr}, kind), std::string());
  CHECK_EQ(refusal_of({numbers, DType::float32, {}, 2, shape, any}, kind), std::string());
  CHECK_EQ(refusal_of({numbers, DType::bfloat16, {}, 2, shape, nullptr}, kind),
           std::string("state leaf 0 row: dtype bfloat16, expected float32"));
  CHECK_EQ(kind, ErrorKind::type);
  CHECK_EQ(refusal_of({numbers, DType::float32, {}, 1, flat, nullptr}, kind),
           std::string("state leaf 0 row: shape (4,), expected (4, 1)"));
  CHECK_EQ(kind, ErrorKind::value);
  CHECK_EQ(refusal_of({numbers, DType::float32, {}, 2, turned, nullptr}, kind),
           std::string("state leaf 0 row: shape (1, 4), expected (4, 1)"));
  CHECK_EQ(refusal_of({numbers, DType::float32, {}, 2, shape, strides}, kind),
           std::string("state leaf 0 row: strides of (2, 1), expected strides of (1, 1)"));
  CHECK_EQ(kind, ErrorKind::buffer);
  CHECK_EQ(refusal_of({reinterpret_cast<std::byte*>(numbers) + 1, DType::float32, {}, 2, shape, nullptr}, kind),
           std::string("state leaf 0 row: a misaligned array, expected elements at multiples of their size"));
  CHECK_EQ(refusal_of({numbers, DType::float32, {adafactor::DeviceType::cuda, 0}, 2, shape, nullptr}, kind),
           std::string("state leaf 0 row: an array on cuda:0, expected an array in the CPU's memory"));
}

// The state of a leaf of 4 x 6 in memory of its own.
struct Arrays {
  std::vector<float> row = std::vector<float>(4), col = std::vector<float>(6), momentum = std::vector<float>(24);

  bool renew(StateKind kind, TensorView& view, std::int64_t* strides) {
    static constexpr std::int64_t shapes[][2] = {{4, 1}, {1, 6}, {0, 0}, {4, 6}};
    const auto index = static_cast<std::size_t>(kind);
    std::vector<float>& array = kind == StateKind::row ? row : kind == StateKind::col ? col : momentum;
    if (view.data == array.data()) return false;
    strides[0] = kind == StateKind::row ? 1 : 6;
    strides[1] = 1;
    view = {array.data(), DType::float32, {}, 2, shapes[index], strides};
    return true;
  }
  // Returns how many were others than before.
  int take(LentState& state) {
    int others = 0;
    state.take([&](std::size_t, StateKind kind, TensorView& view, std::int64_t* strides) {
      const bool is_another = renew(kind, view, strides);
      others += is_another;
      return is_another;
    });
    return others;
  }
};

void what_lies_where_it_lay_is_known() {
  const Plan plan = plan_of({4, 6});
  LentState state(plan);
  Arrays first;
  Arrays other;
  CHECK_EQ(first.take(state), 3);
  CHECK_EQ(first.take(state), 0);
  const adafactor::StateSlots& arrays = state.arrays()[0];
  CHECK(arrays.before.row == first.row.data() && arrays.after.col == first.col.data());
  CHECK(arrays.before.momentum == first.momentum.data() && !arrays.before.full && !arrays.before.average);
  CHECK_EQ(other.take(state), 3);
  CHECK(arrays.before.row == other.row.data());
}

void memory_that_a_state_shares_with_a_parameter_is_found() {
  const Plan plan = plan_of({4, 6});
  LentState state(plan);
  Arrays arrays;
  CHECK_EQ(arrays.take(state), 3);
  std::vector<float> w(24);
  const std::int64_t shape[] = {4, 6};
  TensorView parameter{w.data(), DType::float32, {}, 2, shape, nullptr};
  adafactor::MemoryCheck check;
  const auto refusal = [&]() -> std::string {
    try {
      check.refuse_shared({{&parameter, 1}, {}, {}, state.views(), {}});
    } catch (const adafactor::Error& error) {
      return error.what();
    }
    return "";
  };
  CHECK_EQ(refusal(), std::string());
  parameter.data = arrays.momentum.data();
  CHECK_EQ(refusal(), std::string("params leaf 0: shares memory with state leaf 0, expected memory of its own"));
}

}  // namespace

int main() {
  arrays_have_the_axes_of_their_leaf_in_the_order_of_the_core();
  what_does_not_fit_is_refused_by_name();
  no_elements_lie_anywhere();
  what_lies_where_it_lay_is_known();
  memory_that_a_state_shares_with_a_parameter_is_found();
  return check::report();
}
