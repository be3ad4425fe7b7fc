// How a GPU's memory is had, and how its streams are put in order.
#include "gpu.hpp"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

#include "../cuda/library.hpp"
#include "adafactor/step/call.hpp"
#include "gil.hpp"
#include "reader.hpp"

namespace adafactor::bindings {

namespace {

// Without the GIL: what the GPU waits for may want it.
void wait_for(const cuda::Runtime& runtime) {
  without_gil([&] {
    runtime.wait();
    return true;
  });
}

// What is not done while a stream captures a graph, and where instead.
void refuse_graph(const cuda::Runtime& runtime, void* stream, const std::string& what, const char* instead) {
  if (!runtime.captures(stream)) return;
  throw std::runtime_error(what + ": a CUDA graph is being captured, expected a stream that runs; " + instead);
}

// The same of copies, which go to a stream and are waited for.
void refuse_copy_in_graph(const cuda::Runtime& runtime, void* stream) {
  refuse_graph(runtime, stream, "copy", "copy outside of the graph");
}

// Calls for each run of elements that lie without gaps, in the order of the axes: where it begins in the array, and how
// many they are.
template <class Copy>
void for_runs(const TensorView& array, const Copy& copy) {
  std::int64_t buffer[kMaxRank];
  const std::int64_t* strides = detail::strides_of(array, buffer);
  std::int64_t run = 1;
  int outer = array.rank;
  while (outer > 0 && (array.shape[outer - 1] <= 1 || strides[outer - 1] == run)) run *= array.shape[--outer];
  std::int64_t runs = 1;
  for (int axis = 0; axis < outer; ++axis) runs *= array.shape[axis];
  for (std::int64_t i = 0; i < runs; ++i) {
    std::int64_t first = 0;
    for (std::int64_t axis = outer, rest = i; axis-- > 0; rest /= array.shape[axis]) {
      first += rest % array.shape[axis] * strides[axis];
    }
    copy(first, run);
  }
}

// An array whose elements take less than this part of what lies between the first of them and the last is copied run by
// run where that is large, which the host may have no memory for.
constexpr std::int64_t kSparse = 16;
constexpr std::int64_t kSmallSpan = 1 << 28;

}  // namespace

Gpu::Gpu(Device device, py::object allocate)
    : device_(device), allocate_(std::move(allocate)), runtime_(cuda::functions(), device.index), backend_(runtime_) {}

Gpu::~Gpu() {
  try {
    const cuda::Entered entered = runtime_.enter();
    // All calls are behind this, whatever has become of their streams. What fails is left for the next one to say.
    without_gil([&] {
      runtime_.functions().await(runtime_.event());
      return true;
    });
    for (std::byte* memory : memory_) runtime_.functions().free(memory);
    for (void* memory : host_memory_) runtime_.functions().free_host(memory);
  } catch (const std::exception&) {  // of a device that has failed, or in a process that was forked off
  }
}

std::span<std::byte> Gpu::take(std::int64_t nbytes) {
  if (nbytes == 0) return {};
  const auto size = static_cast<std::size_t>(nbytes);
  if (!allocate_.is_none()) {
    py::object array = allocate_(nbytes);
    ArrayReader reader;
    const Request request{Access::write, only(DType::float32), Role::state, -1};
    const RawArray found = reader.read(array, request);
    if (found.device != device_ || found.size() * item_size(found.dtype) < nbytes) {
      throw std::runtime_error("memory of another device, or too little, from the library of the parameters");
    }
    const cuda::Entered entered = runtime_.enter();
    runtime_.follow(reader.stream_of(array, device_, request).handle);
    wait_for(runtime_);
    arrays_.push_back(std::move(array));
    return {static_cast<std::byte*>(found.data), size};
  }
  const cuda::Entered entered = runtime_.enter();
  refuse_graph(runtime_, runtime_.stream(), "state", "make it outside of the graph");
  memory_.reserve(memory_.size() + 1);
  memory_.push_back(runtime_.allocate(nbytes));
  runtime_.zero(memory_.back(), nbytes);
  wait_for(runtime_);
  return {memory_.back(), size};
}

void Gpu::equip(Stepper& stepper) {
  if (stepper.workspace) return;
  // What there is of it already is from a call that found no memory for the rest.
  if (scratch_.empty()) scratch_ = take_host(scratch_nbytes(stepper.plan(), backend_));
  const std::int64_t nbytes = backend_.device_nbytes(stepper.plan());
  if (on_device_.empty()) on_device_ = take(nbytes);
  stepper.give(scratch_, on_device_);
}

bool Gpu::take_scratch(Gpu& other, const Plan& plan) {
  const auto has = [](std::span<const std::byte> memory, std::int64_t nbytes) {
    return static_cast<std::int64_t>(memory.size()) >= nbytes;
  };
  const bool fits = scratch_.empty() && on_device_.empty() && other.device_ == device_ &&
                    has(other.scratch_, scratch_nbytes(plan, backend_)) &&
                    has(other.on_device_, backend_.device_nbytes(plan));
  if (!fits) return false;
  std::swap(arrays_, other.arrays_);
  std::swap(memory_, other.memory_);
  std::swap(host_memory_, other.host_memory_);
  std::swap(scratch_, other.scratch_);
  std::swap(on_device_, other.on_device_);
  return true;
}

std::span<std::byte> Gpu::take_host(std::int64_t nbytes) {
  const cuda::Entered entered = runtime_.enter();
  host_memory_.reserve(host_memory_.size() + 1);
  void* memory = nullptr;
  cuda::check(runtime_.functions().allocate_host(nbytes, &memory));
  host_memory_.push_back(memory);
  return {static_cast<std::byte*>(memory), static_cast<std::size_t>(nbytes)};
}

void Gpu::require_working() const {
  cuda::functions();  // not in a process that was forked off
  if (failure_.empty()) return;
  throw std::runtime_error("state: the GPU failed in an earlier call (" + failure_ +
                           "), and what it has there is lost; start a new process from what was saved");
}

void Gpu::refuse_capture(void* stream) const {
  const cuda::Entered entered = runtime_.enter();
  refuse_graph(runtime_, stream, "step",
               "a replay would make the same step, with its rate and its count, again and again: step outside of the "
               "graph");
}

void Gpu::begin(const Stream& stream) {
  require_working();
  refuse_capture(stream.handle);
  const cuda::Entered entered = runtime_.enter();
  stream_ = stream;
  others_.clear();
  runtime_.use(stream.handle);
}

void Gpu::follow(void* other) {
  if (other == stream_.handle || std::ranges::find(others_, other) != others_.end()) return;
  refuse_capture(other);
  const cuda::Entered entered = runtime_.enter();
  others_.push_back(other);
  runtime_.follow(other);
}

void Gpu::end() {
  const cuda::Entered entered = runtime_.enter();
  for (void* other : others_) runtime_.precede(other);
}

void Gpu::precede(void* other) const {
  const cuda::Entered entered = runtime_.enter();
  if (!runtime_.captures(other)) return runtime_.precede(other);
  // A graph knows nothing of what is done outside of it.
  without_gil([&] {
    runtime_.await_mark();
    return true;
  });
}

void Gpu::copy(void* to, const void* from, std::int64_t nbytes) {
  require_working();
  const cuda::Entered entered = runtime_.enter();
  // The stream of the last call may be there no more.
  refuse_copy_in_graph(runtime_, nullptr);
  runtime_.use(nullptr);
  runtime_.copy(to, from, nbytes);
  wait_for(runtime_);
}

void Gpu::zero(void* memory, std::int64_t nbytes) {
  require_working();
  const cuda::Entered entered = runtime_.enter();
  refuse_copy_in_graph(runtime_, nullptr);
  runtime_.use(nullptr);
  runtime_.zero(memory, nbytes);
  wait_for(runtime_);
}

HostCopy::HostCopy(const TensorView& array, void* stream) : view_(array) {
  if (array.device.type == DeviceType::cpu) return;
  const std::int64_t item = item_size(array.dtype);
  std::int64_t buffer[kMaxRank];
  const std::int64_t* strides = detail::strides_of(array, buffer);
  std::int64_t size = 1;
  std::int64_t lowest = 0;
  std::int64_t highest = 0;
  for (int axis = 0; axis < array.rank; ++axis) {
    if (array.shape[axis] == 0) return;
    size *= array.shape[axis];
    const std::int64_t reach = (array.shape[axis] - 1) * strides[axis] * item;
    (reach < 0 ? lowest : highest) += reach;
  }
  const std::int64_t span = highest - lowest + item;
  const bool is_sparse = span > kSmallSpan && span / kSparse > size * item;
  bytes_.resize(static_cast<std::size_t>(is_sparse ? size * item : span));
  cuda::Runtime runtime(cuda::functions(), array.device.index);
  const cuda::Entered entered = runtime.enter();
  refuse_copy_in_graph(runtime, stream);
  runtime.use(stream);
  const auto* from = static_cast<const std::byte*>(array.data);
  if (is_sparse) {
    std::byte* to = bytes_.data();
    for_runs(array, [&](std::int64_t first, std::int64_t run) {
      runtime.copy(to, from + first * item, run * item);
      to += run * item;
    });
    view_.strides = nullptr;
  } else {
    runtime.copy(bytes_.data(), from + lowest, span);
  }
  wait_for(runtime);
  view_.data = is_sparse ? bytes_.data() : bytes_.data() - lowest;
  view_.device = {};
}

void write_elements(const TensorView& array, const void* elements, void* stream) {
  cuda::Runtime runtime(cuda::functions(), array.device.index);
  const cuda::Entered entered = runtime.enter();
  refuse_copy_in_graph(runtime, stream);
  runtime.use(stream);
  const std::int64_t item = item_size(array.dtype);
  const auto* from = static_cast<const std::byte*>(elements);
  for_runs(array, [&](std::int64_t first, std::int64_t run) {
    runtime.copy(static_cast<std::byte*>(array.data) + first * item, from, run * item);
    from += run * item;
  });
  wait_for(runtime);
}

}  // namespace adafactor::bindings
