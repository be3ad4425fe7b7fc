// Where there is little: threads that cannot be started, and threads with small stacks. A step does the same there.
#include "support/check.hpp"
#include "support/loop.hpp"

// The sanitizers take more memory and stack than the limits of these tests leave.
#if defined(__linux__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "support/digest.hpp"

namespace {

// Visits 1000 indices, each once, and returns with how many threads.
int visit(int threads) {
  std::vector<std::atomic<int>> seen(1000);
  const int used = parallel_for(0, 1000, threads, [&](std::int64_t i) { ++seen[static_cast<std::size_t>(i)]; });
  CHECK(std::vector<int>(seen.begin(), seen.end()) == std::vector<int>(1000, 1));
  return used;
}

// Their stacks find no room: the same error as that of a system that has too many threads.
void the_loop_goes_on_with_the_threads_that_there_are() {
  std::int64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  rlimit before{};
  getrlimit(RLIMIT_AS, &before);
  rlimit limit = before;
  limit.rlim_cur = static_cast<rlim_t>(pages * sysconf(_SC_PAGESIZE) + (std::int64_t{64} << 20));
  CHECK_EQ(setrlimit(RLIMIT_AS, &limit), 0);
  const int first = visit(500);
  const int second = visit(500);
  const int few = visit(2);
  setrlimit(RLIMIT_AS, &before);
  CHECK(first >= 1 && first < 500);
  CHECK(second >= 1 && second < 500);
  CHECK(few <= 2);
  visit(3);
}

struct Found {
  std::string digest;
  std::string expected;
};

void* run_everything(void* result) {
  for (const digest::Case& what : digest::read_cases(digest::data_file())) {
    if (what.name == "everything" || what.name == "convolution") {
      static_cast<Found*>(result)->expected += what.expected;
      static_cast<Found*>(result)->digest += digest::run(what, 2, true).digest;
    }
  }
  return nullptr;
}

// 128 kB is what musl gives a thread.
void a_step_needs_little_stack() {
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  CHECK_EQ(pthread_attr_setstacksize(&attributes, std::size_t{128} << 10), 0);
  Found found;
  pthread_t thread;
  CHECK_EQ(pthread_create(&thread, &attributes, run_everything, &found), 0);
  pthread_join(thread, nullptr);
  pthread_attr_destroy(&attributes);
  CHECK(!found.expected.empty());
  CHECK_EQ(found.digest, found.expected);
}

}  // namespace

int main() {
  the_loop_goes_on_with_the_threads_that_there_are();
  a_step_needs_little_stack();
  return check::report();
}
#else
int main() {
  CHECK(true);  // nothing to limit here
  return check::report();
}
#endif
