// What the backend asks of a device. CUDA is one that answers; in the tests a CPU stands in for it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "adafactor/dtype.hpp"
#include "view.hpp"

namespace adafactor::cuda {

// The kernels (kernels.hpp says which functor each is).
enum class Kernel : std::uint8_t {
  plain_moments,
  plain_rms,
  plain_apply,
  column_moments,
  slice_moments,
  cell_squares,
  tile_moments,
  means,
  factors,
  cell_rms,
  tile_rms,
  cell_rms_again,
  tile_rms_again,
  apply,
  commit,
  find_norm,
  find_verdict,
  find_clamp,
  find_wide,
  find_step,
};

// A kernel, for leaves of one arithmetic; those that read in place also for one type of gradients and of parameters.
struct Variant {
  Kernel kernel;
  DType arithmetic = DType::float32;
  DType gradient = DType::float32;
  DType parameter = DType::float32;
};

// What is asked for is done later, in the order in which it was asked for: host memory stays as it is until wait().
class Runtime {
 public:
  virtual ~Runtime() = default;

  // Memory of the device, with the alignment of a line; throws std::bad_alloc.
  virtual std::byte* allocate(std::int64_t nbytes) = 0;
  virtual void free(std::byte* memory) = 0;

  virtual void copy_in(void* to, const void* from, std::int64_t nbytes) = 0;
  virtual void copy_out(void* to, const void* from, std::int64_t nbytes) = 0;
  virtual void copy(void* to, const void* from, std::int64_t nbytes) = 0;
  virtual void zero(void* memory, std::int64_t nbytes) = 0;
  // So many blocks of kThreads threads.
  virtual void launch(const Variant& variant, const View& view, std::int64_t blocks) = 0;
  // Returns when all is done.
  virtual void wait() = 0;
};

}  // namespace adafactor::cuda
