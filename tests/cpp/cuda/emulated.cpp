// The kernels, compiled for a CPU that stands in for a GPU.
#define ADAFACTOR_LANES_ARE_THREADS 1
#include "cuda/emulated.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <utility>

#include "cuda/kernels.hpp"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace adafactor::cuda {

int thread_of_block() { return emulation::Block::running().thread(); }
void meet() { emulation::Block::running().meet(); }
double exchange(double number, int distance) {
  emulation::Block& block = emulation::Block::running();
  return block.hear(number, (block.thread() ^ distance) % kLanes);
}
double of_lane(double number, int lane) { return emulation::Block::running().hear(number, lane); }

}  // namespace adafactor::cuda

namespace emulation {

namespace {

constexpr std::int64_t kLine = 64;

Device* the_device = nullptr;

}  // namespace

Device::Device(Order order)
    : order_(order), block_(adafactor::cuda::kThreads, order), before_(std::exchange(the_device, this)) {}

Device::~Device() {
  run_all();
  while (!memory_.empty()) free(const_cast<std::byte*>(memory_.begin()->first), false);
  while (!host_.empty()) free(const_cast<std::byte*>(host_.begin()->first), true);
  the_device = before_;
}

Device& Device::current() { return *the_device; }

// Filled with NaN, which stays where nobody writes.
void* Device::allocate(std::int64_t nbytes, bool on_host) {
  const std::int64_t lines = std::max((nbytes + kLine - 1) / kLine * kLine, kLine);
  if (!allocates) return nullptr;
  auto* memory = static_cast<std::byte*>(std::aligned_alloc(kLine, static_cast<std::size_t>(lines)));
  if (!memory) return nullptr;
  std::memset(memory, 0xff, static_cast<std::size_t>(lines));
  (on_host ? host_ : memory_)[memory] = nbytes;
  open(false);
  return memory;
}

// As CUDA does, it waits for all that runs.
void Device::free(void* memory, bool on_host) {
  run_all();
  open(true);
  Blocks& blocks = on_host ? host_ : memory_;
  require(blocks.erase(static_cast<std::byte*>(memory)) == 1, "memory is freed that it does not have");
  std::free(memory);
  open(false);
}

void Device::copy(void* to, const void* from, std::int64_t nbytes, void* stream) {
  require(has(memory_, to, nbytes) || !has(memory_, to, 1), "a copy to the device leaves its memory");
  require(has(memory_, from, nbytes) || !has(memory_, from, 1), "a copy from the device leaves its memory");
  require(has(memory_, to, 1) || has(memory_, from, 1), "a copy from the host to the host");
  queue(stream, [=] { std::memcpy(to, from, static_cast<std::size_t>(nbytes)); });
}
void Device::write(void* to, const void* from, std::int64_t nbytes, void* stream) {
  const auto* first = static_cast<const std::byte*>(from);
  queue(stream, [=, bytes = std::vector<std::byte>(first, first + nbytes)] {
    std::ranges::copy(bytes, static_cast<std::byte*>(to));
  });
}
void Device::zero(void* memory, std::int64_t nbytes, void* stream) {
  require(has(memory_, memory, nbytes), "what is to be zero lies elsewhere");
  queue(stream, [=] { std::memset(memory, 0, static_cast<std::size_t>(nbytes)); });
}

void Device::launch(const adafactor::cuda::Variant& variant, const adafactor::cuda::View& view, std::int64_t blocks,
                    void* stream) {
  require(blocks > 0 && blocks < 0x7fffffff, "a launch of no block, or of too many");
  ++launches_;
  queue(stream, [this, variant, view, blocks] {
    adafactor::cuda::with_kernel(variant, [&]<class Functor>(Functor functor) {
      for (const int index : numbers_in(order_, static_cast<int>(blocks), random_)) {
        // What another block left there means nothing.
        typename Functor::Shared shared;
        std::memset(static_cast<void*>(&shared), 0xff, sizeof shared);
        block_.run([&] { functor(view, index, shared); });
      }
    });
  });
}

void* Device::make_event() {
  void* event = reinterpret_cast<void*>(next_event_++);
  events_[event] = {};
  return event;
}
void Device::free_event(void* event) { require(events_.erase(event) == 1, "an event is freed that it does not have"); }
void Device::record(void* event, void* handle) { events_.at(event) = {handle, stream(handle).work.size()}; }
void Device::order(void* stream, void* event) {
  const Event awaited = events_.at(event);
  queue(stream, [=, this] { run(awaited.stream, awaited.work); });
}
void Device::await(void* event) {
  ++waits_;
  const Event awaited = events_.at(event);
  run(awaited.stream, awaited.work);
}

void Device::destroy(void* handle) {
  run(handle, streams_[handle].work.size());
  streams_[handle].is_destroyed = true;
}

Device::Stream& Device::stream(void* handle) {
  Stream& found = streams_[handle];
  require(!found.is_destroyed, "a stream is named that was destroyed");
  return found;
}

void Device::run(void* stream, std::size_t up_to) {
  if (runs_++ == 0) open(true);
  Stream& given = streams_[stream];
  while (given.done < up_to) {
    const std::function<void()> work = std::exchange(given.work[given.done++], nullptr);
    work();
  }
  if (--runs_ == 0) open(false);
}

void Device::run_all() {
  for (const auto& [stream, given] : streams_) run(stream, given.work.size());
}

void Device::open([[maybe_unused]] bool opens) {
#if defined(__SANITIZE_ADDRESS__)
  for (const auto& [memory, nbytes] : memory_) {
    if (opens) {
      __asan_unpoison_memory_region(memory, static_cast<std::size_t>(nbytes));
    } else {
      __asan_poison_memory_region(memory, static_cast<std::size_t>(nbytes));
    }
  }
#endif
}

bool Device::has(const Blocks& blocks, const void* memory, std::int64_t nbytes) {
  const auto* first = static_cast<const std::byte*>(memory);
  const auto after = blocks.upper_bound(first);
  if (after == blocks.begin()) return false;
  const auto& [begin, size] = *std::prev(after);
  return first - begin + nbytes <= size;
}

void Device::require(bool holds, const char* what) {
  if (!holds) Block::give_up(what);
}

const adafactor::cuda::Functions& Device::functions() {
  using adafactor::cuda::Failure;
  using adafactor::cuda::Variant;
  using adafactor::cuda::View;
  static constexpr Failure no_memory{"no memory for an emulated device", true};
  static constexpr Failure done{};
  static constexpr adafactor::cuda::Functions functions{
      .version = ADAFACTOR_VERSION,
      .view_nbytes = sizeof(View),
      .leaf_nbytes = sizeof(adafactor::Leaf),
      .toolkit = "a CPU that stands in for a GPU",
      .architectures = nullptr,
      .driver = [](int* version) { return *version = 13000, done; },
      .count_devices = [](int* count) { return *count = 2, done; },
      .enter = [](int, int* before) { return *before = 0, done; },
      .leave = [](int) { return done; },
      .allocate = [](std::int64_t nbytes,
                     void** memory) { return (*memory = current().allocate(nbytes, false)) ? done : no_memory; },
      .free = [](void* memory) { return current().free(memory, false), done; },
      .allocate_host = [](std::int64_t nbytes,
                          void** memory) { return (*memory = current().allocate(nbytes, true)) ? done : no_memory; },
      .free_host = [](void* memory) { return current().free(memory, true), done; },
      .copy = [](void* to, const void* from, std::int64_t nbytes,
                 void* stream) { return current().copy(to, from, nbytes, stream), done; },
      .zero = [](void* memory, std::int64_t nbytes,
                 void* stream) { return current().zero(memory, nbytes, stream), done; },
      .launch =
          [](const Variant* variant, const View* view, std::int64_t blocks, void* stream) {
            if (current().failure) return Failure{current().failure};
            if (current().launches_with_memory >= 0 && current().launches_with_memory-- == 0) return no_memory;
            return current().launch(*variant, *view, blocks, stream), done;
          },
      .is_capturing = [](void* stream, bool* captures) { return *captures = current().captures(stream), done; },
      .make_event = [](void** event) { return *event = current().make_event(), done; },
      .free_event = [](void* event) { return current().free_event(event), done; },
      .record = [](void* event, void* stream) { return current().record(event, stream), done; },
      .order = [](void* stream, void* event) { return current().order(stream, event), done; },
      .await =
          [](void* event) {
            if (current().failure_to_await) return Failure{current().failure_to_await, false, current().is_of_capture};
            return current().await(event), done;
          },
  };
  return functions;
}

}  // namespace emulation
