// Adafactor as the paper writes it, line by line, in double with Eigen: what whole steps are compared with.
// Source: Shazeer and Stern 2018, arXiv:1804.04235, algorithms 4 (matrices) and 5 (vectors), with the choices of
// algorithm 6; the decoupled weight decay is that of Keras.
#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <optional>

namespace paper {

using Matrix = Eigen::MatrixXd;
using Vector = Eigen::VectorXd;

struct Hyperparameters {
  double largest_rho = 1e-2;  // rho_t = min(1e-2, 1/sqrt(t))
  double decay_rate = 0.8;    // beta2_t = 1 - t^-0.8
  double epsilon_1 = 1e-30;
  double epsilon_2 = 1e-3;
  std::optional<double> d = 1;  // clips updates; none: no clipping
  double weight_decay = 0;
};

template <class Derived>
double RMS(const Eigen::MatrixBase<Derived>& x) {
  return std::sqrt(x.squaredNorm() / static_cast<double>(x.size()));
}

// What the two algorithms have in common: all but the estimate V of the second moment.
template <class Tensor>
class Adafactor {
 public:
  Adafactor(const Hyperparameters& hyperparameters, const Tensor& initial) : X(initial), h_(hyperparameters) {}

  Tensor X;
  double alpha = 0;
  double clip_factor = 1;  // 1 / max(1, RMS(U) / d)

 protected:
  double begin_step() {
    const double t = ++t_;
    rho_ = std::min(h_.largest_rho, 1 / std::sqrt(t));
    X *= 1 - h_.weight_decay * h_.largest_rho;
    alpha = std::max(h_.epsilon_2, RMS(X)) * rho_;
    return 1 - std::pow(t, -h_.decay_rate);
  }

  void end_step(const Tensor& G, const Tensor& V) {
    const Tensor U = G.cwiseQuotient(V.cwiseSqrt());
    clip_factor = h_.d ? 1 / std::max(1.0, RMS(U) / *h_.d) : 1;
    const Tensor U_hat = U * clip_factor;
    X -= alpha * U_hat;
  }

  Tensor squares(const Tensor& G) const { return (G.array().square() + h_.epsilon_1).matrix(); }

 private:
  Hyperparameters h_;
  double rho_ = 0;
  double t_ = 0;
};

// Algorithm 4.
class MatrixAdafactor : public Adafactor<Matrix> {
 public:
  MatrixAdafactor(const Hyperparameters& hyperparameters, const Matrix& initial)
      : Adafactor(hyperparameters, initial), R(Vector::Zero(initial.rows())), C(Vector::Zero(initial.cols())) {}

  void step(const Matrix& G) {
    const double beta_2 = begin_step();
    const Vector ones_n = Vector::Ones(G.rows());
    const Vector ones_m = Vector::Ones(G.cols());
    R = beta_2 * R + (1 - beta_2) * (squares(G) * ones_m);
    C = beta_2 * C + (1 - beta_2) * (squares(G).transpose() * ones_n);
    const Matrix V = R * C.transpose() / ones_n.dot(R);
    end_step(G, V);
  }

  Vector R, C;
};

// Algorithm 5.
class VectorAdafactor : public Adafactor<Vector> {
 public:
  VectorAdafactor(const Hyperparameters& hyperparameters, const Vector& initial)
      : Adafactor(hyperparameters, initial), V(Vector::Zero(initial.size())) {}

  void step(const Vector& G) {
    const double beta_2 = begin_step();
    V = beta_2 * V + (1 - beta_2) * squares(G);
    end_step(G, V);
  }

  Vector V;
};

}  // namespace paper
