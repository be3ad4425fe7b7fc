// Pieces of a state, and their export from a device by DLPack.
#include "state_array.hpp"

#include <algorithm>
#include <memory>
#include <utility>

#include "bindings.hpp"
#include "dlpack.hpp"

namespace adafactor::bindings {

namespace {

// A piece on a device, and whose memory that is.
struct DevicePiece {
  std::shared_ptr<StateObject> owner;
  StatePiece piece;
};

// A managed tensor with what it points to.
template <class Managed>
struct Export {
  Managed managed{};
  DevicePiece of;

  static void give_back(Managed* managed) {
    // Whoever took the tensor may give it back at any time, on any thread.
    if (!Py_IsInitialized()) return;
    const py::gil_scoped_acquire gil;
    delete static_cast<Export*>(managed->context);
  }
};

template <class Managed>
py::capsule capsule_of(const DevicePiece& of, const char* name) {
  auto made = std::make_unique<Export<Managed>>();
  made->of = of;
  const StatePiece& piece = made->of.piece;
  dlpack::Tensor& tensor = made->managed.tensor;
  tensor.data = of.owner->state.memory() + piece.offset;
  tensor.device = {dlpack::kCuda, of.owner->gpu->device().index};
  tensor.rank = static_cast<std::int32_t>(piece.shape.size());
  tensor.dtype = {traits_of(piece.dtype).dlpack, static_cast<std::uint8_t>(8 * item_size(piece.dtype)), 1};
  tensor.shape = made->of.piece.shape.data();
  tensor.strides = made->of.piece.strides.data();
  made->managed.context = made.get();
  made->managed.deleter = &Export<Managed>::give_back;
  if constexpr (requires { made->managed.version; }) made->managed.version = {dlpack::kMajorVersion, 0};
  PyObject* capsule = PyCapsule_New(&made->managed, name, [](PyObject* object) {
    // A capsule that nobody has used up still has its first name.
    for (const char* each : {dlpack::kVersionedName, dlpack::kLegacyName}) {
      if (!PyCapsule_IsValid(object, each)) continue;
      auto* managed = static_cast<Managed*>(PyCapsule_GetPointer(object, each));
      managed->deleter(managed);
    }
  });
  if (!capsule) throw py::error_already_set();
  made.release();
  return py::reinterpret_steal<py::capsule>(capsule);
}

// `stream`: that on which the array is going to be used, as DLPack counts them; None is 1, and -1 waits for nothing.
py::capsule export_piece(const DevicePiece& of, const py::object& stream, const py::object& max_version,
                         const py::object& dl_device, const py::object& copy) {
  const std::pair<int, int> own{dlpack::kCuda, of.owner->gpu->device().index};
  if ((!dl_device.is_none() && dl_device.cast<std::pair<int, int>>() != own) || copy.ptr() == Py_True) {
    throw py::buffer_error("an array of a state, which is lent where it lies, and not copied");
  }
  const auto number = stream.is_none() ? 1 : stream.cast<std::int64_t>();
  if (number >= 0) of.owner->gpu->precede(number <= 1 ? nullptr : reinterpret_cast<void*>(number));
  const bool is_versioned = !max_version.is_none() && max_version.cast<std::pair<int, int>>().first >= 1;
  return is_versioned ? capsule_of<dlpack::ManagedTensorVersioned>(of, dlpack::kVersionedName)
                      : capsule_of<dlpack::ManagedTensor>(of, dlpack::kLegacyName);
}

}  // namespace

std::optional<StatePiece> piece_of(const Plan& plan, std::size_t leaf_index, const std::string& kind_name) {
  const LeafPlan& leaf = plan.leaves().at(leaf_index);
  const auto found = std::find(kStateKindNames.begin(), kStateKindNames.end(), kind_name);
  if (found == kStateKindNames.end()) throw py::key_error(kind_name);
  const auto kind = static_cast<StateKind>(found - kStateKindNames.begin());
  const StateArray& array = leaf.state[static_cast<std::size_t>(kind)];
  if (!array.exists()) return std::nullopt;

  const std::size_t rank = leaf.spec.shape.size();
  std::vector<std::int64_t> strides(rank);
  strides_of_state(leaf, kind, strides.data());
  StatePiece piece{array.dtype, array.offset, {}, {}};
  for (std::size_t axis = 0; axis < rank; ++axis) {
    if (!has_axis(kind, leaf.layout, static_cast<int>(axis))) continue;
    piece.shape.push_back(leaf.spec.shape[axis]);
    piece.strides.push_back(strides[axis]);
  }
  return piece;
}

py::object device_piece(const py::object& owner, std::size_t leaf, const std::string& kind) {
  auto state = owner.cast<std::shared_ptr<StateObject>>();
  if (!state->gpu) throw py::value_error("a state in the CPU's memory, expected one on a device");
  std::optional<StatePiece> piece = piece_of(state->state.plan(), leaf, kind);
  return piece ? py::cast(DevicePiece{std::move(state), *std::move(piece)}) : py::none();
}

void bind_device_arrays(py::module_& m) {
  py::classh<DevicePiece>(m, "DevicePiece", "An array of a state on a device, for whoever takes DLPack.")
      .def("__dlpack__", &export_piece, py::kw_only(), py::arg("stream") = py::none(),
           py::arg("max_version") = py::none(), py::arg("dl_device") = py::none(), py::arg("copy") = py::none())
      .def("__dlpack_device__",
           [](const DevicePiece& of) { return std::pair<int, int>(dlpack::kCuda, of.owner->gpu->device().index); });
}

}  // namespace adafactor::bindings
