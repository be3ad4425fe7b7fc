// From Python objects to views: the one place where arrays come in. Nothing behind it knows where an array is from.
#include "reader.hpp"

#include <algorithm>
#include <cstddef>
#include <string>

#include "buffer_array.hpp"
#include "numpy_array.hpp"

namespace adafactor::bindings {

namespace {

// The first copy of an array that JAX keeps on several devices, and so exports as a whole only with an error; nothing
// of any other array.
py::object first_copy(py::handle object) {
  try {
    if (py::getattr(object, "is_fully_replicated", py::none()).is(py::bool_(true)))
      return object.attr("addressable_data")(0);
  } catch (const py::error_already_set&) {  // as of an array that was deleted
  }
  return {};
}

RawArray read_immutable(py::handle object, const Route& route, Loans& loans, const Request& request) {
  try {
    return read_capsule(object, route.legacy, loans, request);
  } catch (const Error&) {
    const py::object copy = first_copy(object);
    if (!copy) throw;
    return read_capsule(copy, route.legacy, loans, request);
  }
}

RawArray read_by_route(py::handle object, const Route& route, Loans& loans, const Request& request) {
  switch (route.way) {
    case Way::numpy:
      return read_numpy(object, request);
    case Way::exchanged:
      return read_exchanged(exchange(object, *route.api, request), request);
    case Way::managed:
      return read_managed(object, *route.api, loans, request);
    case Way::capsule: {
      // A tensor that requires a gradient exports none of its own; without the interface it goes through a view.
      if (route.is_negated) return read_capsule(object.attr("detach")(), route.legacy, loans, request);
      if (route.immutable) return read_immutable(object, route, loans, request);
      return read_capsule(object, route.legacy, loans, request);
    }
    case Way::buffer:
      return read_buffer(object, loans, request);
  }
  return {};
}

RawArray read_array(py::handle object, const Route& route, Loans& loans, const Request& request) {
  RawArray array = read_by_route(object, route, loans, request);
  if (route.immutable) array.permission = Permission::immutable;
  return array;
}

// Whether a function says True of an object, its only argument.
bool says_yes(py::handle function, py::handle object) {
  const auto answer = py::reinterpret_steal<py::object>(PyObject_CallOneArg(function.ptr(), object.ptr()));
  if (!answer) throw py::error_already_set();
  return answer.ptr() == Py_True;
}

const char* obstacle(Permission permission) {
  switch (permission) {
    case Permission::read_only:
      return "a read-only array";
    case Permission::copy:
      return "a copy, in which a write would be lost";
    case Permission::immutable:
      return "an immutable array";
    case Permission::granted:
      break;
  }
  return nullptr;
}

void refuse_unwritable(const RawArray& array, const Request& request) {
  const char* found = request.access == Access::write ? obstacle(array.permission) : nullptr;
  if (found) {
    request.refuse(ErrorKind::buffer, "an array that can be written", found);
  }
}

void refuse_negated(py::handle object, const Route& route, const Request& request) {
  if (!says_yes(route.is_negated, object)) return;
  request.refuse(ErrorKind::type, "a tensor whose memory holds its values" + request.made_by("resolve_neg()"),
                 "a " + type_name(object) + " that is negated lazily");
}

// Where an axis has no second element its stride means nothing, and libraries leave anything there.
bool counts(const RawArray& array, int axis) { return array.shape[axis] > 1; }

// Whether the view, which was made of an array of the plan's shape, is that of this one.
bool is_of(const TensorView& view, const RawArray& array) {
  if (view.data != array.data || view.dtype != array.dtype || view.rank != array.rank) return false;
  if (view.device != array.device || !view.strides != !array.strides) return false;
  const std::int64_t item = item_size(array.dtype);
  for (int axis = 0; axis < array.rank; ++axis) {
    if (view.shape[axis] != array.shape[axis]) return false;
    if (!array.strides || !counts(array, axis)) continue;
    // Nobody has checked yet that the bytes of the array's own strides can be counted.
    const std::int64_t expected = array.stride_unit == item ? view.strides[axis] : view.strides[axis] * item;
    if (array.strides[axis] != expected) return false;
  }
  return true;
}

// The strides in elements.
void write_strides(const RawArray& array, const Request& request, std::int64_t* strides) {
  const std::int64_t item = item_size(array.dtype);
  const bool empty = std::find(array.shape, array.shape + array.rank, 0) != array.shape + array.rank;
  for (int axis = 0; axis < array.rank; ++axis) {
    if (empty || !counts(array, axis)) {
      strides[axis] = 1;
    } else if (array.stride_unit == item) {
      strides[axis] = array.strides[axis];
    } else if (array.strides[axis] % item == 0) {
      strides[axis] = array.strides[axis] / item;
    } else {
      request.refuse(ErrorKind::buffer, "strides that are multiples of " + std::to_string(item) + " bytes",
                     "a stride of " + std::to_string(array.strides[axis]) + " bytes");
    }
  }
}

// Whether the elements may be the imaginary parts of complex numbers, of which torch negates those of a conjugate.
bool may_be_imaginary(const RawArray& array) {
  const std::int64_t pair = 2 * item_size(array.dtype);
  for (int axis = array.rank - 1; axis >= 0 && array.strides; --axis) {
    if (counts(array, axis) && array.strides[axis] * array.stride_unit % pair != 0) return false;
  }
  return true;
}

// Where the strides of a view go.
struct Room {
  std::int64_t* strides;
  int rank;
};

// Makes a view that of an array that was read, unless it is that already.
bool renew_as(TensorView& view, py::handle object, const Route& route, const RawArray& array, const Request& request,
              Room room) {
  const bool stays = is_of(view, array);
  // torch gives the GIL away to answer, and whoever gets it may keep it: hundreds of questions would take a second.
  if (route.is_negated && (!stays || may_be_imaginary(array))) refuse_negated(object, route, request);
  refuse_unwritable(array, request);
  if (stays) return false;
  view = {};  // where anything below is refused, too
  // A view without data stands for an array that is missing; one without elements may lie at any address.
  static std::byte nowhere;
  const bool strided = array.strides && array.rank <= room.rank;
  if (strided) write_strides(array, request, room.strides);
  view = {array.data ? array.data : &nowhere, array.dtype, array.device, array.rank, array.shape,
          strided ? room.strides : nullptr};
  return true;
}

}  // namespace

Stream ArrayReader::stream_of(py::handle object, Device device, const Request& request) {
  const Route& route = routes_.of(object, request);
  Stream stream;
  if (route.api && route.api->current_work_stream) {
    if (route.api->current_work_stream(dlpack::kCuda, device.index, &stream.handle) != 0) {
      throw py::error_already_set();
    }
  } else if (route.is_negated) {  // a torch that is older than the interface
    const py::object current = py::module_::import("torch").attr("cuda").attr("current_stream")(device.index);
    stream.handle = reinterpret_cast<void*>(current.attr("cuda_stream").cast<std::uintptr_t>());
  } else if (route.is_cupy) {
    const py::object current = py::module_::import("cupy").attr("cuda").attr("get_current_stream")(device.index);
    stream.handle = reinterpret_cast<void*>(current.attr("ptr").cast<std::uintptr_t>());
  } else {
    stream.is_followed = false;
  }
  return stream;
}

void ArrayReader::set_stream(const Stream* stream) {
  stream_ = stream;
  asked_.clear();
  other_streams_.clear();
  are_followed_ = true;
}

// Once in a call for each type.
void ArrayReader::ask_for_stream(const Route& route, py::handle object, Device device) {
  if (device.type != DeviceType::cuda) return;
  const auto is_known = [&](py::handle type) { return type.is(route.type); };
  if (std::ranges::any_of(asked_, is_known)) return;
  asked_.push_back(route.type);
  const Stream found = stream_of(object, device, {});
  are_followed_ = are_followed_ && found.is_followed;
  if (found.is_followed && found.handle != stream_->handle) other_streams_.push_back(found.handle);
}

RawArray ArrayReader::read_by(const Route& route, py::handle object, const Request& request) {
  if (!stream_) return read_array(object, route, loans_, request);
  Request on_stream = request;
  // 0 would be ambiguous; 1 is the legacy default stream.
  on_stream.stream = stream_->handle ? reinterpret_cast<std::intptr_t>(stream_->handle) : 1;
  const RawArray array = read_array(object, route, loans_, on_stream);
  ask_for_stream(route, object, array.device);
  return array;
}

RawArray ArrayReader::read(py::handle object, const Request& request) {
  const Route& route = routes_.of(object, request);
  const RawArray array = read_by(route, object, request);
  if (route.is_negated) refuse_negated(object, route, request);
  refuse_unwritable(array, request);
  return array;
}

// Whenever a tensor is read whose only owner is its object, torch makes itself one and takes leave of it again, each
// time with a word to Python's count: 40 of 85 ns.
Loan ArrayReader::hold(py::handle object, const Request& request) {
  const Route& route = routes_.of(object, request);
  dlpack::ManagedTensorVersioned* tensor = nullptr;
  if (route.way == Way::exchanged && route.api->managed_from_object(object.ptr(), &tensor) != 0) PyErr_Clear();
  return Loan(tensor);
}

bool ArrayReader::renew(TensorView& view, py::handle object, const Request& request, std::int64_t* strides, int room) {
  const Route& route = routes_.of(object, request);
  if (route.way != Way::exchanged) {
    return renew_as(view, object, route, read_by(route, object, request), request, {strides, room});
  }
  const dlpack::Tensor tensor = exchange(object, *route.api, request);
  if (stream_ && tensor.device.kind == dlpack::kCuda)
    ask_for_stream(route, object, {DeviceType::cuda, tensor.device.index});
  if (is_plainly(view, tensor, request)) return false;
  return renew_as(view, object, route, read_exchanged(tensor, request), request, {strides, room});
}

}  // namespace adafactor::bindings
