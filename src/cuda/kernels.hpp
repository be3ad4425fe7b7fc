// The kernels by their names: who launches one calls its functor once for each thread of each block.
#pragma once

#include "adafactor/dtype.hpp"
#include "apply.hpp"
#include "decisions.hpp"
#include "factors.hpp"
#include "functions.hpp"
#include "moments.hpp"
#include "rms.hpp"

namespace adafactor::cuda {

// Calls body.operator()<G, P>() with what gradients and parameters are stored as.
template <class Body>
void with_pair(const Variant& variant, const Body& body) {
  with_storage<float>(variant.gradient, [&](auto of_gradient) {
    with_storage<float>(variant.parameter, [&](auto of_parameter) {
      body.template operator()<typename decltype(of_gradient)::type, typename decltype(of_parameter)::type>();
    });
  });
}

// Calls body(functor) with the kernel's, where it is one that goes through the elements.
template <class T, class Body>
void with_kernel_of(Kernel kernel, const Body& body) {
  switch (kernel) {
    case Kernel::column_moments:
      return body(ColumnMoments<T>{});
    case Kernel::slice_moments:
      return body(SliceMoments<T>{});
    case Kernel::cell_squares:
      return body(CellSquares<T>{});
    case Kernel::tile_moments:
      return body(TileMoments<T>{});
    case Kernel::means:
      return body(Means<T>{});
    case Kernel::factors:
      return body(Factors<T>{});
    case Kernel::cell_rms:
      return body(CellRms<T, false>{});
    case Kernel::tile_rms:
      return body(TileRms<T, false>{});
    case Kernel::apply:
      return body(Apply<T>{});
    case Kernel::commit:
      return body(Commit<T>{});
    default:
      return;
  }
}

// Calls body(functor) with the kernel's.
template <class Body>
void with_kernel(const Variant& variant, const Body& body) {
  switch (variant.kernel) {
    case Kernel::plain_moments:
      return with_storage<float>(variant.gradient, [&](auto of_gradient) {
        body(ColumnMoments<float, typename decltype(of_gradient)::type>{});
      });
    case Kernel::plain_rms:
      return with_pair(variant, [&]<class G, class P>() { body(PlainRms<float, G, P>{}); });
    case Kernel::plain_apply:
      return with_pair(variant, [&]<class G, class P>() { body(PlainApply<float, G, P>{}); });
    case Kernel::cell_rms_again:
      return body(CellRms<float, true>{});
    case Kernel::tile_rms_again:
      return body(TileRms<float, true>{});
    case Kernel::take_scale:
      return body(TakeScale{});
    case Kernel::find_norm:
      return body(FindNorm{});
    case Kernel::find_verdict:
      return body(FindVerdict{});
    case Kernel::find_clamp:
      return body(FindClamp{});
    case Kernel::find_wide:
      return body(FindWide{});
    case Kernel::find_step:
      return body(FindStep{});
    default:
      return variant.arithmetic == DType::float64 ? with_kernel_of<double>(variant.kernel, body)
                                                  : with_kernel_of<float>(variant.kernel, body);
  }
}

}  // namespace adafactor::cuda
