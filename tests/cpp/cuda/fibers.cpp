// How a fiber is left, and gone back to.
#include "cuda/fibers.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

// Leaves the registers that a function has to keep on the stack, and in *from where, and goes on from what `to` left
// there. The system's swapcontext() asks the kernel each time, which takes as long as the threads do.
extern "C" void emulation_switch(void** from, void* to);
#if defined(__x86_64__)
asm(R"(
.text
.p2align 4
.globl emulation_switch
.type emulation_switch, @function
emulation_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size emulation_switch, .-emulation_switch
.section .note.GNU-stack,"",@progbits
.text
)");
#elif defined(__aarch64__)
asm(R"(
.text
.p2align 4
.globl emulation_switch
.type emulation_switch, @function
emulation_switch:
  stp x19, x20, [sp, #-160]!
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  ldp x19, x20, [sp], #160
  ret
.size emulation_switch, .-emulation_switch
)");
#else
#error "the emulated GPU knows no way from one fiber to another on this CPU"
#endif

namespace emulation {

namespace {

constexpr std::size_t kStack = 128 * 1024;

// Rounds in which nothing may go on, since whoever could had no turn.
constexpr int kPatience = 200;

// What a switch takes off the stack of a fiber that has not begun, and where in it the place that it goes to is.
#if defined(__x86_64__)
constexpr std::size_t kFrame = 8;  // words: six registers, the place, and what keeps the stack aligned
constexpr std::size_t kPlace = 6;
#else
constexpr std::size_t kFrame = 20;
constexpr std::size_t kPlace = 11;
#endif

}  // namespace

std::vector<int> numbers_in(Order order, int n, std::mt19937_64& random) {
  std::vector<int> numbers(static_cast<std::size_t>(n));
  std::iota(numbers.begin(), numbers.end(), 0);
  if (order == Order::backward) std::reverse(numbers.begin(), numbers.end());
  if (order == Order::shuffled) std::shuffle(numbers.begin(), numbers.end(), random);
  return numbers;
}

Block::Block(int threads, Order order)
    : order_(order), fibers_(static_cast<std::size_t>(threads)), teams_(static_cast<std::size_t>(threads / kTeamSize)) {
  for (Fiber& fiber : fibers_) fiber.stack = std::make_unique<std::byte[]>(kStack);
}

void Block::run(const std::function<void()>& body) {
  body_ = &body;
  running_ = this;
  alive_ = static_cast<int>(fibers_.size());
  for (Fiber& fiber : fibers_) begin(fiber);
  std::vector<int> turns = numbers_in(order_, alive_, random_);
  int idle = 0;  // rounds in which nothing went on
  while (alive_ > 0) {
    const std::uint64_t before = progress_;
    // Where the order is any, half of the teams have no turn, so that one may be far ahead of another.
    std::uint64_t asleep = 0;
    if (order_ == Order::shuffled) {
      std::shuffle(turns.begin(), turns.end(), random_);
      asleep = random_();
    }
    for (const int turn : turns) {
      thread_ = turn;
      if (!fiber().has_ended && (asleep >> (turn / kTeamSize) & 1) == 0) resume();
    }
    idle = progress_ == before ? idle + 1 : 0;
    if (idle > kPatience) give_up("threads wait for others that have ended");
  }
}

double Block::hear(double number, int lane) {
  double* numbers = team().numbers[fiber().calls++ % 2];  // none is two calls ahead of another
  numbers[thread_ % kTeamSize] = number;
  meet_team();
  return numbers[lane];
}

void Block::give_up(const char* why) {
  std::fprintf(stderr, "the emulated GPU: %s\n", why);
  std::abort();
}

void Block::wait(Barrier& barrier, int size) {
  const std::uint64_t round = barrier.rounds;
  ++progress_;
  if (++barrier.arrived == size) {
    barrier.arrived = 0;
    ++barrier.rounds;
    return;
  }
  while (barrier.rounds == round) yield();
}

void Block::begin(Fiber& fiber) {
  fiber.has_ended = false;
  void* frame[kFrame] = {};
  frame[kPlace] = reinterpret_cast<void*>(&Block::enter);
  std::byte* top = fiber.stack.get() + kStack - sizeof frame;
  std::memcpy(top, frame, sizeof frame);
  fiber.top = top;
}

void Block::enter() {
  Block& block = *running_;
  block.arrive(nullptr);
  (*block.body_)();
  block.fiber().has_ended = true;
  --block.alive_;
  ++block.progress_;
  block.leave_for_scheduler(nullptr);
  emulation_switch(&block.fiber().top, block.scheduler_);
}

void Block::resume() {
#if defined(__SANITIZE_ADDRESS__)
  void* shadow = nullptr;
  __sanitizer_start_switch_fiber(&shadow, fiber().stack.get(), kStack);
#endif
  emulation_switch(&scheduler_, fiber().top);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(shadow, nullptr, nullptr);
#endif
}

void Block::yield() {
  Fiber& own = fiber();
  leave_for_scheduler(&own.shadow);
  emulation_switch(&own.top, scheduler_);
  arrive(own.shadow);
}

// What the address sanitizer is told where a fiber goes, and where it comes back.
void Block::leave_for_scheduler([[maybe_unused]] void** shadow) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(shadow, scheduler_stack_, scheduler_size_);
#endif
}
void Block::arrive([[maybe_unused]] void* shadow) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(shadow, &scheduler_stack_, &scheduler_size_);
#endif
}

}  // namespace emulation
