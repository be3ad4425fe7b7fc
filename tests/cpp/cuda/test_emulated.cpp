// The kernels of a GPU on a CPU that stands in for one: every digest, in several orders of threads and blocks, in place
// and from one set of arrays to another; and each number that a CPU finds and writes.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <set>
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
#include "support/same_steps.hpp"

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
  DeviceArray(adafactor::cuda::Runtime& runtime, std::int64_t nbytes)
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
  adafactor::cuda::Runtime& runtime_;
  std::int64_t nbytes_;
  std::byte* data_;
};

// The arrays of a state on a device, and where they are looked at.
class DeviceState {
 public:
  DeviceState(adafactor::cuda::Runtime& runtime, const Plan& plan) : runtime_(runtime), plan_(plan) {
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
    if (!seen.empty()) runtime_.copy(seen.data(), array.data(), array.nbytes());
    runtime_.wait();
    return seen.data();
  }

 private:
  static std::size_t index(std::size_t leaf, StateKind kind) {
    return leaf * adafactor::kStateKinds + static_cast<std::size_t>(kind);
  }

  adafactor::cuda::Runtime& runtime_;
  const Plan& plan_;
  std::vector<DeviceArray> arrays_;
  std::vector<std::vector<std::byte>> seen_;
};

// Somebody's arrays on a device, as views of the host's say.
class DeviceViews {
 public:
  DeviceViews(adafactor::cuda::Runtime& runtime, const TensorView* views, std::size_t count) : runtime_(runtime) {
    for (std::size_t i = 0; i < count; ++i) {
      std::int64_t size = adafactor::item_size(views[i].dtype);
      for (int axis = 0; axis < views[i].rank; ++axis) size *= views[i].shape[axis];
      arrays_.emplace_back(runtime, std::max<std::int64_t>(size, 1));
      if (size > 0) runtime.copy(arrays_.back().data(), views[i].data, size);
      views_.push_back(views[i]);
      views_.back().data = arrays_.back().data();
    }
  }
  const TensorView* views() const { return views_.data(); }
  // Copies the elements back.
  void take_to(const TensorView* views) const {
    for (std::size_t i = 0; i < views_.size(); ++i) {
      runtime_.copy(views[i].data, arrays_[i].data(), arrays_[i].nbytes());
    }
    runtime_.wait();
  }

 private:
  adafactor::cuda::Runtime& runtime_;
  std::vector<DeviceArray> arrays_;
  std::vector<TensorView> views_;
};

// A stepper whose arrays lie on a device.
class OnDevice {
 public:
  OnDevice(const digest::Case& what, Order order, bool in_place)
      : emulated_(order),
        runtime_(emulation::Device::functions()),
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
  const emulation::Device& emulated() const { return emulated_; }
  const adafactor::Counters& counters() const { return counters_; }
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
  emulation::Device emulated_;
  adafactor::cuda::Runtime runtime_;
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

// All cases, or those whose names are given.
std::vector<digest::Case> cases(const std::set<std::string>& names) {
  std::vector<digest::Case> found = digest::read_cases(digest::data_file());
  std::erase_if(found, [&](const digest::Case& what) { return !names.empty() && !names.contains(what.name); });
  return found;
}

void every_digest_is_that_of_a_cpu(const std::set<std::string>& names) {
  for (const digest::Case& what : cases(names)) {
    for (const Order order : {Order::forward, Order::backward, Order::shuffled}) {
      const bool in_place = order != Order::backward;
      OnDevice device(what, order, in_place);
      CHECK_EQ(what.name + " " + digest::run_on(device, what, 1, in_place).digest, what.name + " " + what.expected);
    }
  }
}

// The same calls on a device and on a CPU, in place.
class Both {
 public:
  Both(const digest::Case& what, Order order)
      : device_(what, order, true),
        state_(digest::plan_of(what)),
        on_cpu_(what.leaves),
        on_device_(what.leaves),
        gradients_(what.gradients),
        rate_{what.config.learning_rate, false} {
    on_cpu_.fill(1, what.of_parameters);
    on_device_.copy_from(on_cpu_);
  }

