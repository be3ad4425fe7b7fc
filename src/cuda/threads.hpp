// Who a thread is, what it hears from its team, and where the threads of a block meet. On a GPU these are registers and
// shuffles; where a CPU stands in for one, each thread is a fiber (tests/cpp/cuda/fibers.hpp).
#pragma once

#include "adafactor/compiler/abi.hpp"
#include "adafactor/lanes/lanes.hpp"
#include "adafactor/order.hpp"

#if defined(__CUDACC__)
#define ADAFACTOR_KERNEL __device__ __forceinline__
#define ADAFACTOR_KERNEL_CALL __device__ __noinline__
#else
#define ADAFACTOR_KERNEL inline
#define ADAFACTOR_KERNEL_CALL inline
#endif

namespace adafactor {

namespace cuda {

#if defined(__CUDACC__)

ADAFACTOR_KERNEL int thread_of_block() { return static_cast<int>(threadIdx.x); }
ADAFACTOR_KERNEL void meet() { __syncthreads(); }

namespace thread_detail {

// The threads of this thread's team among those of its warp.
ADAFACTOR_KERNEL unsigned team_mask() { return 0xffffU << (threadIdx.x & 16U); }

}  // namespace thread_detail

ADAFACTOR_KERNEL double of_lane(double number, int lane) {
  return __shfl_sync(thread_detail::team_mask(), number, lane, kLanes);
}

#else

// Defined by whoever stands in for a GPU.
int thread_of_block();
void meet();  // of all threads of the block
double exchange(double number, int distance);
double of_lane(double number, int lane);  // what the lane has as its number

#endif

// An array of the device's memory, which the compiler is told that it is.
template <class S>
ADAFACTOR_KERNEL S* in_device_memory(S* array) {
#if defined(__CUDA_ARCH__)
  __builtin_assume(__isGlobal(array));
#endif
  return array;
}

// A thing in memory that is read anew wherever it is asked for, in place of kept in registers.
template <class Thing>
ADAFACTOR_KERNEL const Thing& as_unknown(const Thing& thing) {
  const Thing* at = &thing;
#if defined(__CUDA_ARCH__)
  asm volatile("" : "+l"(at));
#endif
  return *at;
}

ADAFACTOR_KERNEL int team_of_block() { return thread_of_block() / kLanes; }

}  // namespace cuda

inline namespace ADAFACTOR_LOOPS {

#if defined(__CUDACC__)

ADAFACTOR_INLINE int lane() {
#if defined(__CUDA_ARCH__)
  return static_cast<int>(threadIdx.x) % kLanes;
#else
  return 0;
#endif
}
ADAFACTOR_INLINE double exchange(double number, [[maybe_unused]] int distance) {
#if defined(__CUDA_ARCH__)
  return __shfl_xor_sync(cuda::thread_detail::team_mask(), number, distance, kLanes);
#else
  return number;
#endif
}

#else

ADAFACTOR_INLINE int lane() { return cuda::thread_of_block() % kLanes; }
ADAFACTOR_INLINE double exchange(double number, int distance) { return cuda::exchange(number, distance); }

#endif

}  // namespace ADAFACTOR_LOOPS

}  // namespace adafactor
