// Trains a small network with Eigen and prints how far the loss fell, then the digests of the other files.
#include <Eigen/Core>
#include <adafactor/adafactor.hpp>
#include <adafactor/eigen.hpp>
#include <cstdint>
#include <iostream>
#include <random>

#include "digest.hpp"

std::uint64_t baseline_digest();
std::uint64_t wide_digest();
std::uint64_t compiled_digest();
std::uint64_t compiled_wide_digest(adafactor::Optimizer& optimizer);

namespace {

using Matrix = Eigen::MatrixXf;
using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

bool has_wide_vectors() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
  return true;
#endif
}

Matrix random_matrix(Eigen::Index rows, Eigen::Index cols, std::mt19937& random) {
  // Not std::normal_distribution, which every standard library draws in its own way.
  return Matrix::NullaryExpr(rows, cols, [&] { return static_cast<float>(random()) * 0x1p-31f - 1.0f; });
}

// Mean squared error of a network with 16 tanh units that learns the product of two of its four inputs. The leaves are
// a column-major matrix, a row-major one and two vectors.
void train() {
  std::mt19937 random(1);
  const Matrix inputs = random_matrix(256, 4, random);
  const Matrix targets = inputs.col(0).cwiseProduct(inputs.col(1));
  Matrix w1 = random_matrix(4, 16, random);
  Eigen::RowVectorXf b1 = Eigen::RowVectorXf::Zero(16);
  RowMajor w2 = 0.25f * random_matrix(16, 1, random);
  Eigen::RowVectorXf b2 = Eigen::RowVectorXf::Zero(1);

  adafactor::Config config;
  config.learning_rate = 0.05;
  const auto type = adafactor::DType::float32;
  adafactor::Optimizer optimizer{config, {{{4, 16}, type}, {{16}, type}, {{16, 1}, type}, {{1}, type}}};
  float first = 0;
  float last = 0;
  for (int call = 0; call < 600; ++call) {
    const Matrix hidden = ((inputs * w1).rowwise() + b1).array().tanh();
    const Matrix error = ((hidden * w2).rowwise() + b2) - targets;
    last = error.squaredNorm() / 256;
    if (call == 0) first = last;
    const Matrix slope = error * (2.0f / 256);
    const Matrix back = (slope * w2.transpose()).array() * (1 - hidden.array().square());
    const Matrix gw1 = inputs.transpose() * back;
    const Eigen::RowVectorXf gb1 = back.colwise().sum();
    const RowMajor gw2 = hidden.transpose() * slope;
    const Eigen::RowVectorXf gb2 = slope.colwise().sum();
    using adafactor::view;
    optimizer.step({view(w1), view(b1), view(w2), view(b2)}, {view(gw1), view(gb1), view(gw2), view(gb2)});
  }
  std::cout << "loss " << first << " " << last << '\n';
}

}  // namespace

int main() {
  train();
  std::cout << "baseline " << baseline_digest() << '\n';
  std::cout << "compiled " << compiled_digest() << '\n';
  if (!has_wide_vectors()) return 0;
  std::cout << "wide " << wide_digest() << '\n';
  adafactor::Optimizer optimizer = make_optimizer();
  std::cout << "compiled_wide " << compiled_wide_digest(optimizer) << '\n';
}