  digest::Arrays& gradients() { return gradients_; }

  // Makes a call on both. Returns the device's outcome.
  adafactor::Outcome step() {
    const adafactor::Outcome expected = adafactor::step(
        state_, {on_cpu_.views(), gradients_.views(), on_cpu_.views(), &rate_}, adafactor::cpu_backend());
    const adafactor::Outcome found = device_.make({on_device_.views(), gradients_.views(), on_device_.views(), &rate_});
    check_numbers(found.skipped);
    same_steps::check_reports(device_.stepper(), found, state_, expected);
    same_steps::check_counters(device_.counters(), state_.counters);
    check_arrays();
    return found;
  }
  std::uint64_t fold_on_device() const { return on_device_.fold_into(0); }

 private:
  // What the phases found in each tile and leaf, and what was decided from it. A CPU has gone on with small slices
  // before it knows that a call is skipped.
  void check_numbers(bool skipped) const {
    const adafactor::Workspace& expected = *state_.workspace;
    const adafactor::Workspace& found = *device_.stepper().workspace;
    for (std::size_t i = 0; i < expected.sums.size(); ++i) {
      same_steps::check_sums(found.sums[i], expected.sums[i], skipped, "tile " + std::to_string(i));
    }
    for (std::size_t i = 0; i < expected.leaves.size(); ++i) {
      same_steps::check_decisions(found.leaves[i].found, expected.leaves[i].found, "leaf " + std::to_string(i));
    }
    same_steps::check_verdict(found.verdict, expected.verdict);
  }
  // The parameters, and what is remembered of each.
  void check_arrays() {
    const std::vector<adafactor::LeafPlan>& leaves = state_.plan().leaves();
    for (std::size_t leaf = 0; leaf < leaves.size(); ++leaf) {
      const std::string where = "leaf " + std::to_string(leaf);
      const TensorView& expected = on_cpu_.views()[leaf];
      same_steps::check_elements(static_cast<const std::byte*>(on_device_.views()[leaf].data),
                                 static_cast<const std::byte*>(expected.data), on_cpu_.count(leaf), expected.dtype,
                                 where);
      for (std::size_t kind = 0; kind < adafactor::kStateKinds; ++kind) {
        const StateArray& array = leaves[leaf].state[kind];
        if (!array.exists()) continue;
        same_steps::check_elements(device_.array(leaf, static_cast<StateKind>(kind)), state_.memory() + array.offset,
                                   array.count, array.dtype, where + ", state " + std::to_string(kind));
      }
    }
  }

  OnDevice device_;
  adafactor::State state_;
  digest::Arrays on_cpu_;
  digest::Arrays on_device_;
  digest::Arrays gradients_;
  adafactor::LearningRate rate_;
};

// Call by call.
void each_number_on_the_way_is_that_of_a_cpu(const std::set<std::string>& names) {
  for (const digest::Case& what : cases(names)) {
    Both both(what, Order::shuffled);
    for (int call = 0; call < what.calls; ++call) {
      both.gradients().fill(1000 * (static_cast<std::uint64_t>(call) + 1), what.spread);
      both.step();
    }
  }
}

// Gradients with NaN or Inf, in the leaves that show it in every way: with `skip` nothing is written, and with
// `propagate` the numbers are those of a CPU.
void a_gradient_that_is_not_finite_does_what_it_does_on_a_cpu() {
  for (const adafactor::OnNonfinite policy : {adafactor::OnNonfinite::skip, adafactor::OnNonfinite::propagate}) {
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      digest::Case what;
      what.config.on_nonfinite = policy;
      what.config.clipnorm = 1;
      what.of_parameters = {-2, 2, 0};
      what.leaves = {{{20, 33}}, {{700}}, {{40, 3}}, {{20, 3, 3}}, {{}}};
      what.gradients = what.leaves;
      for (std::size_t leaf = 0; leaf < what.leaves.size(); ++leaf) {
        Both both(what, Order::forward);
        both.gradients().fill(2, what.of_parameters);
        const std::uint64_t before = both.fold_on_device();
        std::memcpy(both.gradients().views()[leaf].data, &bad, sizeof bad);
        const adafactor::Outcome found = both.step();
        CHECK_EQ(found.skipped, policy == adafactor::OnNonfinite::skip);
        CHECK_EQ(found.nonfinite_leaf, static_cast<std::int64_t>(leaf));
        CHECK_EQ(both.fold_on_device() == before, found.skipped);
      }
    }
  }
}

