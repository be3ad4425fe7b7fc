// Adafactor over parameters in the memory of a GPU, for a C++ program: plan, state and calls as one object.
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <initializer_list>
#include <memory>
#include <new>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "adafactor/door/given.hpp"
#include "adafactor/door/nonfinite.hpp"
#include "adafactor/door/session.hpp"
#include "adafactor/optimizer.hpp"
#include "adafactor/step/step.hpp"
#include "gpu.hpp"
#include "runtime.hpp"

namespace adafactor::cuda { inline namespace ADAFACTOR_ABI {

// Blocks of memory of a device, and of the host where the device can reach it, until this ends.
class Memory {
 public:
  explicit Memory(const Runtime& runtime) : runtime_(runtime) {}
  ~Memory() {
    const Entered entered(runtime_.functions(), runtime_.device(), std::nothrow);
    for (void* memory : on_device_) runtime_.functions().free(memory);
    for (void* memory : on_host_) runtime_.functions().free_host(memory);
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  std::span<std::byte> take(std::int64_t nbytes) { return take(nbytes, on_device_, runtime_.functions().allocate); }
  std::span<std::byte> take_host(std::int64_t nbytes) {
    return take(nbytes, on_host_, runtime_.functions().allocate_host);
  }

 private:
  template <class Allocate>
  std::span<std::byte> take(std::int64_t nbytes, std::vector<void*>& blocks, const Allocate& allocate) {
    if (nbytes == 0) return {};
    blocks.reserve(blocks.size() + 1);
    void* memory = nullptr;
    check(allocate(nbytes, &memory));
    blocks.push_back(memory);
    return {static_cast<std::byte*>(memory), static_cast<std::size_t>(nbytes)};
  }

  const Runtime& runtime_;
  std::vector<void*> on_device_;
  std::vector<void*> on_host_;
};

// As adafactor::Optimizer, with the same bits. Parameters and gradients lie in the memory of one device; a step is
// given to a stream of the program's, and what it found is known once it is done. One call at a time.
//
// Besides what is said below each call throws std::bad_alloc and std::runtime_error where CUDA fails, with its words;
// what is made or copied goes to the legacy default stream, which must not take part in a graph that is captured.
class Optimizer {
 public:
  // As adafactor::Optimizer, on a device, as CUDA counts them. Allocates nbytes() there and, at the first step, scratch
  // there and on the host.
  Optimizer(const Config& config, std::vector<LeafSpec> leaves, const std::vector<Config>& overrides = {},
            int device = 0, const Functions& functions = *adafactor_cuda_functions())
      : runtime_(functions, device),
        backend_(runtime_),
        memory_(runtime_),
        plan_(std::make_shared<const Plan>(std::move(leaves), detail::rows_of_knobs(config, overrides))),
        state_(plan_, zeros()),
        session_(*plan_, {DeviceType::cuda, device}) {}
  ~Optimizer() { running_.reset(); }
  Optimizer(const Optimizer&) = delete;
  Optimizer& operator=(const Optimizer&) = delete;

  // Gives one step to a stream, which is CUDA's pointer; null is its legacy default stream. The arrays may be used
  // again on that stream. Waits for the step before it, and where on_nonfinite is `raise` for this one.
  //
  // Throws what adafactor::Optimizer::step throws, and Error{buffer} for elements that are not at multiples of their
  // size; std::runtime_error while a graph is captured on the stream, before it waits for anything.
  void step(std::initializer_list<ParameterArray> params, std::initializer_list<GradientArray> grads,
            void* stream = nullptr, const StepOptions& options = {}) {
    step(std::span<const ParameterArray>(params.begin(), params.size()),
         std::span<const GradientArray>(grads.begin(), grads.size()), stream, options);
  }
  void step(std::span<const ParameterArray> params, std::span<const GradientArray> grads, void* stream = nullptr,
            const StepOptions& options = {}) {
    const Held held(state_);
    require_working();
    const Entered entered = runtime_.enter();
    refuse_capture(stream);
    settle();
    const Device device{DeviceType::cuda, runtime_.device()};
    const detail::Given given(*plan_, params, grads);
    session_.take(true, [&](Purpose purpose, std::size_t leaf, TensorView& view, std::int64_t* strides) {
      view.device = {};  // of which the program's arrays say nothing
      const bool is_another = given(purpose, leaf, view, strides);
      view.device = device;
      return is_another;
    });
    if (!params.empty() && !session_.has_gradient()) {
      throw Error({.role = "grads", .expected = "at least one", .found = "every one is absent"});
    }
    detail::set_rates(session_.rates(), *plan_, options);
    session_.refuse_shared(state_);
    runtime_.use(stream);
    equip();
    session_.make_call(options.grad_multiplier, false, nullptr, [&](const Call& call) {
      on_gpu([&] {
        running_.emplace(state_, call, backend_);
        running_->run(kWholeCall);
        running_->close();
      });
      return Outcome{};
    });
    if (plan_->call().on_nonfinite == OnNonfinite::raise) raise();
  }

