// Arrays that come in through DLPack.
#pragma once

#include "loans.hpp"
#include "raw_array.hpp"

namespace adafactor::bindings {

// The exchange interface of a type in the version that is read here; null where it has none.
const dlpack::ExchangeApi* exchange_api_of(py::handle type);

// What the object fills in itself and owns; it grants every write.
dlpack::Tensor exchange(py::handle object, const dlpack::ExchangeApi& api, const Request& request);
RawArray read_exchanged(const dlpack::Tensor& tensor, const Request& request);

// Whether a tensor is the one that the view was made of, in the same memory, and no lazy negation: its strides are not
// those of imaginary parts, of which torch negates the ones of a conjugate. False where it takes more to find out.
bool is_plainly(const TensorView& view, const dlpack::Tensor& tensor, const Request& request);

// A tensor with flags that is given back after the call.
RawArray read_managed(py::handle object, const dlpack::ExchangeApi& api, Loans& loans, const Request& request);

// What `__dlpack__` gives. A capsule of the first kind has no flags; `legacy` says whether its array may be written.
RawArray read_capsule(py::handle object, Permission legacy, Loans& loans, const Request& request);

}  // namespace adafactor::bindings
