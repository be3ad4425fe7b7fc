// Processes forked before, after and during a step: they step like any other and make the same bits. The state that
// another thread was stepping at that moment is torn in the child, and says so.
#include "support/check.hpp"
#include "support/loop.hpp"

#if (defined(__unix__) || defined(__APPLE__)) && \
    !defined(__SANITIZE_THREAD__)  // which ends a child that starts threads
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "adafactor/door/session.hpp"
#include "adafactor/optimizer.hpp"
#include "support/digest.hpp"

namespace {

const std::string_view kKind = adafactor::threads_kind();

const digest::Case& tall_case() {
  static const std::vector<digest::Case> cases = digest::read_cases(digest::data_file());
  for (const digest::Case& what : cases) {
    if (what.name == "tall") return what;
  }
  throw std::runtime_error("there is no case called tall");
}

// 0 where all checks in a child passed.
template <class Checks>
int code_of_child(const Checks& checks) {
  const pid_t child = fork();
  if (child == 0) {
    alarm(60);  // a child that hangs is ended
    check::counts = {};
    checks();
    _exit(check::counts.made > 0 && check::counts.failed == 0 ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

void steps_like_any_other() {
  const digest::Case& tall = tall_case();
  CHECK_EQ(digest::run(tall, 3, true).digest, tall.expected);
}

// OpenMP has one thread in a forked process; the pool starts anew.
void has_the_threads_of_a_child() {
  adafactor::set_num_threads(3);
  CHECK_EQ(adafactor::get_num_threads(), kKind == "pool" ? 3 : 1);
  CHECK_EQ(parallel_for(0, 9, 3, [](std::int64_t) {}), kKind == "pool" ? 3 : 1);
}

void a_child_steps() {
  CHECK_EQ(code_of_child(steps_like_any_other), 0);
  CHECK_EQ(code_of_child(has_the_threads_of_a_child), 0);
  CHECK_EQ(code_of_child([] { CHECK_EQ(code_of_child(steps_like_any_other), 0); }), 0);
}

// A thread steps a state without a pause while this one forks.
void a_child_forked_during_a_step_knows_the_torn_state() {
  const digest::Case& tall = tall_case();
  adafactor::State state(std::make_shared<const adafactor::Plan>(tall.leaves, std::vector{tall.config}));
  adafactor::State idle(state);
  digest::Arrays parameters(tall.leaves);
  digest::Arrays gradients(tall.leaves);
  parameters.fill(1, {-2, 2, 0});
  gradients.fill(2, {-2, 2, 0});
  const adafactor::LearningRate rate{tall.config.learning_rate, false};
  const adafactor::Call call{parameters.views(), gradients.views(), parameters.views(), &rate, 1};
  std::atomic<bool> enough{false};
  std::atomic<int> steps{0};
  std::thread other([&] {
    if (!state.try_acquire()) return;
    while (!enough) {
      adafactor::step(state, call, adafactor::cpu_backend());
      ++steps;
    }
    state.release();
  });
  while (steps < 2) std::this_thread::yield();
  for (int round = 0; round < 2; ++round) {
    CHECK_EQ(code_of_child([&] {
               CHECK(state.torn());
               CHECK(!state.try_acquire());
               CHECK_EQ(CHECK_THROWS(adafactor::Held{state}, adafactor::Error),
                        "state torn by fork: a thread of the parent process was in a call on it when this process "
                        "was forked, and its arrays may be half written; make a new state, or fork between calls");
               CHECK(!idle.torn());
               CHECK(idle.try_acquire());
               steps_like_any_other();
             }),
             0);
    CHECK(!state.torn());
    CHECK(!state.try_acquire());
  }
  enough = true;
  other.join();
  CHECK(steps >= 2);
  CHECK(!state.torn());
  CHECK(state.try_acquire());
  // The thread that forks stays in its call: the child may end it, and has the state then.
  CHECK_EQ(code_of_child([&] {
             state.release();
             CHECK(!state.torn());
             CHECK(state.try_acquire());
           }),
           0);
}

}  // namespace

int main() {
  CHECK_EQ(code_of_child(steps_like_any_other), 0);  // before there are threads
  steps_like_any_other();
  a_child_steps();
  a_child_forked_during_a_step_knows_the_torn_state();
  steps_like_any_other();
  return check::report();
}
#else
int main() {
  CHECK(true);  // there is no fork here
  return check::report();
}
#endif
