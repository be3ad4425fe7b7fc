// The lock around a call that may still run.
#include "late.hpp"

#include <stdexcept>

#include "gil.hpp"

namespace adafactor::bindings {

Late::Lock::Lock(Late& late) : late_(late) {
  const unsigned long self = PyThread_get_thread_ident();
  unsigned long other = 0;
  while (!late_.owner_.compare_exchange_strong(other, self)) {
    if (other == self) {
      throw std::runtime_error("state in use: a call from inside this one, as by a finalizer, asks what came of it");
    }
    without_gil([&] {
      late_.owner_.wait(other);
      return true;
    });
    other = 0;
  }
}

Late::Lock::~Lock() {
  late_.owner_.store(0);
  late_.owner_.notify_all();
}

}  // namespace adafactor::bindings
