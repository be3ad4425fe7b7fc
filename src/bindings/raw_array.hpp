// What an object says of the array that it is, whatever library it is from.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>

#include "adafactor/error.hpp"
#include "adafactor/tensor.hpp"

namespace adafactor::bindings {

namespace py = pybind11;

// Whether an array is only read, or written.
enum class Access { read, write };

// A stream of CUDA's, by its pointer; null is the legacy default stream.
struct Stream {
  void* handle = nullptr;
  bool is_followed = true;  // whether its library goes on there by itself; if not, a call ends before it returns
};

// What a call wants an array for: which one it is, and the types that would be right, for a message.
struct Request {
  Access access = Access::read;
  DTypes dtypes = kParameterTypes;
  Role role = Role::params;
  std::int64_t leaf = -1;
  bool is_count = false;  // a number of a state, which nobody ever negates
  // The stream on which an array of a GPU is going to be used, as DLPack counts them; -1: none waits for its numbers.
  std::int64_t stream = -1;

  [[noreturn]] void refuse(ErrorKind kind, std::string expected, std::string found) const;
  // Refuses an array of other numbers.
  [[noreturn]] void refuse_dtype(const std::string& dtype) const;

  // The advice that a call makes what was expected. Of a parameter that is a copy: whoever trains it without a word of
  // that has trained nothing.
  std::string made_by(const char* call) const;
};

// Whether a write reaches the array, and if not, why.
enum class Permission { granted, read_only, copy, immutable };

// `shape` and `strides` belong to the object, or to what it lent.
struct RawArray {
  void* data = nullptr;
  DType dtype = DType::float32;
  Device device;
  Permission permission = Permission::granted;
  int rank = 0;
  const std::int64_t* shape = nullptr;
  const std::int64_t* strides = nullptr;  // null means C order
  std::int64_t stride_unit = 1;           // bytes; an element where the strides count elements

  std::int64_t size() const;
};

// "module.Name" of an object's type; a builtin's without the module.
std::string type_name(py::handle object);

}  // namespace adafactor::bindings
