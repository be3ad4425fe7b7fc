// What a team of threads is handed, whoever they are.
#pragma once

#include <atomic>

#include "adafactor/compiler/abi.hpp"
#include "adafactor/host/floating_point.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI {

// What a thread that serves jobs is about.
enum class Attendance {
  idle,     // it has no job
  called,   // it has one and has not begun
  working,  // it is in a turn
  resting,  // it is between two turns, and holds up nobody
};

// The turns of one thread at a job. Its caller returns when the work is done, and waits for whoever is in a turn, but
// not for a thread between two of them, which may have lost its core: what belongs to the job is touched in a turn.
class Turn {
 public:
  // Of a thread that is waited for in any case: the caller, or one whom a barrier awaits.
  Turn() = default;
  explicit Turn(std::atomic<Attendance>& attendance) : attendance_(&attendance) {}

  // False: the job is over.
  bool begin() {
    Attendance expected = Attendance::resting;
    return !attendance_ || attendance_->compare_exchange_strong(expected, Attendance::working);
  }
  void end() {
    if (attendance_) attendance_->store(Attendance::resting);
  }

 private:
  std::atomic<Attendance>* attendance_ = nullptr;
};

namespace detail {

// What each thread of a team calls once.
struct Job {
  void (*call)(const void*, int, Turn&) = nullptr;
  const void* share = nullptr;

  // In the default floating-point environment.
  void operator()(int number, Turn turn) const {
    const DefaultFloatingPoint environment;
    call(share, number, turn);
  }
};

// Stands between two looks at what another thread does, and leaves the core to its other thread where it has two.
inline void pause() {
#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))
  __builtin_ia32_pause();
#endif
}

// What stands there after many looks: somebody else may need the core.
ADAFACTOR_FUNCTION void give_way();

}  // namespace detail

}}  // namespace adafactor::ADAFACTOR_ABI
