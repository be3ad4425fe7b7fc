// The kernels of a GPU on a CPU that stands in for one: every digest, in several orders of threads and blocks, in place
// and from one set of arrays to another; and each number that the phases of a CPU find.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "adafactor/adafactor.hpp"
#include "adafactor/step/step.hpp"
#include "adafactor/step/workspace.hpp"
#include "cuda/emulated.hpp"
#include "cuda/gpu.hpp"
#include "support/check.hpp"
#include "support/digest.hpp"

namespace {

using adafactor::Plan;
using adafactor::StateArray;
using adafactor::StateArrays;
using adafactor::StateKind;
using adafactor::StateSlots;
using adafactor::TensorView;
using emulation::Order;

// Memory of a device, freed when it ends.
class DeviceArray {
 public:
  DeviceArray(emulation::Runtime& runtime, std::int64_t nbytes)
      : runtime_(runtime), nbytes_(nbytes), data_(runtime.allocate(nbytes)) {}
  DeviceArray(DeviceArray&& other) noexcept
      : runtime_(other.runtime_), nbytes_(other.nbytes_), data_(std::exchange(other.data_, nullptr)) {}
  DeviceArray& operator=(DeviceArray&&) = delete;
  ~DeviceArray() {
    if (!data_) return;
    runtime_.wait();
    runtime_.free(data_);
  }

  std::byte* data() const { return data_; }
  std::int64_t nbytes() const { return nbytes_; }

 private:
  emulation::Runtime& runtime_;
  std::int64_t nbytes_;
  std::byte* data_;
};

// The arrays of a state on a device, and where they are looked at.
class DeviceState {
 public:
  DeviceState(emulation::Runtime& runtime, const Plan& plan) : runtime_(runtime), plan_(plan) {
    for (const adafactor::LeafPlan& leaf : plan.leaves()) {
      for (const StateArray& array : leaf.state) {
        const std::int64_t nbytes = array.exists() ? array.nbytes() : 0;
        arrays_.emplace_back(runtime, nbytes);
        seen_.emplace_back(static_cast<std::size_t>(nbytes));
      }
    }
  }

  void zero() {
    for (const DeviceArray& array : arrays_) runtime_.zero(array.data(), array.nbytes());
  }
  StateArrays of(std::size_t leaf) const {
    return adafactor::detail::state_arrays([&](StateKind kind) -> void* {
      const bool exists = plan_.leaves()[leaf].state[static_cast<std::size_t>(kind)].exists();
      return exists ? arrays_[index(leaf, kind)].data() : nullptr;
    });
  }
  const std::byte* look_at(std::size_t leaf, StateKind kind) {
    const DeviceArray& array = arrays_[index(leaf, kind)];
    std::vector<std::byte>& seen = seen_[index(leaf, kind)];
    if (!seen.empty()) runtime_.copy_out(seen.data(), array.data(), array.nbytes());
    runtime_.wait();
    return seen.data();
  }

 private:
  static std::size_t index(std::size_t leaf, StateKind kind) {
    return leaf * adafactor::kStateKinds + static_cast<std::size_t>(kind);
  }

  emulation::Runtime& runtime_;
  const Plan& plan_;
  std::vector<DeviceArray> arrays_;
  std::vector<std::vector<std::byte>> seen_;
};

// Somebody's arrays on a device, as views of the host's say.
class DeviceViews {
 public:
  DeviceViews(emulation::Runtime& runtime, const TensorView* views, std::size_t count) : runtime_(runtime) {
    for (std::size_t i = 0; i < count; ++i) {
      std::int64_t size = adafactor::item_size(views[i].dtype);
      for (int axis = 0; axis < views[i].rank; ++axis) size *= views[i].shape[axis];
      arrays_.emplace_back(runtime, std::max<std::int64_t>(size, 1));
      if (size > 0) runtime.copy_in(arrays_.back().data(), views[i].data, size);
      views_.push_back(views[i]);
      views_.back().data = arrays_.back().data();
    }
  }
  const TensorView* views() const { return views_.data(); }
  // Copies the elements back.
  void take_to(const TensorView* views) const {
    for (std::size_t i = 0; i < views_.size(); ++i) {
      runtime_.copy_out(views[i].data, arrays_[i].data(), arrays_[i].nbytes());
    }
    runtime_.wait();
  }

 private:
  emulation::Runtime& runtime_;
  std::vector<DeviceArray> arrays_;
  std::vector<TensorView> views_;
};

// A stepper whose arrays lie on a device.
class OnDevice {
 public:
  OnDevice(const digest::Case& what, Order order, bool in_place)
      : runtime_(order),
        backend_(runtime_),
        plan_(digest::plan_of(what)),
        scratch_(runtime_, backend_.device_nbytes(*plan_)),
        stepper_(plan_, {}, {scratch_.data(), static_cast<std::size_t>(scratch_.nbytes())}),
        before_(std::make_unique<DeviceState>(runtime_, *plan_)),
        after_(std::make_unique<DeviceState>(runtime_, *plan_)),
        counts_(plan_->leaves().size()),
        in_place_(in_place) {
    before_->zero();
    counters_.leaves = counts_;
  }

  const adafactor::Stepper& stepper() const { return stepper_; }
  const std::byte* array(std::size_t leaf, StateKind kind) { return before_->look_at(leaf, kind); }

  adafactor::Outcome make(const adafactor::Call& call) {
    const std::size_t count = plan_->leaves().size();
    const DeviceViews parameters(runtime_, call.parameters, count);
    const DeviceViews gradients(runtime_, call.gradients, count);
    const DeviceViews outputs(runtime_, call.outputs, count);
    std::vector<StateSlots> slots;
    for (std::size_t leaf = 0; leaf < count; ++leaf) {
      slots.push_back({before_->of(leaf), in_place_ ? before_->of(leaf) : after_->of(leaf)});
    }
    adafactor::Call on_device = call;
    on_device.parameters = parameters.views();
    on_device.gradients = gradients.views();
    on_device.outputs = in_place_ ? parameters.views() : outputs.views();
    on_device.state = slots.data();
    const adafactor::Outcome outcome = adafactor::step(stepper_, counters_, on_device, backend_);
    (in_place_ ? parameters : outputs).take_to(call.outputs);
    if (!in_place_) std::swap(before_, after_);
    return outcome;
  }

 private:
  emulation::Runtime runtime_;
  adafactor::cuda::GpuBackend backend_;
  std::shared_ptr<const Plan> plan_;
  DeviceArray scratch_;
  adafactor::Stepper stepper_;
  std::unique_ptr<DeviceState> before_;
  std::unique_ptr<DeviceState> after_;
  std::vector<adafactor::LeafCount> counts_;
  adafactor::Counters counters_;
  bool in_place_;
};

void every_digest_is_that_of_a_cpu() {
  for (const digest::Case& what : digest::read_cases(digest::data_file())) {
    for (const Order order : {Order::forward, Order::backward, Order::shuffled}) {
      const bool in_place = order != Order::backward;
      OnDevice device(what, order, in_place);
      CHECK_EQ(what.name + " " + digest::run_on(device, what, 1, in_place).digest, what.name + " " + what.expected);
    }
  }
}

}  // namespace

int main() {
  every_digest_is_that_of_a_cpu();
  return check::report();
}
