// CUDA as the device: the one file with its calls.
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <type_traits>

#include "functions.hpp"
#include "kernels.hpp"

// The build says for which architectures it compiles.
#if !defined(ADAFACTOR_CUDA_ARCHITECTURES)
#define ADAFACTOR_CUDA_ARCHITECTURES nullptr
#endif

#define ADAFACTOR_TEXT(words) #words
#define ADAFACTOR_TEXT_OF(macro) ADAFACTOR_TEXT(macro)

namespace adafactor::cuda { namespace {

// A call that failed says which it is, and is not left for the next one of somebody else's to report.
Failure failure_of(cudaError_t error, const char* function = __builtin_FUNCTION()) {
  if (error == cudaSuccess) return {};
  cudaGetLastError();
  static thread_local char words[256];
  std::snprintf(words, sizeof words, "CUDA: %s (%s, in %s)", cudaGetErrorString(error), cudaGetErrorName(error),
                function);
  const bool is_of_capture = error >= cudaErrorStreamCaptureUnsupported && error <= cudaErrorStreamCaptureWrongThread;
  return {words, error == cudaErrorMemoryAllocation, is_of_capture};
}

cudaStream_t stream_of(void* stream) { return static_cast<cudaStream_t>(stream); }
cudaEvent_t event_of(void* event) { return static_cast<cudaEvent_t>(event); }

// How many blocks a multiprocessor has room for at least, since each thread uses few enough registers: they wait for
// memory, and the more of them wait the better.
inline constexpr int kResident = 3;

// Each thread reads the view where it lies: functions that are called are given its address.
template <class Functor>
__global__ void __launch_bounds__(kThreads, kResident) run_blocks(const __grid_constant__ View view) {
  __shared__ typename Functor::Shared shared;
  Functor{}(view, static_cast<int>(blockIdx.x), shared);
}

Failure driver(int* version) { return failure_of(cudaDriverGetVersion(version)); }
Failure count_devices(int* count) { return failure_of(cudaGetDeviceCount(count)); }

// Whether anybody in this process has used a device: to make one that nobody has used the current one would take
// hundreds of megabytes there. Where the driver does not say, it counts as used.
bool is_in_use(int device) {
  using Ask = int (*)(int device, unsigned* flags, int* is_active);
  static const auto ask = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult found{};
    const cudaError_t error =
        cudaGetDriverEntryPointByVersion("cuDevicePrimaryCtxGetState", &function, 7000, cudaEnableDefault, &found);
    if (error != cudaSuccess) cudaGetLastError();
    return error == cudaSuccess && found == cudaDriverEntryPointSuccess ? reinterpret_cast<Ask>(function) : nullptr;
  }();
  unsigned flags = 0;
  int is_active = 0;
  return !ask || ask(device, &flags, &is_active) != 0 || is_active != 0;
}

Failure enter(int device, int* before) {
  const Failure failure = failure_of(cudaGetDevice(before));
  if (failure.words || *before == device) return failure;
  return failure_of(cudaSetDevice(device));
}
Failure leave(int before) {
  int now = before;
  const Failure failure = failure_of(cudaGetDevice(&now));
  return failure.words || now == before || !is_in_use(before) ? failure : failure_of(cudaSetDevice(before));
}

// CUDA forbids some calls while a graph is captured anywhere, and breaks the graph if they are made, though they have
// nothing to do with it: as long as this lives, the thread may make them.
class BesideGraphs {
 public:
  BesideGraphs() { exchange(); }
  ~BesideGraphs() { exchange(); }
  BesideGraphs(const BesideGraphs&) = delete;
  BesideGraphs& operator=(const BesideGraphs&) = delete;

 private:
  void exchange() {
    if (cudaThreadExchangeStreamCaptureMode(&mode_) != cudaSuccess) cudaGetLastError();
  }

