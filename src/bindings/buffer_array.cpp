// The formats of buffers, and what they say of their memory.
#include "buffer_array.hpp"

#include <algorithm>
#include <bit>
#include <optional>
#include <string>
#include <string_view>

namespace adafactor::bindings {

namespace {

DType dtype_of(const Py_buffer& buffer, const Request& request) {
  std::string_view format = buffer.format ? buffer.format : "B";
  constexpr char foreign = std::endian::native == std::endian::little ? '>' : '<';
  if (constexpr std::string_view marks = "@=<>!"; !format.empty() && marks.find(format.front()) != marks.npos) {
    const char mark = format.front() == '!' ? '>' : format.front();
    if (mark == foreign) {
      request.refuse(ErrorKind::type, "the byte order of this machine", std::string("byte order '") + mark + "'");
    }
    format.remove_prefix(1);
  }
  for (const DType dtype : kDTypes) {
    const char letter = traits_of(dtype).letter;
    if (letter && format == std::string_view(&letter, 1) && buffer.itemsize == item_size(dtype)) return dtype;
  }
  request.refuse(ErrorKind::type, words(request.dtypes), "a buffer of format '" + std::string(format) + "'");
}

}  // namespace

RawArray read_buffer(py::handle object, Loans& loans, const Request& request) {
  const Py_buffer* buffer = nullptr;
  try {
    buffer = &loans.take_buffer(object);
  } catch (const py::error_already_set& error) {
    if (!error.matches(PyExc_BufferError) && !error.matches(PyExc_ValueError)) throw;
    request.refuse(ErrorKind::buffer, "an object that lends its buffer",
                   "a " + type_name(object) + ": " + py::str(error.value()).cast<std::string>());
  }
  RawArray array;
  array.dtype = dtype_of(*buffer, request);
  array.permission = buffer->readonly ? Permission::read_only : Permission::granted;
  array.data = buffer->buf;
  array.rank = buffer->ndim;
  static_assert(sizeof(Py_ssize_t) == sizeof(std::int64_t));
  array.shape = reinterpret_cast<const std::int64_t*>(buffer->shape);
  array.strides = reinterpret_cast<const std::int64_t*>(buffer->strides);
  if (buffer->suboffsets && std::any_of(buffer->suboffsets, buffer->suboffsets + buffer->ndim,
                                        [](Py_ssize_t offset) { return offset >= 0; })) {
    request.refuse(ErrorKind::buffer, "one block of memory", "a buffer of pointers");
  }
  return array;
}

}  // namespace adafactor::bindings
