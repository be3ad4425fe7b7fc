// Views of Eigen's matrices, for `Optimizer::step`. Opt-in: the only header that includes Eigen (3.4 or newer).
#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <type_traits>

#include "adafactor/door/arguments.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI {

// What has its elements in memory: matrices and arrays, blocks, transposes, maps and references of them; not a sum or a
// product, which Eigen computes when it is read. Its scalar is float or double.
template <class M>
concept EigenMatrix = requires(const M& matrix) {
  []<class Derived>(const Eigen::DenseBase<Derived>&) {}(matrix);
  requires Element<typename M::Scalar>;
  requires(M::Flags & Eigen::DirectAccessBit) != 0;
};

// A matrix that owns its elements, and takes them along when it goes.
template <class M>
concept EigenOwner =
    requires(const M& matrix) { []<class Derived>(const Eigen::PlainObjectBase<Derived>&) {}(matrix); };

// The elements of an Eigen matrix where they lie, row- or column-major, with any inner and outer stride: a leaf of
// shape {rows, cols}, or {size} for a vector by its type. Of a const matrix the view is const too, and serves as a
// gradient alone. Copies nothing; the matrix has to outlive the view, so a temporary one is refused by the compiler, as
// is any scalar but float and double.
//
// ```cpp
// #include <adafactor/adafactor.hpp>
// #include <adafactor/eigen.hpp>
// #include <Eigen/Core>
// #include <iostream>
//
// int main() {
//   Eigen::MatrixXf w = Eigen::MatrixXf::Constant(64, 32, 0.5f);
//   Eigen::VectorXf b = Eigen::VectorXf::Zero(32);
//   const Eigen::MatrixXf gw = Eigen::MatrixXf::Constant(64, 32, 0.25f);
//   const Eigen::VectorXf gb = Eigen::VectorXf::Constant(32, -1.0f);
//
//   adafactor::Config config;
//   config.learning_rate = 0.1;
//   adafactor::Optimizer optimizer{config,
//                                  {{{64, 32}, adafactor::DType::float32}, {{32}, adafactor::DType::float32}}};
//   optimizer.step({adafactor::view(w), adafactor::view(b)}, {adafactor::view(gw), adafactor::view(gb)});
//   std::cout << w(0, 0) << ' ' << b(0) << '\n';
// }
// ```
// ```text
// 0.45 0.0001
// ```
template <class Matrix>
  requires EigenMatrix<std::remove_cvref_t<Matrix>> &&
           (std::is_lvalue_reference_v<Matrix> || !EigenOwner<std::remove_cvref_t<Matrix>>)
auto view(Matrix&& matrix) {
  using M = std::remove_cvref_t<Matrix>;
  using T = std::remove_pointer_t<decltype(matrix.data())>;
  const auto inner = static_cast<std::int64_t>(matrix.innerStride());
  const auto outer = static_cast<std::int64_t>(matrix.outerStride());
  if constexpr (M::IsVectorAtCompileTime) {
    return MatrixView<T>{matrix.data(), 1, {static_cast<std::int64_t>(matrix.size()), 0}, {inner, 0}};
  } else {
    return MatrixView<T>{matrix.data(),
                         2,
                         {static_cast<std::int64_t>(matrix.rows()), static_cast<std::int64_t>(matrix.cols())},
                         {M::IsRowMajor ? outer : inner, M::IsRowMajor ? inner : outer}};
  }
}

}}  // namespace adafactor::ADAFACTOR_ABI
