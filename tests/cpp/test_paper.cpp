// Whole steps against the paper's algorithms: factored and not, with and without clipping and decay, in float and in
// double, and for matrices of either order in memory.
#include <Eigen/Core>
#include <cstdint>
#include <string>

#include "adafactor/adafactor.hpp"
#include "adafactor/eigen.hpp"
#include "paper.hpp"
#include "support/check.hpp"
#include "support/digest.hpp"

namespace {

using adafactor::Config;
using adafactor::StateKind;

// In units of the largest number: a few dozen roundings, one or two for each operation of ten updates.
template <class T>
constexpr double kTolerance = sizeof(T) == 8 ? 1e-13 : 2e-6;

template <class Tensor>
void fill(Tensor& x, std::uint64_t seed) {
  using T = typename Tensor::Scalar;
  for (Eigen::Index i = 0; i < x.size(); ++i) {
    x.data()[i] = digest::number<T>(seed, static_cast<std::size_t>(i), {-4, 1, 0});
  }
}

template <class Found, class Expected>
void near(const std::string& name, const Found& found, const Expected& expected, double tolerance) {
  const double worst =
      (found.template cast<double>() - expected).cwiseAbs().maxCoeff() / expected.cwiseAbs().maxCoeff();
  CHECK_EQ(name + (worst <= tolerance ? "" : " differs by " + check::describe(worst)), name);
}

struct Setting {
  std::string name;
  paper::Hyperparameters paper;
};

std::vector<Setting> settings() {
  std::vector<Setting> result{
      {"plain", {}}, {"no clipping", {}}, {"tight clipping", {}}, {"decay", {}}, {"capped", {}}};
  result[1].paper.d.reset();
  result[2].paper.d = 0.25;
  result[3].paper.weight_decay = 0.5;
  result[4].paper.largest_rho = 10;  // so that 1/sqrt(t) is the smaller
  result[4].paper.decay_rate = 0.5;
  return result;
}

Config config_of(const paper::Hyperparameters& h) {
  Config config;
  config.learning_rate = h.largest_rho;
  config.beta_2_decay = -h.decay_rate;
  config.epsilon_1 = h.epsilon_1;
  config.epsilon_2 = h.epsilon_2;
  config.clip_threshold = h.d;
  if (h.weight_decay > 0) config.weight_decay = h.weight_decay;
  return config;
}

template <class T, int order>
void a_matrix_goes_as_in_the_paper(const Setting& setting, Eigen::Index rows, Eigen::Index cols) {
  using Matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, order>;
  Matrix x(rows, cols);
  Matrix g(rows, cols);
  fill(x, 1);
  paper::MatrixAdafactor expected(setting.paper, x.template cast<double>());
  adafactor::Optimizer optimizer{config_of(setting.paper), {{{rows, cols}, adafactor::dtype_of<T>}}};
  for (std::uint64_t call = 0; call < 10; ++call) {
    fill(g, 100 + call);
    optimizer.step({adafactor::view(x)}, {adafactor::view(g)});
    expected.step(g.template cast<double>());
  }
  const std::string name = setting.name + " matrix " + check::describe(std::vector{rows, cols});
  near(name, x, expected.X, kTolerance<T>);
  // The paper keeps sums, the state means.
  const auto row = optimizer.array<T>(0, StateKind::row);
  const auto col = optimizer.array<T>(0, StateKind::col);
  using Moments = Eigen::Map<const Eigen::Matrix<T, Eigen::Dynamic, 1>>;
  near(name + " row", Moments(row.data(), rows), expected.R / static_cast<double>(cols), kTolerance<T>);
  near(name + " col", Moments(col.data(), cols), expected.C / static_cast<double>(rows), kTolerance<T>);
  CHECK_NEAR(optimizer.report(0).step_size, expected.alpha, kTolerance<T> * expected.alpha);
  CHECK_NEAR(optimizer.report(0).clip_factor, expected.clip_factor, 4 * kTolerance<T>);
}

template <class T>
void a_vector_goes_as_in_the_paper(const Setting& setting, Eigen::Index size) {
  Eigen::Matrix<T, Eigen::Dynamic, 1> x(size);
  Eigen::Matrix<T, Eigen::Dynamic, 1> g(size);
  fill(x, 1);
  paper::VectorAdafactor expected(setting.paper, x.template cast<double>());
  adafactor::Optimizer optimizer{config_of(setting.paper), {{{size}, adafactor::dtype_of<T>}}};
  for (std::uint64_t call = 0; call < 10; ++call) {
    fill(g, 100 + call);
    optimizer.step({adafactor::view(x)}, {adafactor::view(g)});
    expected.step(g.template cast<double>());
  }
  const std::string name = setting.name + " vector " + std::to_string(size);
  near(name, x, expected.X, kTolerance<T>);
  CHECK_NEAR(optimizer.report(0).step_size, expected.alpha, kTolerance<T> * expected.alpha);
  CHECK_NEAR(optimizer.report(0).clip_factor, expected.clip_factor, 4 * kTolerance<T>);
}

template <class T>
void steps_go_as_in_the_paper() {
  for (const Setting& setting : settings()) {
    for (const auto& [rows, cols] : {std::pair{1, 1}, {7, 3}, {1, 40}, {40, 1}, {64, 33}, {300, 530}}) {
      a_matrix_goes_as_in_the_paper<T, Eigen::ColMajor>(setting, rows, cols);
    }
    a_matrix_goes_as_in_the_paper<T, Eigen::RowMajor | Eigen::AutoAlign>(setting, 64, 33);
    for (const Eigen::Index size : {1, 5, 700}) a_vector_goes_as_in_the_paper<T>(setting, size);
  }
}

}  // namespace

int main() {
  steps_go_as_in_the_paper<float>();
  steps_go_as_in_the_paper<double>();
  return check::report();
}
