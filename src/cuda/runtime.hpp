// A device as the backend and whoever keeps memory there ask it, on one stream: what fails throws.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <stdexcept>
#include <string>

#include "functions.hpp"

namespace adafactor::cuda {

// What cannot be done while a graph is captured.
class CaptureError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Throws std::bad_alloc, CaptureError, or std::runtime_error with the device's words.
inline void check(Failure failure) {
  if (!failure.words) return;
  if (failure.no_memory) throw std::bad_alloc();
  if (failure.is_of_capture) throw CaptureError(failure.words);
  throw std::runtime_error(failure.words);
}

// Makes a device the thread's current one as long as it lives.
class Entered {
 public:
  Entered(const Functions& functions, int device) : functions_(functions) { check(functions_.enter(device, &before_)); }
  // For destructors: of a device that cannot be entered nothing can be freed either, and it has said so elsewhere.
  Entered(const Functions& functions, int device, std::nothrow_t) noexcept : functions_(functions) {
    functions_.enter(device, &before_);
  }
  ~Entered() { functions_.leave(before_); }
  Entered(const Entered&) = delete;
  Entered& operator=(const Entered&) = delete;

 private:
  const Functions& functions_;
  int before_ = 0;
};

// What is asked for is done later, on the stream that is in use, in the order in which it was asked for; the caller has
// entered the device. Host memory stays as it is until wait().
class Runtime {
 public:
  explicit Runtime(const Functions& functions, int device = 0) : functions_(functions), device_(device) {
    const Entered entered = enter();
    check(functions_.make_event(&event_));
    check(functions_.make_event(&event_of_other_));
  }
  ~Runtime() {
    const Entered entered(functions_, device_, std::nothrow);
    functions_.free_event(event_);
    functions_.free_event(event_of_other_);
  }
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  const Functions& functions() const { return functions_; }
  int device() const { return device_; }
  Entered enter() const { return {functions_, device_}; }

  void* stream() const { return stream_; }
  // Comes when all that was marked is done.
  void* event() const { return event_; }
  // Whether what a stream is given goes into a graph, or breaks one that is captured elsewhere.
  bool captures(void* stream) const {
    bool captures = false;
    check(functions_.is_capturing(stream, &captures));
    return captures;
  }
  // Goes on with another stream, once all that was marked on the one before is done.
  void use(void* stream) {
    if (stream == stream_) return;
    check(functions_.order(stream, event_));
    stream_ = stream;
  }

  // What another stream was given so far is done before what is asked for from now on; what was marked here is done
  // before what it is given from now on.
  void follow(void* other) const {
    check(functions_.record(event_of_other_, other));
    check(functions_.order(stream_, event_of_other_));
  }
  void precede(void* other) const { check(functions_.order(other, event_)); }

  std::byte* allocate(std::int64_t nbytes) const {
    void* memory = nullptr;
    check(functions_.allocate(nbytes, &memory));
    return static_cast<std::byte*>(memory);
  }
  void free(std::byte* memory) const { check(functions_.free(memory)); }

  void copy(void* to, const void* from, std::int64_t nbytes) const {
    if (nbytes > 0) check(functions_.copy(to, from, nbytes, stream_));
  }
  void zero(void* memory, std::int64_t nbytes) const {
    if (nbytes > 0) check(functions_.zero(memory, nbytes, stream_));
  }
  void launch(const Variant& variant, const View& view, std::int64_t blocks) const {
    check(functions_.launch(&variant, &view, blocks, stream_));
  }

  // Marks what was asked for so far.
  void mark() const { check(functions_.record(event_, stream_)); }
  // Returns when all that was marked is done.
  void await_mark() const { check(functions_.await(event_)); }
  // Returns when all is done.
  void wait() const {
    mark();
    await_mark();
  }

 private:
  const Functions& functions_;
  int device_;
  void* stream_ = nullptr;
  void* event_ = nullptr;
  void* event_of_other_ = nullptr;
};

}  // namespace adafactor::cuda
