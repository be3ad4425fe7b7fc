// The state of an optimizer: moments and the like, counters, and the scratch that its steps use. One step at a time.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "adafactor/host/fork.hpp"
#include "adafactor/host/memory.hpp"
#include "adafactor/plan.hpp"
#include "adafactor/plan/counters.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI {

// What Adafactor remembers of the leaves of a plan; all zeros when made. `plan().state_nbytes()` bytes at once, and the
// scratch at its first step. Whoever steps or copies it acquires it first; a copy is independent.
class State {
 public:
  explicit State(std::shared_ptr<const Plan> plan);

  // Copies all but the plan, which is shared, and the scratch, which the copy makes when it steps.
  State(const State& other);
  State& operator=(const State&) = delete;

  const Plan& plan() const { return *plan_; }
  const std::shared_ptr<const Plan>& shared_plan() const { return plan_; }
  std::byte* memory() { return memory_.get(); }
  const std::byte* memory() const { return memory_.get(); }

  // Calls of the window of accumulation that is open; 0 where none is.
  std::int64_t open_calls() const { return counters.open_calls(plan().call().gradient_accumulation_steps); }

  // Forgets these calls, and what they have gathered; whoever does it has acquired the state.
  void drop_window();

  // Whoever gets true may step or copy, and has to release.
  bool try_acquire() {
    int holder = kNobody;
    return holder_.compare_exchange_strong(holder, detail::forks(), std::memory_order_acquire);
  }
  void release() { holder_.store(kNobody, std::memory_order_release); }

  // Whether a thread was in a call when this process was forked off. It goes on in the parent alone: here nobody will
  // release the state, and its arrays may be half written.
  bool torn() const {
    const int holder = holder_.load();
    return holder != kNobody && holder != detail::forks();
  }

  Counters counters;
  std::unique_ptr<detail::Kept> scratch;  // of its steps: workspace.hpp

 private:
  std::shared_ptr<const Plan> plan_;
  detail::Bytes memory_;
  static constexpr int kNobody = -1;
  std::atomic<int> holder_{kNobody};  // the process that a call runs in, as its number of forks
};

}}  // namespace adafactor::ADAFACTOR_ABI

#if ADAFACTOR_DEFINES_STEP

#include <cstring>

namespace adafactor { inline namespace ADAFACTOR_ABI {

ADAFACTOR_FUNCTION State::State(std::shared_ptr<const Plan> plan)
    : plan_(std::move(plan)), memory_(detail::allocate_zeros(plan_->state_nbytes())) {
  counters.leaves.resize(plan_->leaves().size());
}

ADAFACTOR_FUNCTION State::State(const State& other)
    : counters(other.counters), plan_(other.plan_), memory_(detail::allocate_zeros(plan_->state_nbytes())) {
  if (memory_) std::memcpy(memory_.get(), other.memory_.get(), static_cast<std::size_t>(plan_->state_nbytes()));
}

ADAFACTOR_FUNCTION void State::drop_window() {
  if (open_calls() == 0) return;
  for (std::size_t i = 0; i < counters.leaves.size(); ++i) {
    const StateArray& array = plan_->leaves()[i].state[static_cast<std::size_t>(StateKind::accumulator)];
    if (array.exists()) std::memset(memory() + array.offset, 0, static_cast<std::size_t>(array.nbytes()));
    counters.leaves[i].accumulated = false;
  }
  counters.calls -= open_calls();
}

}}  // namespace adafactor::ADAFACTOR_ABI

#endif  // ADAFACTOR_DEFINES_STEP
