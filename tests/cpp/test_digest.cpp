// The same bits: every case of tests/data/digest.txt gives the digest that stands there, for any number of threads and
// in place or not. What other flags and compilers make of the headers, print_digests.cpp tells tests/test_bits.py.
#include <cfenv>
#include <filesystem>
#include <source_location>
#include <string>

#include "check.hpp"
#include "digest.hpp"

namespace {

std::string data_file() {
  const std::filesystem::path here = std::source_location::current().file_name();
  return (here.parent_path().parent_path() / "data" / "digest.txt").string();
}

void has_its_digest(const digest::Case& what) {
  const std::string expected = what.name + " " + what.expected;
  CHECK_EQ(what.name + " " + digest::run(what, 1, true).digest, expected);
  CHECK_EQ(what.name + " " + digest::run(what, 1, false).digest, expected);
  for (const int threads : {2, 3, 7}) CHECK_EQ(what.name + " " + digest::run(what, threads, true).digest, expected);
}

// What another library does to the rounding of this thread does not show.
void rounding_outside_does_not_show(const digest::Case& what) {
  const int before = std::fegetround();
  std::fesetround(FE_UPWARD);
  const std::string found = digest::run(what, 2, true).digest;
  std::fesetround(before);
  CHECK_EQ(what.name + " " + found, what.name + " " + what.expected);
}

#if defined(_OPENMP)
void threads_are_really_there(const digest::Case& tall) {
  const adafactor::Plan plan(tall.leaves, {tall.config});
  CHECK_EQ(plan.leaves()[0].row_blocks, 14);
  CHECK_EQ(plan.leaves()[0].col_blocks, 1);
  for (const int threads : {1, 2, 3, 7}) CHECK_EQ(digest::run(tall, threads, true).threads, threads);
}
#endif

}  // namespace

int main() {
  const auto cases = digest::read_cases(data_file());
  CHECK(cases.size() > 20);
  for (const digest::Case& what : cases) {
    has_its_digest(what);
    if (what.name == "everything" || what.name == "scalars") rounding_outside_does_not_show(what);
#if defined(_OPENMP)
    if (what.name == "tall") threads_are_really_there(what);
#endif
  }
  return check::report();
}
