// The types that NumPy lacks: to the package their numbers are bits, and are converted here, by the core's own
// rounding.
#include <cstddef>
#include <string>
#include <vector>

#include "adafactor/lanes/stored.hpp"
#include "bindings.hpp"
#include "numpy_array.hpp"

namespace adafactor::bindings {

namespace {

template <class T>
using Compact = py::array_t<T, py::array::c_style | py::array::forcecast>;

// Calls body(element), an element of the type of that name, which NumPy lacks.
template <class Body>
void with_element(const std::string& name_of_type, const Body& body) {
  for (const DType dtype : kDTypes) {
    if (traits_of(dtype).letter || name_of_type != name(dtype)) continue;
    return with_storage<float>(dtype, [&](auto storage) {
      using S = typename decltype(storage)::type;
      if constexpr (Formatted<S>) body(S{});
    });
  }
  throw py::key_error(name_of_type);
}

// A new array of the same shape, each number of it made of one of these.
template <class To, class From, class Make>
py::array converted(const Compact<From>& from, const Make& make) {
  py::array_t<To> to(std::vector<py::ssize_t>(from.shape(), from.shape() + from.ndim()));
  To* numbers = to.mutable_data();
  for (py::ssize_t i = 0; i < from.size(); ++i) numbers[i] = make(from.data()[i]);
  return to;
}

py::array to_bits(const Compact<float>& values, const std::string& name_of_type) {
  py::array bits;
  with_element(name_of_type, [&](auto element) {
    using S = decltype(element);
    bits = converted<decltype(S::bits)>(values, [](float value) { return round_to<S>(value).bits; });
  });
  return bits;
}

py::array from_bits(const py::array& bits, const std::string& name_of_type) {
  py::array values;
  with_element(name_of_type, [&](auto element) {
    using S = decltype(element);
    using Bits = decltype(S::bits);
    values = converted<float>(Compact<Bits>(bits), [](Bits each) { return to_float(S{each}); });
  });
  return values;
}

}  // namespace

void bind_bits(py::module_& m) {
  py::dict types;
  for (const DType dtype : kDTypes) {
    if (!traits_of(dtype).letter) types[name(dtype)] = numpy_dtype(dtype).attr("name");
  }
  m.attr("bit_types") = types;
  m.def("to_bits", &to_bits, py::arg("values"), py::arg("dtype"),
        "The bits of numbers rounded to nearest, ties to even, to a type that NumPy lacks; a NaN stays one.");
  m.def("from_bits", &from_bits, py::arg("bits"), py::arg("dtype"),
        "The numbers that these bits are in a type that NumPy lacks, as float32.");
}

}  // namespace adafactor::bindings