  cudaStreamCaptureMode mode_ = cudaStreamCaptureModeRelaxed;  // that of before, while the thread has the other one
};

Failure allocate(std::int64_t nbytes, void** memory) {
  const BesideGraphs beside;
  return failure_of(cudaMalloc(memory, static_cast<std::size_t>(nbytes)));
}
Failure free_memory(void* memory) {
  const BesideGraphs beside;
  return failure_of(cudaFree(memory));
}
Failure allocate_host(std::int64_t nbytes, void** memory) {
  const BesideGraphs beside;
  return failure_of(cudaHostAlloc(memory, static_cast<std::size_t>(nbytes), cudaHostAllocDefault));
}
Failure free_host(void* memory) {
  const BesideGraphs beside;
  return failure_of(cudaFreeHost(memory));
}

Failure copy(void* to, const void* from, std::int64_t nbytes, void* stream) {
  return failure_of(cudaMemcpyAsync(to, from, static_cast<std::size_t>(nbytes), cudaMemcpyDefault, stream_of(stream)));
}
Failure zero(void* memory, std::int64_t nbytes, void* stream) {
  return failure_of(cudaMemsetAsync(memory, 0, static_cast<std::size_t>(nbytes), stream_of(stream)));
}

Failure launch(const Variant* variant, const View* view, std::int64_t blocks, void* stream) {
  Failure failure;
  with_kernel(*variant, [&]<class Functor>(Functor) {
    // By this call, which says what came of it: the error that a thread remembers may be somebody else's.
    View copied = *view;
    void* arguments[] = {&copied};
    failure = failure_of(cudaLaunchKernel(run_blocks<Functor>, dim3(static_cast<unsigned>(blocks)), dim3(kThreads),
                                          arguments, 0, stream_of(stream)));
  });
  return failure;
}

// The legacy stream cannot be asked while another one captures, and may not be used either.
Failure is_capturing(void* stream, bool* captures) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  const cudaError_t error = cudaStreamIsCapturing(stream_of(stream), &status);
  if (error == cudaErrorStreamCaptureImplicit) cudaGetLastError();
  *captures = status != cudaStreamCaptureStatusNone || error == cudaErrorStreamCaptureImplicit;
  return *captures ? Failure{} : failure_of(error);
}

Failure make_event(void** event) {
  cudaEvent_t made = nullptr;
  const Failure failure = failure_of(cudaEventCreateWithFlags(&made, cudaEventDisableTiming));
  *event = made;
  return failure;
}
Failure free_event(void* event) { return failure_of(cudaEventDestroy(event_of(event))); }
Failure record(void* event, void* stream) { return failure_of(cudaEventRecord(event_of(event), stream_of(stream))); }
Failure order(void* stream, void* event) {
  return failure_of(cudaStreamWaitEvent(stream_of(stream), event_of(event), 0));
}
Failure await(void* event) {
  const BesideGraphs beside;
  return failure_of(cudaEventSynchronize(event_of(event)));
}

}}  // namespace adafactor::cuda

extern "C" __attribute__((visibility("default"))) const adafactor::cuda::Functions* adafactor_cuda_functions() {
  namespace cuda = adafactor::cuda;
  static constexpr cuda::Functions functions{
      .version = ADAFACTOR_VERSION,
      .view_nbytes = sizeof(cuda::View),
      .leaf_nbytes = sizeof(adafactor::Leaf),
      .toolkit = ADAFACTOR_TEXT_OF(__CUDACC_VER_MAJOR__) "." ADAFACTOR_TEXT_OF(__CUDACC_VER_MINOR__),
      .architectures = ADAFACTOR_CUDA_ARCHITECTURES,
      .driver = cuda::driver,
      .count_devices = cuda::count_devices,
      .enter = cuda::enter,
      .leave = cuda::leave,
      .allocate = cuda::allocate,
      .free = cuda::free_memory,
      .allocate_host = cuda::allocate_host,
      .free_host = cuda::free_host,
      .copy = cuda::copy,
      .zero = cuda::zero,
      .launch = cuda::launch,
      .is_capturing = cuda::is_capturing,
      .make_event = cuda::make_event,
      .free_event = cuda::free_event,
      .record = cuda::record,
      .order = cuda::order,
      .await = cuda::await,
  };
  return &functions;
}
