// How a C++ program names the arrays of a step, by a bare pointer, by a matrix with strides, or by a TensorView; and
// what else it may say of a call.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <type_traits>

#include "adafactor/plan.hpp"
#include "adafactor/tensor.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI {

// A vector (rank 1) or a matrix (rank 2) that belongs to somebody else, with any strides, in elements. T is const where
// it may not be written. It holds its own shape, so only `data` has to outlive it.
template <class T>
  requires Element<std::remove_const_t<T>>
struct MatrixView {
  T* data = nullptr;
  int rank = 2;
  std::array<std::int64_t, 2> shape{};
  std::array<std::int64_t, 2> strides{};
};

namespace detail {

// What a parameter and a gradient have in common. It borrows: it and what it was made from outlive the call.
class Argument {
 public:
  // The array; where the caller gave a bare pointer, laid out as the leaf is, in C order. Valid as long as both.
  TensorView view(const LeafPlan& leaf) const {
    TensorView view = view_;
    if (form_ == Form::pointer) {
      view.rank = static_cast<int>(leaf.spec.shape.size());
      view.shape = leaf.spec.shape.data();
    } else if (form_ == Form::matrix) {
      view.shape = shape_.data();
      view.strides = strides_.data();
    }
    return view;
  }

  // Whether a bare pointer leads to the array that a session has taken; that of any other form has to be looked at.
  bool is_plainly(const TensorView& taken) const {
    return form_ == Form::pointer && taken.data == view_.data && taken.dtype == view_.dtype && !taken.strides;
  }

  // Nobody's gradient, as the caller said; a bare null pointer says nothing.
  bool absent() const { return form_ == Form::tensor && !view_.data; }

 protected:
  Argument() = default;
  Argument(const void* data, DType dtype) : form_(Form::pointer) {
    view_.data = const_cast<void*>(data);
    view_.dtype = dtype;
  }
  explicit Argument(const TensorView& view) : view_(view) {}
  template <class T>
  explicit Argument(const MatrixView<T>& matrix) : form_(Form::matrix), shape_(matrix.shape), strides_(matrix.strides) {
    view_.data = const_cast<std::remove_const_t<T>*>(matrix.data);
    view_.dtype = dtype_of<T>;
    view_.rank = matrix.rank;
  }

 private:
  enum class Form : std::uint8_t { pointer, matrix, tensor };

  TensorView view_;
  Form form_ = Form::tensor;
  std::array<std::int64_t, 2> shape_{};
  std::array<std::int64_t, 2> strides_{};
};

}  // namespace detail

// A parameter of one call, which the step writes: implicitly made from a pointer to the first of its elements in C
// order, from `adafactor::view` of an Eigen matrix, from a MatrixView or a TensorView.
class ParameterArray : public detail::Argument {
 public:
  template <Element T>
  ParameterArray(T* data) : Argument(data, dtype_of<T>) {}
  template <Element T>
  ParameterArray(const MatrixView<T>& matrix) : Argument(matrix) {}
  ParameterArray(const TensorView& view) : Argument(view) {}
};

// A gradient of one call, which the step only reads: the same, and of const elements too. `nullptr`, or a TensorView
// without data, says that this leaf has none in this call and is left alone.
class GradientArray : public detail::Argument {
 public:
  GradientArray(std::nullptr_t) {}
  template <class T>
    requires Element<std::remove_const_t<T>>
  GradientArray(T* data) : Argument(data, dtype_of<T>) {}
  template <class T>
  GradientArray(const MatrixView<T>& matrix) : Argument(matrix) {}
  GradientArray(const TensorView& view) : Argument(view) {}
};

// What may differ from call to call.
struct StepOptions {
  // Instead of the configured learning rate, a finite number >= 0, relative to the scale of the parameter: how a
  // schedule drives the step. No cap at 1/sqrt(t), unless relative_step is `always`. An override with another rate than
  // the config has gets it times the ratio of the two, so that 0 stays 0. Default: the configured one.
  std::optional<double> learning_rate = {};
  // The same with one number for `config` and one for each of the overrides; at most one of the two.
  std::span<const double> learning_rates = {};
  // Every gradient is multiplied by it before anything else is done; finite.
  double grad_multiplier = 1;
};

}}  // namespace adafactor::ADAFACTOR_ABI
