// The checks themselves: a test that cannot fail proves nothing, so each kind of check is made to fail once.
#include <cstdint>
#include <iostream>
#include <limits>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "support/check.hpp"

namespace {

enum class Colour : unsigned char { red = 7 };

struct Opaque {
  int value;
  bool operator==(const Opaque&) const = default;
};

[[noreturn]] void refuse() { throw std::invalid_argument("shape (3, 4), expected (4, 3)"); }

// What a failing check prints. Its count is taken back, because the failure was wanted.
template <typename Check>
std::string message_of_failure(const Check& failing) {
  std::ostringstream captured;
  std::streambuf* const stderr_buffer = std::cerr.rdbuf(captured.rdbuf());
  const check::Counts before = check::counts;
  failing();
  std::cerr.rdbuf(stderr_buffer);
  const bool counted = check::counts.made == before.made + 1 && check::counts.failed == before.failed + 1;
  check::counts = before;
  CHECK(counted);
  return captured.str();
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

void passing_checks_pass() {
  CHECK(1 + 1 == 2);
  CHECK_EQ(std::vector<int>(2, 5), std::vector<int>(2, 5));
  CHECK_EQ(std::size_t{3}, 3);
  CHECK_EQ(std::string("row"), "row");
  CHECK_EQ(Colour::red, Colour::red);
  CHECK_NEAR(1.0, 1.05, 0.1);
  CHECK_NEAR(std::numeric_limits<double>::infinity(), std::numeric_limits<double>::infinity(), 0.0);
  CHECK_EQ(CHECK_THROWS(refuse(), std::invalid_argument), "shape (3, 4), expected (4, 3)");
}

void failing_checks_say_where_and_what() {
  const std::string condition = message_of_failure([] { CHECK(1 > 2); });
  CHECK(contains(condition, "test_check.cpp:"));
  CHECK(contains(condition, "CHECK(1 > 2) is false"));

  const std::string equality = message_of_failure([] { CHECK_EQ((std::vector<int>{1, 2}), (std::vector<int>{1, 3})); });
  CHECK(contains(equality, "found [1, 2], expected [1, 3]"));

  const std::string signs = message_of_failure([] { CHECK_EQ(-1, std::numeric_limits<std::uint32_t>::max()); });
  CHECK(contains(signs, "found -1, expected 4294967295"));

  const std::string opaque = message_of_failure([] { CHECK_EQ(Opaque{1}, Opaque{2}); });
  CHECK(contains(opaque, "a value of 4 bytes"));

  const std::string nearness = message_of_failure([] { CHECK_NEAR(1.0, 1.5, 0.25); });
  CHECK(contains(nearness, "difference 0.5, tolerance 0.25"));

  const std::string nan = message_of_failure([] { CHECK_NEAR(std::numeric_limits<double>::quiet_NaN(), 0.0, 1.0); });
  CHECK(contains(nan, "found nan"));
}

void a_missing_or_different_exception_fails() {
  CHECK(contains(message_of_failure([] { CHECK_THROWS(1 + 1, std::invalid_argument); }), "found no exception"));
  CHECK(contains(message_of_failure([] { CHECK_THROWS(refuse(), std::out_of_range); }), "another exception: shape (3"));
  CHECK(contains(message_of_failure([] { CHECK_THROWS(throw 3, std::exception); }), "no std::exception"));
}

void a_program_without_checks_fails() {
  const check::Counts before = std::exchange(check::counts, check::Counts{});
  const int code = check::report();
  check::counts = before;
  CHECK_EQ(code, 1);
}

}  // namespace

int main() {
  passing_checks_pass();
  failing_checks_say_where_and_what();
  a_missing_or_different_exception_fails();
  a_program_without_checks_fails();
  return check::report();
}
