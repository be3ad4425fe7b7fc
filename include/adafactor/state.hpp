// The state of an optimizer: moments and the like, and counters; and whoever steps, with the scratch that it uses. One
// step at a time.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "adafactor/host/fork.hpp"
#include "adafactor/host/memory.hpp"
#include "adafactor/plan.hpp"
#include "adafactor/plan/counters.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI {

// step/workspace.hpp.
class Workspace;

// Whoever makes the calls of a plan, one at a time: the scratch of its steps, and who is in one. What they remember,
// each call brings along. Whoever steps acquires it first.
class Stepper {
 public:
  // `scratch` has room for scratch_nbytes(*plan) bytes, or those of another backend, wherever they lie, and outlives
  // the stepper; without it the first step allocates as many. What a device needs besides, somebody gives always.
  explicit Stepper(std::shared_ptr<const Plan> plan, std::span<std::byte> scratch = {},
                   std::span<std::byte> on_device = {})
      : plan_(std::move(plan)), given_(scratch), on_device_(on_device) {}
  Stepper(const Stepper&) = delete;
  Stepper& operator=(const Stepper&) = delete;

  // Before the first step: the same as the constructor is given.
  void give(std::span<std::byte> scratch, std::span<std::byte> on_device) {
    given_ = scratch;
    on_device_ = on_device;
  }

  const Plan& plan() const { return *plan_; }
  const std::shared_ptr<const Plan>& shared_plan() const { return plan_; }

  // Whoever gets true may step or copy, and has to release.
  bool try_acquire() {
    int holder = kNobody;
    return holder_.compare_exchange_strong(holder, detail::forks(), std::memory_order_acquire);
  }
  void release() { holder_.store(kNobody, std::memory_order_release); }

  // Whether a thread was in a call when this process was forked off. It goes on in the parent alone: here nobody will
  // release it, and the arrays of the state may be half written.
  bool torn() const {
    const int holder = holder_.load();
    return holder != kNobody && holder != detail::forks();
  }

  // Memory for the workspace; throws Error where the scratch that was given is too small.
  std::byte* take_scratch(std::int64_t nbytes);
  std::byte* take_device_scratch(std::int64_t nbytes) const;

  Workspace* workspace = nullptr;  // of all calls; the first step makes it

 private:
  std::shared_ptr<const Plan> plan_;
  std::span<std::byte> given_;
  std::span<std::byte> on_device_;
  detail::Bytes own_;
  static constexpr int kNobody = -1;
  std::atomic<int> holder_{kNobody};  // the process that a call runs in, as its number of forks
};

// What Adafactor remembers of the leaves of a plan, and who steps it: `plan().state_nbytes()` bytes, all zeros when
// made. Whoever steps or copies it acquires it first; a copy is independent.
class State : public Stepper {
 public:
  // Its memory is its own, and allocated at once.
  explicit State(std::shared_ptr<const Plan> plan);

  // It lies in memory that outlives it: plan->state_nbytes() bytes, of which the first has the alignment of a double;
  // all zeros, or what a state of such a plan left there. Throws Error where there are fewer.
  State(std::shared_ptr<const Plan> plan, std::span<std::byte> memory, std::span<std::byte> scratch = {});

  // Copies all but the plan, which is shared, and the scratch, which the copy makes when it steps. The copy's memory is
  // its own.
  State(const State& other);

  std::byte* memory() { return memory_; }
  const std::byte* memory() const { return memory_; }

  // Calls of the window of accumulation that is open; 0 where none is.
  std::int64_t open_calls() const { return counters.open_calls(plan().call().gradient_accumulation_steps); }

  // Forgets these calls, and what they have gathered; whoever does it has acquired the state. `zero(array, nbytes)` is
  // for memory that is not the host's.
  void drop_window();
  template <class Zero>
  void drop_window(const Zero& zero) {
    if (open_calls() == 0) return;
    for (std::size_t i = 0; i < counters.leaves.size(); ++i) {
      const StateArray& array = plan().leaves()[i].state[static_cast<std::size_t>(StateKind::accumulator)];
      if (array.exists()) zero(memory() + array.offset, array.nbytes());
      counters.leaves[i].accumulated = false;
    }
    counters.calls -= open_calls();
  }

  Counters counters;

 private:
  std::vector<LeafCount> counts_;
  detail::Bytes own_;
  std::byte* memory_;
};

}}  // namespace adafactor::ADAFACTOR_ABI

#if ADAFACTOR_DEFINES_STEP

#include <algorithm>
#include <cstring>

namespace adafactor { inline namespace ADAFACTOR_ABI {

namespace detail {

inline void require_room(std::span<const std::byte> given, std::int64_t nbytes, const char* what) {
  const auto found = static_cast<std::int64_t>(given.size());
  if (found < nbytes) throw Error({.expected = counted(nbytes, what), .found = counted(found, " bytes")});
}

}  // namespace detail

ADAFACTOR_FUNCTION std::byte* Stepper::take_scratch(std::int64_t nbytes) {
  if (!given_.empty()) {
    detail::require_room(given_, nbytes, " bytes of scratch");
    return given_.data();
  }
  own_ = detail::allocate_zeros(nbytes);
  return own_.get();
}

ADAFACTOR_FUNCTION std::byte* Stepper::take_device_scratch(std::int64_t nbytes) const {
  detail::require_room(on_device_, nbytes, " bytes of scratch on the device");
  return on_device_.data();
}

ADAFACTOR_FUNCTION State::State(std::shared_ptr<const Plan> plan)
    : Stepper(std::move(plan)),
      counts_(this->plan().leaves().size()),
      own_(detail::allocate_zeros(this->plan().state_nbytes())),
      memory_(own_.get()) {
  counters.leaves = counts_;
}

ADAFACTOR_FUNCTION State::State(std::shared_ptr<const Plan> plan, std::span<std::byte> memory,
                                std::span<std::byte> scratch)
    : Stepper(std::move(plan), scratch), counts_(this->plan().leaves().size()), memory_(memory.data()) {
  detail::require_room(memory, this->plan().state_nbytes(), " bytes for a state");
  counters.leaves = counts_;
}

ADAFACTOR_FUNCTION State::State(const State& other) : State(other.shared_plan()) {
  std::copy(other.counts_.begin(), other.counts_.end(), counts_.begin());
  counters = other.counters;
  counters.leaves = counts_;
  if (memory_) std::memcpy(memory_, other.memory_, static_cast<std::size_t>(plan().state_nbytes()));
}

ADAFACTOR_FUNCTION void State::drop_window() {
  drop_window([](std::byte* array, std::int64_t nbytes) { std::memset(array, 0, static_cast<std::size_t>(nbytes)); });
}

}}  // namespace adafactor::ADAFACTOR_ABI

#endif  // ADAFACTOR_DEFINES_STEP
