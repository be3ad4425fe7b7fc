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
  while (!memory_.empty()) {
    entered = memory_.begin()->second.device;
    free(const_cast<std::byte*>(memory_.begin()->first), false);
  }
  entered = 0;
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
  (on_host ? host_ : memory_)[memory] = {nbytes, entered};
  ++allocations_;
  open(false);
  return memory;
}

// As CUDA does, it waits for all that runs.
void Device::free(void* memory, bool on_host) {
  if (!on_host) require_entered(memory);
  run_all();
  open(true);
  Blocks& blocks = on_host ? host_ : memory_;
  require(blocks.erase(static_cast<std::byte*>(memory)) == 1, "memory is freed that it does not have");
  std::free(memory);
  open(false);
}

void Device::copy(void* to, const void* from, std::int64_t nbytes, void* stream) {
  require(find(memory_, to, nbytes) || !find(memory_, to, 1), "a copy to the device leaves its memory");
  require(find(memory_, from, nbytes) || !find(memory_, from, 1), "a copy from the device leaves its memory");
  require(find(memory_, to, 1) || find(memory_, from, 1), "a copy from the host to the host");
  for (const void* memory : {static_cast<const void*>(to), from}) {
    if (find(memory_, memory, 1)) require_entered(memory);
  }
  queue(stream, [=] { std::memcpy(to, from, static_cast<std::size_t>(nbytes)); });
}
void Device::write(void* to, const void* from, std::int64_t nbytes, void* stream) {
  require_entered(to);
  const auto* first = static_cast<const std::byte*>(from);
  queue(stream, [=, bytes = std::vector<std::byte>(first, first + nbytes)] {
    std::ranges::copy(bytes, static_cast<std::byte*>(to));
  });
}
void Device::zero(void* memory, std::int64_t nbytes, void* stream) {
  require(find(memory_, memory, nbytes), "what is to be zero lies elsewhere");
  require_entered(memory);
  queue(stream, [=] { std::memset(memory, 0, static_cast<std::size_t>(nbytes)); });
}

void Device::launch(const adafactor::cuda::Variant& variant, const adafactor::cuda::View& view, std::int64_t blocks,
                    void* stream) {
  require(blocks > 0 && blocks < 0x7fffffff, "a launch of no block, or of too many");
  require_entered(view.verdict);
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
  void* made = reinterpret_cast<void*>(next_event_++);
  events_[made] = {entered};
  return made;
}
void Device::free_event(void* handle) {
  event(handle);
  events_.erase(handle);
}
void Device::record(void* handle, void* on) {
  require(!captures(on), "an event is recorded on a stream that captures a graph");
  event(handle) = {entered, named(on), stream(on).work.size()};
}
void Device::order(void* stream, void* handle) {
  const Event awaited = event(handle);
  queue(stream, [=, this] { run(awaited.stream, awaited.work); });
}
void Device::await(void* handle) {
  ++waits_;
  const Event awaited = event(handle);
  run(awaited.stream, awaited.work);
}
Device::Event& Device::event(void* handle) {
  const auto found = events_.find(handle);
  require(found != events_.end(), "an event is named that it does not have");
  require(found->second.device == entered, "an event of another device than the current one");
  return found->second;
}

void Device::destroy(void* handle) {
  run(named(handle), stream(handle).work.size());
  stream(handle).is_destroyed = true;
}

Device::Stream& Device::stream(void* handle) {
  Stream& found = streams_[named(handle)];
  require(!found.is_destroyed, "a stream is named that was destroyed");
  return found;
}

void Device::queue(void* handle, std::function<void()> work) {
  require(!captures(handle), "a stream is given something that captures a graph");
  stream(handle).work.push_back(std::move(work));
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
  for (const auto& [memory, block] : memory_) {
    if (opens) {
      __asan_unpoison_memory_region(memory, static_cast<std::size_t>(block.nbytes));
    } else {
      __asan_poison_memory_region(memory, static_cast<std::size_t>(block.nbytes));
    }
  }
#endif
}

// The block that some bytes are in; null: none.
const Device::Memory* Device::find(const Blocks& blocks, const void* memory, std::int64_t nbytes) {
  const auto* first = static_cast<const std::byte*>(memory);
  const auto after = blocks.upper_bound(first);
  if (after == blocks.begin()) return nullptr;
  const auto& [begin, block] = *std::prev(after);
  return first - begin + nbytes <= block.nbytes ? &block : nullptr;
}

int Device::device_of(const void* memory) const {
  const Memory* block = find(memory_, memory, 0);
  require(block, "memory is named that it does not have");
  return block->device;
}
void Device::require_entered(const void* memory) const {
  require(device_of(memory) == entered, "memory of another device than the current one");
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
      .enter = [](int device, int* before) { return *before = std::exchange(entered, device), done; },
      .leave = [](int before) { return entered = before, done; },
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
