// The device that a CPU stands in for as the shared object that the Python package opens, with what its tests ask for
// besides: memory to make arrays of, and what was done.
#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <utility>

#include "cuda/emulated.hpp"

#define EXPORTED __attribute__((visibility("default")))

namespace {

using emulation::Order;

Order order() {
  const char* variable = std::getenv("ADAFACTOR_EMULATED_ORDER");
  const std::string_view word = variable ? variable : "shuffled";
  if (word == "forward") return Order::forward;
  if (word == "backward") return Order::backward;
  if (word != "shuffled") emulation::Block::give_up("ADAFACTOR_EMULATED_ORDER is none of the three orders");
  return Order::shuffled;
}

// As a driver, it is there until the process ends.
emulation::Device& device() {
  static auto& the_device = *new emulation::Device(order());
  return the_device;
}

// Has a device be the current one as long as it lives, as a library does for arrays of its own.
class On {
 public:
  explicit On(int index) : before_(std::exchange(emulation::Device::entered, index)) { device(); }
  explicit On(const void* memory) : On(device().device_of(memory)) {}
  ~On() { emulation::Device::entered = before_; }
  On(const On&) = delete;
  On& operator=(const On&) = delete;

 private:
  int before_;
};

}  // namespace

extern "C" {

EXPORTED const adafactor::cuda::Functions* adafactor_cuda_functions() {
  device();
  return &emulation::Device::functions();
}

EXPORTED void* emulated_allocate(std::int64_t nbytes, int index) {
  const On on(index);
  return device().allocate(nbytes, false);
}
EXPORTED void emulated_free(void* memory) {
  const On on(memory);
  device().free(memory, false);
}
// Copies, on a stream; what comes from the host was read, and what goes there is written, when it returns.
EXPORTED void emulated_write(void* to, const void* from, std::int64_t nbytes, void* stream) {
  const On on(to);
  device().write(to, from, nbytes, stream);
}
EXPORTED void emulated_read(void* to, const void* from, std::int64_t nbytes, void* stream) {
  const On on(from);
  device().copy(to, from, nbytes, stream);
  void* event = device().make_event();
  device().record(event, stream);
  device().await(event);
  device().free_event(event);
}
EXPORTED void emulated_order(void* stream, void* other, int index) {
  const On on(index);
  void* event = device().make_event();
  device().record(event, other);
  device().order(stream, event);
  device().free_event(event);
}
EXPORTED void emulated_capture(void* stream, bool has_legacy_wait) { device().capture(stream, has_legacy_wait); }
EXPORTED void emulated_end_capture() { device().end_capture(); }
EXPORTED void emulated_destroy(void* stream) { device().destroy(stream); }
EXPORTED void emulated_fail(const char* words) { device().failure = words; }
EXPORTED void emulated_fail_awaiting(const char* words, bool is_of_capture) {
  device().failure_to_await = words;
  device().is_of_capture = is_of_capture;
}
EXPORTED void emulated_fail_for_want_of_memory(int launches) { device().launches_with_memory = launches; }
EXPORTED void emulated_allocate_no_more(bool no_more) { device().allocates = !no_more; }
// The thread's current device; and the memory's.
EXPORTED int emulated_current() { return emulation::Device::entered; }
EXPORTED void emulated_make_current(int index) { emulation::Device::entered = index; }
EXPORTED int emulated_device_of(void* memory) { return device().device_of(memory); }
EXPORTED std::int64_t emulated_waits() { return device().waits(); }
EXPORTED std::int64_t emulated_launches() { return device().launches(); }
EXPORTED std::int64_t emulated_allocations() { return device().allocations(); }
EXPORTED std::int64_t emulated_blocks() { return device().blocks(); }
EXPORTED std::int64_t emulated_bytes() { return device().bytes(); }

}  // extern "C"