// Squares so large that the sum of a column leaves float although each of them is finite, or nearly.
void columns_that_overflow_do_what_they_do_on_a_cpu() {
  for (const float size : {4e18F, 1.5e19F}) {
    for (const std::vector<std::int64_t>& shape :
         std::vector<std::vector<std::int64_t>>{{20, 33}, {300, 600}, {40, 3}, {40, 3, 3}, {5, 20, 33}}) {
      digest::Case what;
      what.config.on_nonfinite = adafactor::OnNonfinite::skip;
      what.of_parameters = {-2, 2, 0};
      what.leaves = what.gradients = {{shape}};
      Both both(what, Order::forward);
      for (std::int64_t i = 0; i < both.gradients().count(0); ++i) {
        std::memcpy(static_cast<std::byte*>(both.gradients().views()[0].data) + i * std::int64_t{sizeof size}, &size,
                    sizeof size);
      }
      // A lane has the squares of 32 of the 600 columns.
      CHECK_EQ(both.step().skipped, size > 1e19F || shape.back() == 600);
    }
  }
}

// One call on one leaf has the digest of a CPU.
void check_digest_of(const adafactor::LeafSpec& leaf) {
  digest::Case what;
  what.calls = 1;
  what.leaves = what.gradients = {leaf};
  what.spread = {-30, 30, 0};
  OnDevice device(what, Order::forward, true);
  CHECK_EQ(digest::run_on(device, what, 1, true).digest, digest::run(what, 1, true).digest);
}

// The sums of a row in double, of numbers so far apart that another order of its blocks shows.
void the_blocks_of_a_row_are_added_up_in_their_order() { check_digest_of({{20, 2100}, adafactor::DType::float64}); }

// Two tiles side by side, and two below them.
void tiles_in_both_directions_have_their_own_sums() { check_digest_of({{512, 4100}}); }

// The launches of a step are as many for forty leaves as for one.
void a_step_is_a_fixed_list_of_launches() {
  const auto launches = [](int leaves) {
    digest::Case what;
    what.spread = what.of_parameters = {-2, 2, 0};
    for (int leaf = 0; leaf < leaves; ++leaf) what.leaves.push_back({{20, 33}});
    what.gradients = what.leaves;
    OnDevice device(what, Order::forward, true);
    digest::Arrays parameters(what.leaves);
    parameters.fill(1, what.of_parameters);
    const adafactor::LearningRate rate{0.1, false};
    device.make({parameters.views(), parameters.views(), parameters.views(), &rate});
    return device.emulated().launches();
  };
  CHECK_EQ(launches(40), launches(1));
}

}  // namespace

int main(int count, char** words) {
  const std::set<std::string> names{words + 1, words + count};
  every_digest_is_that_of_a_cpu(names);
  each_number_on_the_way_is_that_of_a_cpu(names);
  columns_that_overflow_do_what_they_do_on_a_cpu();
  the_blocks_of_a_row_are_added_up_in_their_order();
  tiles_in_both_directions_have_their_own_sums();
  a_gradient_that_is_not_finite_does_what_it_does_on_a_cpu();
  a_step_is_a_fixed_list_of_launches();
  return check::report();
}
