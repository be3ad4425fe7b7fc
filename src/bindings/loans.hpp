// What objects lend to a call: tensors out of capsules, and buffers.
#pragma once

#include <pybind11/pybind11.h>

#include <deque>
#include <memory>
#include <vector>

#include "dlpack.hpp"

namespace adafactor::bindings {

namespace py = pybind11;

// A tensor that an object has lent for longer than a call.
struct GiveBackTensor {
  void operator()(dlpack::ManagedTensorVersioned* tensor) const noexcept;
};
using Loan = std::unique_ptr<dlpack::ManagedTensorVersioned, GiveBackTensor>;

// Given back once each, with the GIL held, on every way out of the call.
class Loans {
 public:
  Loans() = default;
  Loans(const Loans&) = delete;
  Loans& operator=(const Loans&) = delete;
  ~Loans() { give_back(); }

  // Takes a tensor out of a capsule, which is marked as used up.
  const dlpack::ManagedTensorVersioned& take_versioned(const py::object& capsule);
  const dlpack::ManagedTensor& take_legacy(const py::object& capsule);
  // Takes what a function of an exchange interface returned.
  const dlpack::ManagedTensorVersioned& take(dlpack::ManagedTensorVersioned* tensor);
  // The buffer of an object; throws what the object raises.
  const Py_buffer& take_buffer(py::handle object);

  void give_back() noexcept;

 private:
  std::vector<dlpack::ManagedTensorVersioned*> versioned_;
  std::vector<dlpack::ManagedTensor*> legacy_;
  std::deque<Py_buffer> buffers_;  // which may point into themselves, and so stay where they are
};

}  // namespace adafactor::bindings
