// The kernels, compiled for a CPU that stands in for a GPU.
#define ADAFACTOR_LANES_ARE_THREADS 1
#include "cuda/emulated.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

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

}  // namespace

Runtime::~Runtime() {
  wait();
  while (!memory_.empty()) free(const_cast<std::byte*>(memory_.begin()->first));
}

std::byte* Runtime::allocate(std::int64_t nbytes) {
  const std::int64_t lines = (nbytes + kLine - 1) / kLine * kLine;
  auto* memory = static_cast<std::byte*>(std::aligned_alloc(kLine, static_cast<std::size_t>(std::max(lines, kLine))));
  if (!memory) throw std::bad_alloc();
  std::memset(memory, 0xff, static_cast<std::size_t>(lines));
  memory_[memory] = nbytes;
  open(false);
  return memory;
}

void Runtime::free(std::byte* memory) {
  open(true);
  require(memory_.erase(memory) == 1, "memory is freed that it does not have");
  std::free(memory);
  open(false);
}

void Runtime::copy_in(void* to, const void* from, std::int64_t nbytes) {
  require(has(to, nbytes) && !has(from, 1), "a copy to the device goes elsewhere");
  queue([=] { std::memcpy(to, from, static_cast<std::size_t>(nbytes)); });
}
void Runtime::copy_out(void* to, const void* from, std::int64_t nbytes) {
  require(has(from, nbytes) && !has(to, 1), "a copy from the device comes from elsewhere");
  queue([=] { std::memcpy(to, from, static_cast<std::size_t>(nbytes)); });
}
void Runtime::copy(void* to, const void* from, std::int64_t nbytes) {
  require(has(from, nbytes) && has(to, nbytes), "a copy on the device leaves it");
  queue([=] { std::memcpy(to, from, static_cast<std::size_t>(nbytes)); });
}
void Runtime::zero(void* memory, std::int64_t nbytes) {
  require(has(memory, nbytes), "what is to be zero lies elsewhere");
  queue([=] { std::memset(memory, 0, static_cast<std::size_t>(nbytes)); });
}

void Runtime::launch(const adafactor::cuda::Variant& variant, const adafactor::cuda::View& view, std::int64_t blocks) {
  require(blocks > 0 && blocks < 0x7fffffff, "a launch of no block, or of too many");
  ++launches_;
  queue([this, variant, view, blocks] {
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

void Runtime::wait() {
  ++waits_;
  open(true);
  for (const std::function<void()>& work : stream_) work();
  stream_.clear();
  open(false);
}

void Runtime::open([[maybe_unused]] bool opens) {
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

bool Runtime::has(const void* memory, std::int64_t nbytes) const {
  const auto* first = static_cast<const std::byte*>(memory);
  const auto after = memory_.upper_bound(first);
  if (after == memory_.begin()) return false;
  const auto& [begin, size] = *std::prev(after);
  return first - begin + nbytes <= size;
}

void Runtime::require(bool holds, const char* what) const {
  if (!holds) Block::give_up(what);
}

}  // namespace emulation
