// What a call needs of the CPU besides its phases: the backend of this file, the bytes of scratch, words about numbers.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>

#include "adafactor/cpu/backend.hpp"
#include "adafactor/cpu/runs/walk.hpp"
#include "adafactor/cpu/threads/threads.hpp"
#include "adafactor/host/floating_point.hpp"
#include "adafactor/state.hpp"
#include "adafactor/step/call.hpp"
#include "adafactor/step/report.hpp"
#include "adafactor/step/step.hpp"
#include "adafactor/step/workspace.hpp"

#if ADAFACTOR_DEFINES_STEP

#include "adafactor/compiler/exact_begin.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI {

namespace detail {

// One element of an array.
inline double number_at(const std::byte* element, DType dtype) {
  double number = 0;
  const auto read = [&](auto storage) {
    number = load<double>(reinterpret_cast<const typename decltype(storage)::type*>(element), One{});
  };
  if (arithmetic_of(dtype) == DType::float64) {
    with_storage<double>(dtype, read);
  } else {
    with_storage<float>(dtype, read);
  }
  return number;
}

}  // namespace detail

ADAFACTOR_FUNCTION std::int64_t scratch_nbytes(const Plan& plan) {
  return detail::nbytes_of<Workspace>(plan, detail::nbytes_of<CpuScratch>(plan));
}

// Element by element, for a message alone.
ADAFACTOR_RARE ADAFACTOR_FUNCTION std::string nonfinite_text(const TensorView& view) {
  std::int64_t buffer[kMaxRank];
  const std::int64_t* strides = detail::strides_of(view, buffer);
  Axis axes[kMaxRank];
  std::int64_t size = 1;
  for (int axis = 0; axis < view.rank; ++axis) {
    axes[axis] = {view.shape[axis], strides[axis]};
    size *= view.shape[axis];
  }
  std::int64_t nan = 0;
  std::int64_t infinite = 0;
  for (std::int64_t i = 0; i < size; ++i) {
    const auto* element =
        static_cast<const std::byte*>(view.data) + offset_along(axes, view.rank, i) * item_size(view.dtype);
    const double value = detail::number_at(element, view.dtype);
    nan += std::isnan(value);
    infinite += std::isinf(value);
  }
  if (nan == 0 && infinite == 0) return "";
  return counted(nan, " NaN and ") + counted(infinite, " Inf of ") + counted(size, " values");
}

}}  // namespace adafactor::ADAFACTOR_ABI

#include "adafactor/compiler/exact_end.hpp"

#endif  // ADAFACTOR_DEFINES_STEP
