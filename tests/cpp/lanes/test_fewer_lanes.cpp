// Four and eight numbers at a time: what they do is what the first of sixteen do, to the bit, and no byte beyond.
#include <cmath>

#include "adafactor/lanes/formats.hpp"
#include "adafactor/lanes/lanes.hpp"
#include "support/check.hpp"
#include "support/sixteen.hpp"

namespace {

using adafactor::Exactly;
using adafactor::kLanes;
using adafactor::Lanes;
using adafactor::One;
using sixteen::lanes_of;
using sixteen::numbers;
using sixteen::same;
using sixteen::same_bits;
using sixteen::Sixteen;
using sixteen::special_numbers;
using sixteen::values_of;

// Whether the first n of sixteen numbers are those of the fewer lanes.
template <class T, int n>
bool begins_with(const Sixteen<T>& whole, const Lanes<T, n>& lanes) {
  Sixteen<T> found = whole;
  adafactor::store(found.data(), lanes, Exactly<n>{});
  return same(found, whole);
}

template <class T, int n>
void fewer_lanes_do_what_sixteen_do() {
  constexpr Exactly<n> amount;
  for (int salt = 0; salt < kLanes; ++salt) {
    const Sixteen<T> a = special_numbers<T>(0);
    const Sixteen<T> b = salt % 2 ? special_numbers<T>(salt) : numbers<T>(salt);
    const Lanes<T> x = lanes_of(a);
    const Lanes<T> y = lanes_of(b);
    const Lanes<T, n> p = adafactor::load<T>(a.data(), amount);
    const Lanes<T, n> q = adafactor::load<T>(b.data(), amount);
    CHECK(begins_with(values_of(x + y), p + q));
    CHECK(begins_with(values_of(x - y), p - q));
    CHECK(begins_with(values_of(x * y), p * q));
    CHECK(begins_with(values_of(x / y), p / q));
    CHECK(begins_with(values_of(smaller(x, y)), smaller(p, q)));
    CHECK(begins_with(values_of(larger(x, y)), larger(p, q)));
    CHECK(begins_with(values_of(where_nonzero(x, y)), where_nonzero(p, q)));
    CHECK(begins_with(values_of(select_less(x, y, y, x)), select_less(p, q, q, p)));
    CHECK(begins_with(values_of(select_less(T{0}, x, y, x)), select_less(T{0}, p, q, p)));
    CHECK(begins_with(values_of(square_root(x)), square_root(p)));
    CHECK(begins_with(values_of(x * b[3]), p * b[3]));
    CHECK(begins_with(values_of(b[3] / x), b[3] / p));
    CHECK(begins_with(values_of(adafactor::fill(b[3])), adafactor::fill<T, n>(b[3])));
    CHECK(begins_with(values_of(widen(x)), widen(p)));
    Sixteen<T> squares{};
    for (std::size_t i = 0; i < n; ++i) squares[i] = std::abs(numbers<T>(salt)[i]);
    const Lanes<T, n> few = adafactor::load<T>(squares.data(), amount);
    CHECK(same_bits(adafactor::fold(few), adafactor::fold(lanes_of(squares))));
  }
}

// Not a byte beyond, and of 16 bits what one number does.
template <class S, int n>
void fewer_lanes_keep_to_their_elements() {
  constexpr Exactly<n> amount;
  const Sixteen<float> values = numbers<float>(2);
  Sixteen<S> stored{};
  adafactor::store(stored.data(), adafactor::load<float>(values.data(), amount), amount);
  const Sixteen<float> loaded = [&] {
    Sixteen<float> wide{};
    adafactor::store(wide.data(), adafactor::load<float>(stored.data(), amount), amount);
    return wide;
  }();
  for (std::size_t i = 0; i < kLanes; ++i) {
    S expected{};
    if (i < n) adafactor::store(&expected, values[i], One{});
    CHECK(same_bits(stored[i], expected));
    CHECK(same_bits(loaded[i], adafactor::load<float>(&expected, One{})));
  }
}

template <int n>
void fewer_lanes_are_those_of_sixteen() {
  fewer_lanes_do_what_sixteen_do<float, n>();
  fewer_lanes_do_what_sixteen_do<double, n>();
  fewer_lanes_keep_to_their_elements<float, n>();
  fewer_lanes_keep_to_their_elements<double, n>();
  fewer_lanes_keep_to_their_elements<adafactor::Bfloat16, n>();
  fewer_lanes_keep_to_their_elements<adafactor::Float16, n>();
}

}  // namespace

int main() {
  if (!check::runs_here()) return check::kSkipped;
  fewer_lanes_are_those_of_sixteen<8>();
  fewer_lanes_are_those_of_sixteen<4>();
  return check::report();
}
