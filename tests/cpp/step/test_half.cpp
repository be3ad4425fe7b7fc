// Optimizer over elements of 16 bits: the step of the same numbers in float, rounded once.
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "adafactor/adafactor.hpp"
#include "adafactor/lanes/formats.hpp"
#include "support/check.hpp"

namespace {

using adafactor::Bfloat16;
using adafactor::Config;
using adafactor::DType;
using adafactor::Float16;
using adafactor::LeafSpec;
using adafactor::Optimizer;
using adafactor::StateKind;

constexpr std::size_t kRows = 20;
constexpr std::size_t kCols = 33;

template <class Half>
std::vector<Half> halves(float first, float step) {
  std::vector<Half> values;
  for (std::size_t i = 0; i < kRows * kCols; ++i) {
    values.push_back(adafactor::round_to<Half>(first + step * static_cast<float>(i)));
  }
  return values;
}

template <class Half>
std::vector<float> floats(const std::vector<Half>& halves) {
  std::vector<float> values;
  for (const Half half : halves) values.push_back(adafactor::to_float(half));
  return values;
}

std::vector<LeafSpec> leaf_of(DType dtype) {
  LeafSpec leaf;
  leaf.shape = {static_cast<std::int64_t>(kRows), static_cast<std::int64_t>(kCols)};
  leaf.dtype = dtype;
  return {leaf};
}

template <class Half>
void a_step_is_that_of_floats_rounded_once() {
  std::vector<Half> w = halves<Half>(1.0f, 0.01f);
  const std::vector<Half> g = halves<Half>(-3.0f, 0.01f);
  std::vector<float> wide = floats(w);
  const std::vector<float> wide_gradient = floats(g);
  Optimizer optimizer{Config{}, leaf_of(adafactor::dtype_of<Half>)};
  Optimizer in_float{Config{}, leaf_of(DType::float32)};
  optimizer.step({w.data()}, {g.data()});
  in_float.step({wide.data()}, {wide_gradient.data()});
  int wrong = 0;
  for (std::size_t i = 0; i < w.size(); ++i) wrong += w[i].bits != adafactor::round_to<Half>(wide[i]).bits;
  CHECK_EQ(wrong, 0);
  CHECK_EQ(optimizer.nbytes(), in_float.nbytes());
  CHECK_EQ(optimizer.array<float>(0, StateKind::row)[3], in_float.array<float>(0, StateKind::row)[3]);
}

void gradients_may_be_of_another_type() {
  std::vector<Bfloat16> w = halves<Bfloat16>(1.0f, 0.01f);
  std::vector<Bfloat16> same = w;
  const std::vector<Float16> g = halves<Float16>(-3.0f, 0.01f);
  const std::vector<float> wide = floats(g);
  Optimizer first{Config{}, leaf_of(DType::bfloat16)};
  Optimizer second{Config{}, leaf_of(DType::bfloat16)};
  first.step({w.data()}, {g.data()});
  second.step({same.data()}, {wide.data()});
  int wrong = 0;
  for (std::size_t i = 0; i < w.size(); ++i) wrong += w[i].bits != same[i].bits;
  CHECK_EQ(wrong, 0);
}

void what_is_refused() {
  std::vector<Float16> w = halves<Float16>(1.0f, 0.01f);
  std::vector<Float16> g = halves<Float16>(-3.0f, 0.01f);
  const std::vector<double> wide(kRows * kCols, 1.0);
  std::vector<float> w32(kRows * kCols, 1.0f);
  Optimizer optimizer{Config{}, leaf_of(DType::float16)};
  CHECK_EQ(CHECK_THROWS(optimizer.step({w.data()}, {wide.data()}), adafactor::Error),
           "grads leaf 0: dtype float64, expected float32, bfloat16 or float16");
  CHECK_EQ(CHECK_THROWS(optimizer.step({w32.data()}, {g.data()}), adafactor::Error),
           "params leaf 0: dtype float32, expected float16 as in the state");
  g[5] = adafactor::round_to<adafactor::Float16>(std::numeric_limits<float>::infinity());
  g[6] = {0x7c01};
  const std::string found = CHECK_THROWS(optimizer.step({w.data()}, {g.data()}), adafactor::Error);
  CHECK(found.starts_with("grads leaf 0: 1 NaN and 1 Inf of 660 values"));
  CHECK_EQ(optimizer.calls(), 0);
}

// The path decides the noise: the index of the leaf where there is none.
void noise_is_that_of_the_path() {
  Config config;
  config.rounding = adafactor::Rounding::stochastic;
  const std::vector<float> g(kRows * kCols, 0.5f);
  const auto stepped = [&](const std::string& path) {
    std::vector<Bfloat16> w = halves<Bfloat16>(1.0f, 0.01f);
    std::vector<LeafSpec> leaves = leaf_of(DType::bfloat16);
    leaves[0].path = path;
    Optimizer optimizer{config, leaves};
    optimizer.step({w.data()}, {g.data()});
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < w.size(); ++i) sum = sum * 31 + w[i].bits;
    return sum;
  };
  CHECK_EQ(stepped(""), stepped("0"));
  CHECK(stepped("1") != stepped("0"));
}

}  // namespace

int main() {
  a_step_is_that_of_floats_rounded_once<Bfloat16>();
  a_step_is_that_of_floats_rounded_once<Float16>();
  gradients_may_be_of_another_type();
  what_is_refused();
  noise_is_that_of_the_path();
  return check::report();
}
