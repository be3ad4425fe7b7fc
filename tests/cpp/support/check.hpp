// Checks for the C++ tests. A test program is a main() that makes checks and returns check::report(); a check that
// fails prints where it stands and the values it saw, and the program goes on. Checks are made from one thread.
#pragma once

#include <cmath>
#include <concepts>
#include <exception>
#include <iostream>
#include <limits>
#include <ranges>
#include <source_location>
#include <sstream>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace check {

struct Counts {
  int made = 0;
  int failed = 0;
};
inline Counts counts;

// What std::cmp_equal compares: integers that are numbers, not truth values or characters.
template <typename T>
concept ComparableInteger = std::integral<T> && !std::same_as<T, bool> && !std::same_as<T, char>;

// Text of any value: streamed if it can be, element by element if it is a range, as its number if it is an enumeration.
template <typename T>
std::string describe(const T& value) {
  std::ostringstream out;
  out.precision(std::numeric_limits<double>::max_digits10);
  if constexpr (std::same_as<T, bool>) {
    out << (value ? "true" : "false");
  } else if constexpr (ComparableInteger<T>) {
    out << +value;  // an std::uint8_t too is a number here
  } else if constexpr (requires { out << value; }) {
    out << value;
  } else if constexpr (std::is_enum_v<T>) {
    out << +static_cast<std::underlying_type_t<T>>(value);
  } else if constexpr (std::ranges::input_range<const T>) {
    const char* separator = "[";
    for (const auto& element : value) out << std::exchange(separator, ", ") << describe(element);
    out << (separator[0] == '[' ? "[]" : "]");
  } else {
    out << "(a value of " << sizeof(T) << " bytes)";
  }
  return out.str();
}

inline bool record(bool passed, std::string_view what, std::string_view found, const std::source_location& where) {
  ++counts.made;
  if (passed) return true;
  ++counts.failed;
  std::cerr << where.file_name() << ':' << where.line() << ": " << what << '\n';
  if (!found.empty()) std::cerr << "  " << found << '\n';
  return false;
}

inline bool that(bool condition, const char* text,
                 const std::source_location& where = std::source_location::current()) {
  return record(condition, std::string("CHECK(") + text + ") is false", "", where);
}

template <typename A, typename B>
bool equal(const A& actual, const B& expected, const char* text,
           const std::source_location& where = std::source_location::current()) {
  bool same = false;
  if constexpr (ComparableInteger<A> && ComparableInteger<B>) {
    same = std::cmp_equal(actual, expected);  // -1 is not 4294967295, and no warning about signs
  } else {
    same = static_cast<bool>(actual == expected);
  }
  if (same) return record(true, "", "", where);
  return record(false, std::string("CHECK_EQ(") + text + ")",
                "found " + describe(actual) + ", expected " + describe(expected), where);
}

// Equal infinities are near each other; a NaN is near nothing.
inline bool near(double actual, double expected, double tolerance, const char* text,
                 const std::source_location& where = std::source_location::current()) {
  const double difference = std::fabs(actual - expected);
  if (actual == expected || difference <= tolerance) return record(true, "", "", where);
  return record(false, std::string("CHECK_NEAR(") + text + ")",
                "found " + describe(actual) + ", expected " + describe(expected) + ", difference " +
                    describe(difference) + ", tolerance " + describe(tolerance),
                where);
}

// Returns what the exception says, so that its words can be checked too; empty where the check failed.
template <std::derived_from<std::exception> Exception, typename Function>
std::string throws(const Function& function, const char* text, const char* name,
                   const std::source_location& where = std::source_location::current()) {
  std::string found = "found no exception";
  try {
    function();
  } catch (const std::exception& error) {
    const std::string words = error.what();
    if (dynamic_cast<const Exception*>(&error) != nullptr) {
      record(true, "", "", where);
      return words;
    }
    found = "found another exception: " + words;
  } catch (...) {
    found = "found something thrown that is no std::exception";
  }
  record(false, std::string("CHECK_THROWS(") + text + ", " + name + ")", found, where);
  return {};
}

// What a program returns that was compiled for a CPU which this one is not; CTest counts it as skipped.
inline constexpr int kSkipped = 77;

// Whether this machine has the instructions that the program was compiled with.
inline bool runs_here() {
#if defined(__AVX512F__)
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#elif defined(__AVX2__)
  return __builtin_cpu_supports("avx2");
#else
  return true;
#endif
}

// The exit code of the program. A program that checked nothing has failed.
inline int report() {
  std::cout << counts.made << " checks, " << counts.failed << " failed" << std::endl;
  return counts.made > 0 && counts.failed == 0 ? 0 : 1;
}

}  // namespace check

// The macros only add the text of what was written. An argument with a comma outside parentheses needs parentheses.
#define CHECK(condition) ::check::that(static_cast<bool>(condition), #condition)
#define CHECK_EQ(actual, expected) ::check::equal((actual), (expected), #actual ", " #expected)
#define CHECK_NEAR(actual, expected, tolerance) \
  ::check::near((actual), (expected), (tolerance), #actual ", " #expected ", " #tolerance)
#define CHECK_THROWS(expression, Exception) \
  ::check::throws<Exception>([&] { static_cast<void>(expression); }, #expression, #Exception)
