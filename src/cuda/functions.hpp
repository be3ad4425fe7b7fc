// What a device offers to the backend: a table of plain functions, so that they can come out of a shared object that is
// opened when it is needed. CUDA's is one (cuda.cu); in the tests a CPU stands in for a device.
#pragma once

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
  take_scale,
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

// What came of a call: `words` is null where it did what it was asked for, and else says why it did not, until the
// thread's next call fails.
struct Failure {
  const char* words = nullptr;
  bool no_memory = false;
  bool is_of_capture = false;  // nothing is wrong, but a graph is captured
};

// Streams and events are CUDA's own pointers; null is the legacy default stream. What is given a stream is done later,
// in its order: host memory stays as it is until then. All is done on the thread's current device.
struct Functions {
  // Both sides have to be of one build, since the tables that kernels read are those of the headers.
  const char* version;
  std::int64_t view_nbytes;
  std::int64_t leaf_nbytes;

  // What the kernels were compiled by and for, as text; null where nobody says.
  const char* toolkit;
  const char* architectures;
  // The driver's version as CUDA counts it (13000 is 13.0); how many devices there are.
  Failure (*driver)(int* version);
  Failure (*count_devices)(int* count);

  // Makes a device the thread's current one, and makes the one again that was it before.
  Failure (*enter)(int device, int* before);
  Failure (*leave)(int before);

  // Memory of the device, with the alignment of a line of the cache; and of the host, which the device can reach by
  // itself, so that a copy from there waits for nobody. A graph that anybody captures meanwhile stays whole.
  Failure (*allocate)(std::int64_t nbytes, void** memory);
  Failure (*free)(void* memory);
  Failure (*allocate_host)(std::int64_t nbytes, void** memory);
  Failure (*free_host)(void* memory);

  // From the host to the device, back, or on the device.
  Failure (*copy)(void* to, const void* from, std::int64_t nbytes, void* stream);
  Failure (*zero)(void* memory, std::int64_t nbytes, void* stream);
  // So many blocks of kThreads threads.
  Failure (*launch)(const Variant* variant, const View* view, std::int64_t blocks, void* stream);
  // Whether what a stream is given goes into a graph instead, or would break one.
  Failure (*is_capturing)(void* stream, bool* captures);

  // An event is what a stream has been given so far. A stream that has to await one does nothing else before it has
  // come; the thread that awaits one does not return, and breaks no graph that anybody captures meanwhile.
  Failure (*make_event)(void** event);
  Failure (*free_event)(void* event);
  Failure (*record)(void* event, void* stream);
  Failure (*order)(void* stream, void* event);
  Failure (*await)(void* event);
};

}  // namespace adafactor::cuda

// What the shared object has, and all that it shows.
extern "C" const adafactor::cuda::Functions* adafactor_cuda_functions();
