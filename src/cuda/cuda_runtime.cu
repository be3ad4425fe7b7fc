// CUDA as the device that the backend asks: the one file with its calls.
#include <cuda_runtime.h>

#include <new>
#include <source_location>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "cuda_runtime.hpp"
#include "kernels.hpp"

namespace adafactor::cuda {

namespace {

// A call that failed says where it stands, and is not left for the next one of somebody else's to report.
void check(cudaError_t error, const std::source_location& where = std::source_location::current()) {
  if (error == cudaSuccess) return;
  cudaGetLastError();
  if (error == cudaErrorMemoryAllocation) throw std::bad_alloc();
  throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(error) + " (" + where.file_name() + ":" +
                           std::to_string(where.line()) + ")");
}

// How many blocks a multiprocessor has room for at least, since each thread uses few enough registers: those that read
// in place wait for memory, and the more of them wait the better.
template <class Functor>
inline constexpr int kResident = 2;
template <class G>
inline constexpr int kResident<ColumnMoments<float, G>> = std::is_void_v<G> ? 2 : 3;
template <class T, class G, class P>
inline constexpr int kResident<PlainRms<T, G, P>> = 3;
template <class T, class G, class P>
inline constexpr int kResident<PlainApply<T, G, P>> = 3;

template <class Functor>
__global__ void __launch_bounds__(kThreads, kResident<Functor>) run_blocks(const View view) {
  __shared__ typename Functor::Shared shared;
  Functor{}(view, static_cast<int>(blockIdx.x), shared);
}

cudaStream_t stream_of(void* stream) { return static_cast<cudaStream_t>(stream); }

}  // namespace

std::byte* CudaRuntime::allocate(std::int64_t nbytes) {
  void* memory = nullptr;
  check(cudaMalloc(&memory, static_cast<std::size_t>(nbytes)));
  return static_cast<std::byte*>(memory);
}
void CudaRuntime::free(std::byte* memory) { check(cudaFree(memory)); }

void CudaRuntime::copy_in(void* to, const void* from, std::int64_t nbytes) {
  check(cudaMemcpyAsync(to, from, static_cast<std::size_t>(nbytes), cudaMemcpyHostToDevice, stream_of(stream_)));
}
void CudaRuntime::copy_out(void* to, const void* from, std::int64_t nbytes) {
  check(cudaMemcpyAsync(to, from, static_cast<std::size_t>(nbytes), cudaMemcpyDeviceToHost, stream_of(stream_)));
}
void CudaRuntime::copy(void* to, const void* from, std::int64_t nbytes) {
  check(cudaMemcpyAsync(to, from, static_cast<std::size_t>(nbytes), cudaMemcpyDeviceToDevice, stream_of(stream_)));
}
void CudaRuntime::zero(void* memory, std::int64_t nbytes) {
  check(cudaMemsetAsync(memory, 0, static_cast<std::size_t>(nbytes), stream_of(stream_)));
}

void CudaRuntime::launch(const Variant& variant, const View& view, std::int64_t blocks) {
  with_kernel(variant, [&]<class Functor>(Functor) {
    // By this call, which says what came of it: the error that a thread remembers may be somebody else's.
    View copy = view;
    void* arguments[] = {&copy};
    check(cudaLaunchKernel(run_blocks<Functor>, dim3(static_cast<unsigned>(blocks)), dim3(kThreads), arguments, 0,
                           stream_of(stream_)));
  });
}

void CudaRuntime::wait() { check(cudaStreamSynchronize(stream_of(stream_))); }

}  // namespace adafactor::cuda
