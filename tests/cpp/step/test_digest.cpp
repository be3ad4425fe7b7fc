// The same bits: every case of tests/data/digest.txt gives the digest that stands there, for any number of threads and
// in place or not. What other flags and compilers make of the headers, print_digests.cpp tells
// tests/numbers/test_bits.py.
#include <array>
#include <cfenv>
#include <string>
#include <thread>

#include "adafactor/host/floating_point.hpp"
#include "support/check.hpp"
#include "support/digest.hpp"

namespace {

void has_its_digest(const digest::Case& what) {
  const std::string expected = what.name + " " + what.expected;
  CHECK_EQ(what.name + " " + digest::run(what, 1, true).digest, expected);
  CHECK_EQ(what.name + " " + digest::run(what, 1, false).digest, expected);
  for (const int threads : {2, 3, 7}) CHECK_EQ(what.name + " " + digest::run(what, threads, true).digest, expected);
}

// What another library does to the rounding of this thread does not show, nor whether denormals are zero to it. Among
// so many threads there are new ones, which inherit it.
void the_environment_outside_does_not_show(const digest::Case& what, int threads) {
  const int before = std::fegetround();
  std::fesetround(FE_UPWARD);
#if defined(__SSE2__)
  const unsigned control = _mm_getcsr();
  _mm_setcsr(control | 0x8040);
#endif
  const std::string found = digest::run(what, threads, true).digest;
#if defined(__SSE2__)
  _mm_setcsr(control);
#endif
  std::fesetround(before);
  CHECK_EQ(what.name + " " + found, what.name + " " + what.expected);
}

// Where squares are denormal, too.
void denormals_are_kept(digest::Case what) {
  what.spread = {-72, -66, 0};
  what.config.epsilon_1 = 1e-50;
  what.expected = digest::run(what, 1, true).digest;
  the_environment_outside_does_not_show(what, 1);
  the_environment_outside_does_not_show(what, 12);
}

void threads_are_really_there(const digest::Case& tall) {
  const adafactor::Plan plan(tall.leaves, {tall.config});
  CHECK_EQ(plan.leaves()[0].row_blocks, 14);
  CHECK_EQ(plan.leaves()[0].col_blocks, 1);
  for (const int threads : {1, 2, 3, 7}) {
    CHECK_EQ(digest::run(tall, threads, true).threads,
             std::string(adafactor::threads_kind()) == "serial" ? 1 : threads);
  }
}

// Each has the threads to itself in turn, or does without.
void two_callers_at_once_have_their_digests(const digest::Case& what) {
  std::array<std::string, 2> found;
  std::thread other([&] { found[1] = digest::run(what, 3, true).digest; });
  found[0] = digest::run(what, 3, true).digest;
  other.join();
  CHECK_EQ(found[0], what.expected);
  CHECK_EQ(found[1], what.expected);
}

}  // namespace

int main() {
  const auto cases = digest::read_cases(digest::data_file());
  CHECK(cases.size() > 20);
  for (const digest::Case& what : cases) {
    has_its_digest(what);
    if (what.name == "scalars") the_environment_outside_does_not_show(what, 2);
    if (what.name == "everything") the_environment_outside_does_not_show(what, 10);
    if (what.name == "tall") {
      threads_are_really_there(what);
      denormals_are_kept(what);
      two_callers_at_once_have_their_digests(what);
    }
  }
  return check::report();
}
