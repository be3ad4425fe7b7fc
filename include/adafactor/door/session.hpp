// The calls of one stepper, one after another: what they hand in is held against the plan and the memory before a phase
// sees it, and of arrays that have not moved since the last call nothing is found out again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "adafactor/door/lent.hpp"
#include "adafactor/door/memory.hpp"
#include "adafactor/door/view.hpp"
#include "adafactor/state.hpp"
#include "adafactor/step/call.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI {

// Takes the stepper, or the state that it is, for one call or one copy; throws Error{busy} where another call has it,
// or had it when this process was forked off.
ADAFACTOR_FUNCTION void acquire(Stepper& stepper);

// Holds a stepper as long as it lives.
class Held {
 public:
  explicit Held(Stepper& stepper) : stepper_(stepper) { acquire(stepper); }
  ~Held() { stepper_.release(); }
  Held(const Held&) = delete;
  Held& operator=(const Held&) = delete;

 private:
  Stepper& stepper_;
};

// What an array of a leaf is for. An output is where a parameter goes that is not written in place.
enum class Purpose : std::uint8_t { parameter, gradient, output };

// What the calls of one stepper keep from one to the next, so that a steady step allocates nothing.
class Session {
 public:
  // All arrays of a call lie on the device.
  explicit Session(const Plan& plan, Device device = {});

  // Takes the arrays of a call, leaf by leaf. `renew(purpose, leaf, view, strides)` makes a view that of an array, its
  // strides written to `strides`, and says whether it was another; without data it is absent. Each that was another is
  // checked: throws what check_view throws, and what `renew` does.
  template <class Renew>
  void take(bool in_place, const Renew& renew) {
    if (in_place_ != in_place) set_moved();
    in_place_ = in_place;
    std::int64_t* strides = strides_.data();
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
      const std::size_t rank = plan_.leaves()[i].spec.shape.size();
      take_one(Purpose::parameter, i, parameters_[i], std::exchange(strides, strides + rank), renew);
      if (!in_place) {
        take_one(Purpose::output, i, outputs_[i], std::exchange(strides, strides + rank), renew);
      } else {
        if (moved_) outputs_[i] = parameters_[i];
        strides += rank;
      }
      take_one(Purpose::gradient, i, gradients_[i], std::exchange(strides, strides + rank), renew);
    }
  }

  // Takes the arrays of the state that the call brings along; as `LentState::take`.
  template <class Renew>
  void take_state(LentState& state, const Renew& renew) {
    // At once, since what comes after may be refused, and this one is known from then on.
    state.take([&](std::size_t leaf, StateKind kind, TensorView& view, std::int64_t* strides) {
      const bool is_another = renew(leaf, kind, view, strides);
      if (is_another) set_moved();
      return is_another;
    });
  }

  // Throws Error where arrays of the call share memory with each other or with the state.
  void refuse_shared(const State& state) {
    refuse_shared({}, {state.memory(), static_cast<std::size_t>(plan_.state_nbytes())});
  }
  void refuse_shared(const LentState& state) { refuse_shared(state.views(), {}); }

  // What comes next is taken as in the first call: whoever steps knows of no array any more.
  void forget() { set_moved(); }

  // Whether some leaf has a gradient.
  bool has_gradient() const;

  // The learning rates of the call, one for each row of knobs.
  std::vector<LearningRate>& rates() { return rates_; }

  // Makes the call once all is taken: `step` is given it, and the caller holds the stepper. `state`: what the call
  // brings along, if it does.
  template <class Step>
  Outcome make_call(double grad_multiplier, bool completes, const StateSlots* state, const Step& step) {
    const Outcome outcome = step(Call{parameters_.data(), gradients_.data(), outputs_.data(), rates_.data(),
                                      grad_multiplier, moved_, completes, state});
    moved_ = false;
    return outcome;
  }

  // The array of a leaf in this call.
  const TensorView& array(std::size_t leaf, Role role) const {
    return (role == Role::grads ? gradients_ : parameters_)[leaf];
  }

 private:
  template <class Renew>
  void take_one(Purpose purpose, std::size_t leaf, TensorView& view, std::int64_t* strides, const Renew& renew) {
    if (!renew(purpose, leaf, view, strides)) return;
    set_moved();
    if (!view.data) return;
    const TensorView found = std::exchange(view, {});  // nothing that fails the check is kept
    const LeafPlan& plan = plan_.leaves()[leaf];
    check_view(found, plan, purpose == Purpose::gradient ? Role::grads : Role::params, static_cast<std::int64_t>(leaf),
               device_);
    view = found;
    // The plan's own copy: nothing keeps the caller from giving the array another shape while the step runs.
    view.shape = plan.spec.shape.data();
  }

  void refuse_shared(std::span<const TensorView> lent, std::span<const std::byte> memory) {
    const std::span<const TensorView> read(parameters_.data(), in_place_ ? 0 : parameters_.size());
    if (!apart_) memory_.refuse_shared({outputs_, gradients_, read, lent, memory});
    apart_ = true;
  }

  void set_moved() {
    apart_ = false;
    moved_ = true;
  }

  const Plan& plan_;
  Device device_;
  std::vector<TensorView> parameters_;
  std::vector<TensorView> gradients_;
  std::vector<TensorView> outputs_;
  std::vector<std::int64_t> strides_;
  std::vector<LearningRate> rates_;
  bool in_place_ = false;
  bool apart_ = false;  // whether they were found to share no memory
  bool moved_ = true;   // whether one is new since the last step
  MemoryCheck memory_;
};

}}  // namespace adafactor::ADAFACTOR_ABI

#if ADAFACTOR_DEFINES_STEP

namespace adafactor { inline namespace ADAFACTOR_ABI {

ADAFACTOR_FUNCTION void acquire(Stepper& stepper) {
  if (stepper.try_acquire()) return;
  throw Error(
      {.kind = ErrorKind::busy,
       .found = stepper.torn()
                    ? "state torn by fork: a thread of the parent process was in a call on it when this process "
                      "was forked, and its arrays may be half written; make a new state, or fork between calls"
                    : "state in use: another call, from a thread or from inside this one, runs on it"});
}

ADAFACTOR_FUNCTION Session::Session(const Plan& plan, Device device)
    : plan_(plan),
      device_(device),
      parameters_(plan.leaves().size()),
      gradients_(plan.leaves().size()),
      outputs_(plan.leaves().size()) {
  std::size_t room = 0;
  for (const LeafPlan& leaf : plan.leaves()) room += 3 * leaf.spec.shape.size();
  strides_.resize(room);
}

ADAFACTOR_FUNCTION bool Session::has_gradient() const {
  for (const TensorView& gradient : gradients_) {
    if (gradient.data) return true;
  }
  return false;
}

}}  // namespace adafactor::ADAFACTOR_ABI

#endif  // ADAFACTOR_DEFINES_STEP
