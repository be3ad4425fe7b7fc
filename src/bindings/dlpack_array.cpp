// Arrays that come in through DLPack: by the functions of a type's exchange interface, or in a capsule.
#include "dlpack_array.hpp"

#include <algorithm>
#include <iterator>
#include <optional>
#include <string>

#include "devices.hpp"

namespace adafactor::bindings {

namespace {

std::string dtype_text(dlpack::DataType dtype) {
  if (dtype.code >= std::size(dlpack::kCodeNames)) {
    return "code " + std::to_string(dtype.code) + " of " + std::to_string(dtype.bits) + " bits";
  }
  const std::string code = dlpack::kCodeNames[dtype.code];
  // The name of a small format has its bits in it.
  const bool counts_bits = code.find("float") == 0 ? dtype.code == dlpack::kFloat : dtype.code != dlpack::kBool;
  const std::string lanes = dtype.lanes == 1 ? "" : " in " + std::to_string(dtype.lanes) + " lanes";
  return code + (counts_bits ? std::to_string(dtype.bits) : "") + lanes;
}

bool is(dlpack::DataType found, DType dtype) {
  const DTypeTraits traits = traits_of(dtype);
  return found.code == traits.dlpack && found.bits == 8 * traits.bytes && found.lanes == 1;
}

std::optional<DType> known_dtype(dlpack::DataType found) {
  for (const DType dtype : kDTypes) {
    if (is(found, dtype)) return dtype;
  }
  return std::nullopt;
}

// Nothing of a tensor is taken on trust: its producer may be anybody.
RawArray read_tensor(const dlpack::Tensor& tensor, Permission permission, const Request& request) {
  RawArray array;
  array.device = device_of(tensor.device, request);
  if (tensor.rank < 0 || tensor.rank > kMaxRank) {
    request.refuse(ErrorKind::buffer, "at most " + std::to_string(kMaxRank) + " axes",
                   std::to_string(tensor.rank) + " axes");
  }
  const std::optional<DType> dtype = known_dtype(tensor.dtype);
  if (!dtype) request.refuse_dtype(dtype_text(tensor.dtype));
  if (tensor.rank > 0 && !tensor.shape) request.refuse(ErrorKind::buffer, "a tensor with a shape", "one without");
  array.dtype = *dtype;
  array.permission = permission;
  array.rank = tensor.rank;
  array.shape = tensor.shape;
  array.strides = tensor.strides;
  array.stride_unit = item_size(array.dtype);
  if (std::any_of(array.shape, array.shape + array.rank, [](std::int64_t extent) { return extent < 0; })) {
    request.refuse(ErrorKind::buffer, "extents of at least 0", "a negative extent");
  }
  if (!tensor.data && array.size() > 0) {
    request.refuse(ErrorKind::buffer, "a tensor whose elements lie in memory", "one without memory of its own");
  }
  if (tensor.data) array.data = static_cast<std::byte*>(tensor.data) + tensor.byte_offset;
  return array;
}

// The words of the exception that is on its way, without what its library adds for its own developers.
std::string words_of(const py::error_already_set& error) {
  const std::string text = py::str(error.value()).cast<std::string>();
  return text.substr(0, text.find('\n'));
}

// What a tensor that has no plain memory says it is, as far as it has such an attribute.
std::string nature_of(py::handle object) {
  std::string nature;
  for (const char* attribute : {"dtype", "layout", "device"}) {
    const py::object value = py::getattr(object, attribute, py::none());
    if (value.is_none()) continue;
    nature += (nature.empty() ? " (" : ", ") + std::string(attribute) + " " + py::str(value).cast<std::string>();
  }
  return nature.empty() ? nature : nature + ")";
}

// Whether an array of JAX is gone, of which its methods say odd things.
bool is_deleted(py::handle object) {
  const py::object method = py::getattr(object, "is_deleted", py::none());
  return PyCallable_Check(method.ptr()) && method().ptr() == Py_True;
}

// Where an array of JAX lies that DLPack has no number for, as "tpu:3"; empty for others.
std::string unnumbered_device(py::handle object) {
  const py::object device = py::getattr(object, "device", py::none());
  const py::object platform = py::getattr(device, "platform", py::none());
  const py::object id = py::getattr(device, "id", py::none());
  if (!py::isinstance<py::str>(platform) || !py::isinstance<py::int_>(id)) return {};
  const auto name = platform.cast<std::string>();
  return name == "cpu" || name == "gpu" ? std::string() : name + ":" + py::str(id).cast<std::string>();
}

// Turns the exception that is on its way into a refusal, unless it is no error.
[[noreturn]] void refuse_unexported(py::handle object, ErrorKind kind, const Request& request) {
  const py::error_already_set error;
  if (!error.matches(PyExc_Exception)) throw error;
  const std::string what = "a " + type_name(object);
  if (is_deleted(object)) {
    request.refuse(ErrorKind::buffer, "one that is there still",
                   what + " that was deleted, or donated to a function of jax.jit");
  }
  if (const std::string device = unnumbered_device(object); !device.empty()) refuse_device(device, request);
  if (error.matches(PyExc_TypeError)) kind = ErrorKind::type;
  const std::string nature = nature_of(object);
  const bool sparse = nature.find("sparse") != nature.npos;
  request.refuse(kind, "a dense array in memory" + (sparse ? request.made_by("to_dense()") : ""),
                 what + nature + " that cannot be exported: " + words_of(error));
}

Permission permission_of(std::uint64_t flags) {
  if (flags & dlpack::kReadOnly) return Permission::read_only;
  return flags & dlpack::kIsCopied ? Permission::copy : Permission::granted;
}

RawArray read_versioned(const dlpack::ManagedTensorVersioned& managed, const Request& request) {
  if (managed.version.major != dlpack::kMajorVersion) {
    request.refuse(ErrorKind::buffer, "version " + std::to_string(dlpack::kMajorVersion) + " of DLPack",
                   "version " + std::to_string(managed.version.major));
  }
  return read_tensor(managed.tensor, permission_of(managed.flags), request);
}

// What an object's own method answers. By three exceptions a library says that this array cannot be had so; any other
// is the object's own affair.
template <class Ask>
py::object answer_of(py::handle object, const Request& request, const Ask& ask) {
  try {
    return ask();
  } catch (py::error_already_set& error) {
    if (!error.matches(PyExc_BufferError) && !error.matches(PyExc_TypeError) && !error.matches(PyExc_ValueError)) throw;
    error.restore();
    refuse_unexported(object, ErrorKind::buffer, request);
  }
}

// The capsule of an object, of the new kind where its library knows it. Of an array of a GPU its library sees to it
// that the stream on which it is used finds its numbers.
py::object capsule_of(py::handle object, Device device, const Request& request) {
  return answer_of(object, request, [&]() -> py::object {
    const py::object method = object.attr("__dlpack__");
    py::dict arguments;
    if (device.type == DeviceType::cuda) arguments["stream"] = request.stream;
    try {
      return method(py::arg("max_version") = py::make_tuple(dlpack::kMajorVersion, 0), **arguments);
    } catch (const py::error_already_set& error) {
      if (!error.matches(PyExc_TypeError)) throw;
    }
    return method(**arguments);
  });
}

// The device that an object says it is on; throws the request's refusal where no step can run there.
Device stated_device(py::handle object, const Request& request) {
  const py::object method = py::getattr(object, "__dlpack_device__", py::none());
  if (method.is_none()) return {};
  const py::object answer = answer_of(object, request, [&] { return method(); });
  std::pair<std::int32_t, std::int32_t> device;
  try {
    device = answer.cast<decltype(device)>();
  } catch (const py::cast_error&) {
    request.refuse(ErrorKind::buffer, "two whole numbers from __dlpack_device__()", type_name(answer));
  }
  return device_of({device.first, device.second}, request);
}

// The array, if it is where its object has said: by that it was decided whose stream waits for its numbers.
RawArray require_on(Device stated, const RawArray& array, const Request& request) {
  if (array.device == stated) return array;
  request.refuse(ErrorKind::buffer, "one on " + device_name(stated) + " as __dlpack_device__() says",
                 "a tensor on " + device_name(array.device));
}

}  // namespace

const dlpack::ExchangeApi* exchange_api_of(py::handle type) {
  const py::object capsule = py::getattr(type, dlpack::kExchangeAttribute, py::none());
  if (!PyCapsule_IsValid(capsule.ptr(), dlpack::kExchangeName)) return nullptr;
  const auto* api = static_cast<const dlpack::ExchangeApi*>(PyCapsule_GetPointer(capsule.ptr(), dlpack::kExchangeName));
  while (api && api->version.major != dlpack::kMajorVersion) api = api->previous;
  return api;
}

dlpack::Tensor exchange(py::handle object, const dlpack::ExchangeApi& api, const Request& request) {
  dlpack::Tensor tensor{};
  if (api.tensor_from_object(object.ptr(), &tensor) != 0) refuse_unexported(object, ErrorKind::type, request);
  return tensor;
}

RawArray read_exchanged(const dlpack::Tensor& tensor, const Request& request) {
  return read_tensor(tensor, Permission::granted, request);
}

bool is_plainly(const TensorView& view, const dlpack::Tensor& tensor, const Request& request) {
  if (!view.data || !tensor.data || static_cast<std::byte*>(tensor.data) + tensor.byte_offset != view.data)
    return false;
  if (tensor.rank != view.rank || !is(tensor.dtype, view.dtype)) return false;
  const bool is_there = view.device.type == DeviceType::cpu
                            ? tensor.device.kind == dlpack::kCpu
                            : tensor.device.kind == dlpack::kCuda && tensor.device.index == view.device.index;
  if (!is_there) return false;
  if (request.is_count) return view.rank == 0;
  if (!tensor.shape || !tensor.strides || !view.strides) return false;
  bool is_odd = false;
  for (int axis = 0; axis < view.rank; ++axis) {
    if (tensor.shape[axis] != view.shape[axis]) return false;
    if (view.shape[axis] <= 1) continue;  // a stride that nobody uses
    if (tensor.strides[axis] != view.strides[axis]) return false;
    is_odd = is_odd || view.strides[axis] % 2 != 0;
  }
  return is_odd;
}

RawArray read_managed(py::handle object, const dlpack::ExchangeApi& api, Loans& loans, const Request& request) {
  dlpack::ManagedTensorVersioned* managed = nullptr;
  if (api.managed_from_object(object.ptr(), &managed) != 0) refuse_unexported(object, ErrorKind::buffer, request);
  if (!managed) request.refuse(ErrorKind::buffer, "a tensor from its exchange interface", "nothing");
  return read_versioned(loans.take(managed), request);
}

RawArray read_capsule(py::handle object, Permission legacy, Loans& loans, const Request& request) {
  const Device device = stated_device(object, request);
  const py::object capsule = capsule_of(object, device, request);
  if (PyCapsule_IsValid(capsule.ptr(), dlpack::kVersionedName))
    return require_on(device, read_versioned(loans.take_versioned(capsule), request), request);
  if (PyCapsule_IsValid(capsule.ptr(), dlpack::kLegacyName))
    return require_on(device, read_tensor(loans.take_legacy(capsule).tensor, legacy, request), request);
  std::string found = type_name(capsule);
  if (PyCapsule_CheckExact(capsule.ptr())) {
    const char* name = PyCapsule_GetName(capsule.ptr());
    found = name ? std::string("a capsule named ") + name : "a capsule without a name";
  }
  request.refuse(ErrorKind::buffer, "a fresh DLPack capsule from __dlpack__()", found);
}

}  // namespace adafactor::bindings
