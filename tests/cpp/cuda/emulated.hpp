// A device that a CPU stands in for: memory apart from the host's, which nobody but a kernel or a copy may touch, and
// streams on which nothing is done before somebody waits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <random>
#include <vector>

#include "cuda/fibers.hpp"
#include "cuda/functions.hpp"

namespace emulation {

// One at a time: the functions are those of the device that was made last.
class Device {
 public:
  explicit Device(Order order);
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  static const adafactor::cuda::Functions& functions();
  static Device& current();

  // How many kernels were launched, how often a thread has waited, and how many blocks of memory were ever taken.
  std::int64_t launches() const { return launches_; }
  std::int64_t waits() const { return waits_; }
  std::int64_t allocations() const { return allocations_; }
  // How many blocks of memory are taken.
  std::int64_t blocks() const { return static_cast<std::int64_t>(memory_.size() + host_.size()); }
  // How many bytes of its own memory.
  std::int64_t bytes() const {
    std::int64_t sum = 0;
    for (const auto& [memory, block] : memory_) sum += block.nbytes;
    return sum;
  }
  // On which of the two devices some memory lies.
  int device_of(const void* memory) const;

  // Which of them is the thread's current one: nothing of another one may be named meanwhile.
  static inline thread_local int entered = 0;

  // What the functions do; each gives up the program where it is asked what would go wrong on a GPU.
  void* allocate(std::int64_t nbytes, bool on_host);
  void free(void* memory, bool on_host);
  void copy(void* to, const void* from, std::int64_t nbytes, void* stream);
  // A copy to the device of bytes that the caller may change when it returns.
  void write(void* to, const void* from, std::int64_t nbytes, void* stream);
  void zero(void* memory, std::int64_t nbytes, void* stream);
  void launch(const adafactor::cuda::Variant& variant, const adafactor::cuda::View& view, std::int64_t blocks,
              void* stream);
  void* make_event();
  void free_event(void* event);
  void record(void* event, void* stream);
  void order(void* stream, void* event);
  void await(void* event);

  // Has a stream capture a graph, so that nobody may give it anything; and where the legacy default stream waits for
  // it, as it does for all that were not made otherwise, nobody may give that one anything either.
  void capture(void* stream, bool has_legacy_wait) {
    captured_ = named(stream);
    has_legacy_wait_ = has_legacy_wait;
  }
  void end_capture() { captured_ = nullptr; }
  bool captures(void* stream) {
    return captured_ && (named(stream) == captured_ || (has_legacy_wait_ && named(stream) == named(nullptr)));
  }
  // A stream that is there no more, which nobody may name.
  void destroy(void* stream);

  // What fails, and with which words: launches, or waiting; null: nothing.
  const char* failure = nullptr;
  const char* failure_to_await = nullptr;
  bool is_of_capture = false;  // the failure to await
  // How many more launches find memory; below 0: all.
  int launches_with_memory = -1;
  // Whether there is more memory.
  bool allocates = true;

 private:
  // A stream, and how much of what it was given is done.
  struct Stream {
    std::vector<std::function<void()>> work;
    std::size_t done = 0;
    bool is_destroyed = false;
  };
  // What a stream had been given when the event was recorded.
  struct Event {
    int device = 0;
    void* stream = nullptr;
    std::size_t work = 0;
  };
  struct Memory {
    std::int64_t nbytes;
    int device;
  };
  using Blocks = std::map<const std::byte*, Memory>;

  // A stream by its handle: each device has a legacy default stream of its own.
  void* named(void* handle) { return handle ? handle : &legacy_[entered]; }
  Stream& stream(void* handle);
  // The event of the device that is entered.
  Event& event(void* event);
  void queue(void* handle, std::function<void()> work);
  void run(void* stream, std::size_t up_to);
  void run_all();
  // Opens the memory to whoever runs: kernels and copies.
  void open(bool opens);
  static const Memory* find(const Blocks& blocks, const void* memory, std::int64_t nbytes);
  void require_entered(const void* memory) const;
  static void require(bool holds, const char* what);

  Order order_;
  Block block_;
  std::mt19937_64 random_{2};
  Blocks memory_;
  Blocks host_;
  std::map<void*, Stream> streams_;
  std::map<void*, Event> events_;
  std::uintptr_t next_event_ = 1;
  int runs_ = 0;  // one inside the other
  std::byte legacy_[2];
  void* captured_ = nullptr;
  bool has_legacy_wait_ = false;
  std::int64_t allocations_ = 0;
  std::int64_t launches_ = 0;
  std::int64_t waits_ = 0;
  Device* before_;
};

}  // namespace emulation
