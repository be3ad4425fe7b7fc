// CUDA as the device that the backend asks.
#pragma once

#include <cstddef>
#include <cstdint>

#include "runtime.hpp"

namespace adafactor::cuda {

// What is asked for goes to one stream of the current device; null is its default one. Each throws std::runtime_error
// where CUDA fails, with its words.
class CudaRuntime final : public Runtime {
 public:
  explicit CudaRuntime(void* stream) : stream_(stream) {}

  std::byte* allocate(std::int64_t nbytes) override;
  void free(std::byte* memory) override;
  void copy_in(void* to, const void* from, std::int64_t nbytes) override;
  void copy_out(void* to, const void* from, std::int64_t nbytes) override;
  void copy(void* to, const void* from, std::int64_t nbytes) override;
  void zero(void* memory, std::int64_t nbytes) override;
  void launch(const Variant& variant, const View& view, std::int64_t blocks) override;
  void wait() override;

 private:
  void* stream_;
};

}  // namespace adafactor::cuda
