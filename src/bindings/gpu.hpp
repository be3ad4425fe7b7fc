// The GPU that the calls of one stepper run on: the memory that it has there, and on whose stream a call runs.
#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "../cuda/gpu.hpp"
#include "adafactor/plan.hpp"
#include "adafactor/state.hpp"
#include "adafactor/step/backend.hpp"
#include "adafactor/tensor.hpp"
#include "raw_array.hpp"

namespace adafactor::bindings {

namespace py = pybind11;

class Gpu {
 public:
  // `allocate(nbytes)` gives an array of a library, of as many bytes of float32, all zeros, in the memory of the
  // device; None: CUDA's own memory is taken. Throws std::runtime_error where no step can run there.
  Gpu(Device device, py::object allocate);
  ~Gpu();
  Gpu(const Gpu&) = delete;
  Gpu& operator=(const Gpu&) = delete;

  Device device() const { return device_; }
  const py::object& allocator() const { return allocate_; }
  const Backend& backend() const { return backend_; }
  // See GpuBackend.
  void set_loss_scale(const cuda::LossScale& loss_scale) { backend_.set_loss_scale(loss_scale); }

  // Memory of the device, all zeros, for as long as this lives.
  std::span<std::byte> take(std::int64_t nbytes);
  // Gives a stepper its scratch, before its first step.
  void equip(Stepper& stepper);
  // Takes the scratch that another one has equipped a stepper with, for one of this plan, where it lies on the same
  // device and is large enough; returns whether it has.
  bool take_scratch(Gpu& other, const Plan& plan);

  // A call is about to begin on a stream. Throws std::runtime_error where none can.
  void begin(const Stream& stream);
  // What others have given another stream is done first, and that stream goes on after the call.
  void follow(void* other);
  // The call has been given to the device.
  void end();
  // The stream of the call.
  const Stream& stream() const { return stream_; }
  // A stream of somebody else goes on after all calls; where it captures a graph they are done when this returns.
  void precede(void* other) const;

  // The device has failed: nothing that lies there is known any more.
  void give_up(const std::string& why) { failure_ = why; }
  // Throws std::runtime_error where a call on a stream would go into a graph that is captured.
  void refuse_capture(void* stream) const;
  // Throws std::runtime_error where it has failed, or in a process that was forked off.
  void require_working() const;

  // Bytes to the host, or from it, or there; done when it returns.
  void copy(void* to, const void* from, std::int64_t nbytes);
  void zero(void* memory, std::int64_t nbytes);

 private:
  // Memory of the host for as long as this lives.
  std::span<std::byte> take_host(std::int64_t nbytes);

  Device device_;
  py::object allocate_;
  cuda::Runtime runtime_;
  cuda::GpuBackend backend_;
  Stream stream_;
  std::vector<void*> others_;
  std::string failure_;
  std::vector<py::object> arrays_;  // of a library
  std::vector<std::byte*> memory_;  // CUDA's own
  std::vector<void*> host_memory_;
  std::span<std::byte> scratch_;
  std::span<std::byte> on_device_;
};

// An array as the host can read it: of one on a device the bytes between its first element and its last, copied once
// what the stream was given is done; where these are far apart, the elements alone, in C order.
class HostCopy {
 public:
  explicit HostCopy(const TensorView& array, void* stream = nullptr);

  const TensorView& view() const { return view_; }

 private:
  std::vector<std::byte> bytes_;
  TensorView view_;
};

// Writes elements that lie without gaps on the host into an array on a device, in the order of its axes, on a stream;
// done when it returns.
void write_elements(const TensorView& array, const void* elements, void* stream);

}  // namespace adafactor::bindings