  // Waits for the last step; what it did. Without one all is as in a StepReport that nobody has filled in.
  StepReport finish() {
    const Held held(state_);
    settle();
    return report_;
  }
  // The same of a leaf; see adafactor::Optimizer::report().
  LeafReport report(std::size_t leaf) {
    const Held held(state_);
    settle();
    if (leaf >= plan_->leaves().size()) {
      throw Error(
          {.expected = "a leaf below " + std::to_string(plan_->leaves().size()), .found = std::to_string(leaf)});
    }
    if (!state_.workspace) throw Error({.expected = "a step before its report", .found = "none"});
    return adafactor::report(state_, leaf, report_.updated);
  }

  // Updates made, and calls that counted, after the last step.
  std::int64_t iterations() { return finish(), state_.counters.updates; }
  std::int64_t calls() { return finish(), state_.counters.calls; }

  // One array of the state, copied to the host; see adafactor::Optimizer::array().
  template <class T>
  std::vector<T> array(std::size_t leaf, StateKind kind) {
    const Held held(state_);
    const StateArray& array = plan_->leaves().at(leaf).state[static_cast<std::size_t>(kind)];
    if (array.exists() && array.dtype != dtype_of<T>) {
      throw Error({.kind = ErrorKind::type,
                   .role = kStateKindNames[static_cast<std::size_t>(kind)],
                   .leaf = static_cast<std::int64_t>(leaf),
                   .expected = name(array.dtype),
                   .found = std::string("dtype ") + name(dtype_of<T>)});
    }
    require_working();
    std::vector<T> copy(array.exists() ? static_cast<std::size_t>(array.count) : 0);
    const Entered entered = runtime_.enter();
    refuse_capture(nullptr);
    runtime_.use(nullptr);  // the stream of the last step may be there no more
    runtime_.copy(copy.data(), state_.memory() + array.offset, static_cast<std::int64_t>(copy.size() * sizeof(T)));
    runtime_.wait();
    return copy;
  }

  // Bytes of all arrays of the state.
  std::int64_t nbytes() const { return plan_->state_nbytes(); }
  const Plan& plan() const { return *plan_; }

 private:
  std::span<std::byte> zeros() {
    const Entered entered = runtime_.enter();
    refuse_capture(nullptr);
    const std::span<std::byte> memory = memory_.take(plan_->state_nbytes());
    runtime_.zero(memory.data(), static_cast<std::int64_t>(memory.size()));
    runtime_.wait();
    return memory;
  }
  // Gives the state its scratch, before its first step.
  void equip() {
    if (state_.workspace) return;
    // What there is of it already is from a step that found no memory for the rest.
    if (on_host_.empty()) on_host_ = memory_.take_host(scratch_nbytes(*plan_, backend_));
    if (on_device_.empty()) on_device_ = memory_.take(backend_.device_nbytes(*plan_));
    state_.give(on_host_, on_device_);
  }
  // Does what the device is asked to do with the step that runs. Where it fails, what it has there is lost.
  template <class Ask>
  void on_gpu(const Ask& ask) {
    try {
      ask();
    } catch (const Error&) {  // before anything was done
      running_.reset();
      throw;
    } catch (const std::exception& error) {
      failure_ = error.what();
      running_.reset();
      throw;
    }
  }
  void require_working() const {
    if (failure_.empty()) return;
    throw std::runtime_error("the GPU failed in an earlier step (" + failure_ + "), and what it has there is lost");
  }
  void refuse_capture(void* stream) const {
    if (runtime_.captures(stream)) {
      throw std::runtime_error("a CUDA graph is being captured, expected a stream that runs");
    }
  }
  // Awaits the step that runs. Where it must not wait because of a graph, nothing has failed, and the step is there
  // still.
  void settle() {
    require_working();
    if (!running_) return;
    std::optional<CaptureError> captured;
    on_gpu([&] {
      try {
        report_ = StepReport{running_->finish()};
      } catch (const CaptureError& error) {
        captured = error;
      }
    });
    if (captured) throw *captured;
    running_.reset();
    const Scalars scalars = call_scalars(*plan_, state_.counters, report_, session_.rates().front());
    report_.learning_rate = scalars.learning_rate;
    report_.beta_2 = scalars.beta_2;
    report_.rho = scalars.rho;
  }
  // Throws for a step that had to be left out.
  void raise() {
    settle();
    if (!report_.skipped) return;
    const auto leaf = static_cast<std::size_t>(report_.nonfinite_leaf);
    refuse_nonfinite(state_, leaf, "values, or a sum of their squares, that are not finite");
  }

  Runtime runtime_;
  GpuBackend backend_;
  Memory memory_;
  std::shared_ptr<const Plan> plan_;
  State state_;
  Session session_;
  std::span<std::byte> on_host_;
  std::span<std::byte> on_device_;
  std::optional<Step> running_;
  StepReport report_;
  std::string failure_;
};

}}  // namespace adafactor::cuda::ADAFACTOR_ABI
