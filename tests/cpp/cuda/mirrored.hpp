// A GPU for arrays of the host, so that what is written for a CPU runs on one: what a step is given is copied to the
// device before its first phase, and back when it is awaited.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "adafactor/adafactor.hpp"
#include "adafactor/step/workspace.hpp"
#include "cuda/gpu.hpp"
#include "cuda/runtime.hpp"

namespace emulation {

class MirroredBackend final : public adafactor::Backend {
 public:
  explicit MirroredBackend(adafactor::cuda::Runtime& runtime) : runtime_(runtime), gpu_(runtime) {}
  ~MirroredBackend() override {
    for (std::byte* scratch : scratch_) runtime_.free(scratch);
  }

  // Gives a stepper what its first step needs on the device.
  void equip(adafactor::Stepper& stepper) const {
    if (stepper.workspace) return;
    const std::int64_t nbytes = gpu_.device_nbytes(stepper.plan());
    scratch_.push_back(runtime_.allocate(nbytes));
    stepper.give({}, {scratch_.back(), static_cast<std::size_t>(nbytes)});
  }

  std::int64_t scratch_nbytes(const adafactor::Plan& plan) const override { return gpu_.scratch_nbytes(plan); }
  std::int64_t device_nbytes(const adafactor::Plan& plan) const override { return gpu_.device_nbytes(plan); }
  void prepare(adafactor::Workspace& workspace) const override { gpu_.prepare(workspace); }

  void run(adafactor::Workspace& workspace, adafactor::Phases phases, adafactor::Indices leaves) const override {
    if (!mirrors_.contains(&workspace)) mirrors_.emplace(&workspace, std::make_unique<Mirror>(runtime_, workspace));
    gpu_.run(workspace, phases, leaves);
  }
  // Of a leaf that the device has not got.
  void copy(void* to, const void* from, std::int64_t nbytes) const override {
    std::memcpy(to, from, static_cast<std::size_t>(nbytes));
  }
  void finish(adafactor::Workspace& workspace) const override {
    gpu_.finish(workspace);
    mirrors_.erase(&workspace);
  }

 private:
  // The arrays of a step on the device, as long as it lives; in the end the host has what became of them.
  class Mirror {
   public:
    Mirror(const adafactor::cuda::Runtime& runtime, adafactor::Workspace& workspace)
        : runtime_(runtime), workspace_(workspace) {
      for (std::size_t i = 0; i < workspace.leaves.size(); ++i) {
        adafactor::Leaf& leaf = workspace.leaves[i];
        before_.push_back(leaf.at);
        if (leaf.shape.tile_count == 0) continue;
        for (adafactor::Walk* walk : {&leaf.at.gradient, &leaf.at.parameter, &leaf.at.parameter_out}) {
          walk->data =
              static_cast<std::byte*>(there(walk->data, leaf.shape.size() * adafactor::item_size(walk->dtype)));
        }
        const adafactor::LeafPlan& plan = workspace.plan.leaves()[i];
        for (adafactor::StateArrays* arrays : {&leaf.at.before, &leaf.at.after}) place(*arrays, plan);
      }
    }
    ~Mirror() {
      for (const auto& [host, block] : blocks_) runtime_.copy(host, block.data, block.nbytes);
      runtime_.wait();
      for (const auto& [host, block] : blocks_) runtime_.free(block.data);
      for (std::size_t i = 0; i < before_.size(); ++i) workspace_.leaves[i].at = before_[i];
    }
    Mirror(const Mirror&) = delete;
    Mirror& operator=(const Mirror&) = delete;

   private:
    struct Block {
      std::byte* data;
      std::int64_t nbytes;
    };

    void place(adafactor::StateArrays& arrays, const adafactor::LeafPlan& plan) {
      const auto move = [&](void*& array, adafactor::StateKind kind) {
        array = there(array, plan.state[static_cast<std::size_t>(kind)].nbytes());
      };
      move(arrays.row, adafactor::StateKind::row);
      move(arrays.col, adafactor::StateKind::col);
      move(arrays.full, adafactor::StateKind::full);
      move(arrays.momentum, adafactor::StateKind::momentum);
      move(arrays.average, adafactor::StateKind::average);
      move(arrays.accumulator, adafactor::StateKind::accumulator);
    }
    // Where an array of the host lies on the device; one array has one place.
    void* there(void* host, std::int64_t nbytes) {
      if (!host || nbytes == 0) return host;
      const auto [found, is_new] = blocks_.try_emplace(host, Block{nullptr, nbytes});
      if (is_new) {
        found->second.data = runtime_.allocate(nbytes);
        runtime_.copy(found->second.data, host, nbytes);
      }
      return found->second.data;
    }

    const adafactor::cuda::Runtime& runtime_;
    adafactor::Workspace& workspace_;
    std::vector<adafactor::LeafArrays> before_;
    std::map<void*, Block> blocks_;
  };

  adafactor::cuda::Runtime& runtime_;
  adafactor::cuda::GpuBackend gpu_;
  mutable std::vector<std::byte*> scratch_;
  mutable std::map<const adafactor::Workspace*, std::unique_ptr<Mirror>> mirrors_;
};

}  // namespace emulation
