// Taking over what objects lend, and giving it back.
#include "loans.hpp"

namespace adafactor::bindings {

namespace {

// A deleter may run Python, while an exception is on its way too; what it raises itself is nobody's to catch.
template <class Managed>
void give_back_one(Managed* managed) noexcept {
  if (!managed->deleter) return;
  PyObject *type, *value, *trace;
  PyErr_Fetch(&type, &value, &trace);
  managed->deleter(managed);
  if (PyErr_Occurred()) PyErr_WriteUnraisable(nullptr);
  PyErr_Restore(type, value, trace);
}

template <class Managed>
void give_back_all(std::vector<Managed*>& taken) noexcept {
  while (!taken.empty()) {
    Managed* managed = taken.back();
    taken.pop_back();
    give_back_one(managed);
  }
}

// The list has room before the tensor is taken, so that none is lost for want of memory.
template <class Managed>
const Managed& take_from(std::vector<Managed*>& taken, const py::object& capsule, const char* name,
                         const char* used_name) {
  if (taken.size() == taken.capacity()) taken.reserve(2 * taken.size() + 16);
  auto* managed = static_cast<Managed*>(PyCapsule_GetPointer(capsule.ptr(), name));
  if (!managed || PyCapsule_SetName(capsule.ptr(), used_name) != 0) throw py::error_already_set();
  taken.push_back(managed);
  return *managed;
}

}  // namespace

void GiveBackTensor::operator()(dlpack::ManagedTensorVersioned* tensor) const noexcept { give_back_one(tensor); }

const dlpack::ManagedTensorVersioned& Loans::take_versioned(const py::object& capsule) {
  return take_from(versioned_, capsule, dlpack::kVersionedName, dlpack::kUsedVersionedName);
}

const dlpack::ManagedTensor& Loans::take_legacy(const py::object& capsule) {
  return take_from(legacy_, capsule, dlpack::kLegacyName, dlpack::kUsedLegacyName);
}

const dlpack::ManagedTensorVersioned& Loans::take(dlpack::ManagedTensorVersioned* tensor) {
  try {
    versioned_.push_back(tensor);
  } catch (...) {
    give_back_one(tensor);
    throw;
  }
  return *tensor;
}

const Py_buffer& Loans::take_buffer(py::handle object) {
  Py_buffer& buffer = buffers_.emplace_back();
  if (PyObject_GetBuffer(object.ptr(), &buffer, PyBUF_FULL_RO) != 0) {
    buffers_.pop_back();
    throw py::error_already_set();
  }
  return buffer;
}

void Loans::give_back() noexcept {
  give_back_all(versioned_);
  give_back_all(legacy_);
  for (; !buffers_.empty(); buffers_.pop_back()) PyBuffer_Release(&buffers_.back());
}

}  // namespace adafactor::bindings
