// A device that a CPU stands in for: memory apart from the host's, which nobody but a kernel or a copy may touch, and a
// stream on which nothing is done before somebody waits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <random>
#include <vector>

#include "cuda/fibers.hpp"
#include "cuda/runtime.hpp"

namespace emulation {

class Runtime final : public adafactor::cuda::Runtime {
 public:
  explicit Runtime(Order order) : order_(order), block_(adafactor::cuda::kThreads, order) {}
  ~Runtime() override;
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  // Filled with NaN, which stays where nobody writes.
  std::byte* allocate(std::int64_t nbytes) override;
  void free(std::byte* memory) override;
  void copy_in(void* to, const void* from, std::int64_t nbytes) override;
  void copy_out(void* to, const void* from, std::int64_t nbytes) override;
  void copy(void* to, const void* from, std::int64_t nbytes) override;
  void zero(void* memory, std::int64_t nbytes) override;
  void launch(const adafactor::cuda::Variant& variant, const adafactor::cuda::View& view, std::int64_t blocks) override;
  void wait() override;

  std::int64_t launches() const { return launches_; }
  std::int64_t waits() const { return waits_; }

 private:
  // What a thread of the device does, while its memory can be touched.
  void queue(std::function<void()> work) { stream_.push_back(std::move(work)); }
  void open(bool opens);
  bool has(const void* memory, std::int64_t nbytes) const;
  void require(bool holds, const char* what) const;

  Order order_;
  Block block_;
  std::mt19937_64 random_{2};
  std::map<const std::byte*, std::int64_t> memory_;
  std::vector<std::function<void()>> stream_;
  std::int64_t launches_ = 0;
  std::int64_t waits_ = 0;
};

}  // namespace emulation
