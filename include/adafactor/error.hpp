// What the core throws: facts in fields, so that a caller with better names (a path in a tree) can phrase them again.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>

#include "adafactor/compiler/abi.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI {

// Which kind of complaint this is: a wrong value or shape, a wrong kind of object, memory that cannot be used as asked,
// a gradient that is not finite, or an object that is in use.
enum class ErrorKind : std::uint8_t { value, type, buffer, nonfinite, busy };

// Thrown for a knob out of its range, a shape or dtype that no plan takes, and arrays that do not fit the plan, always
// before anything was written. `leaf` is an index in the plan's order, -1 where none is meant, and a text is empty
// where there is nothing to say, of those that are known beforehand a literal; `what()` puts them together: "grads leaf
// 2: shape (3, 4), expected (4, 3)".
class Error : public std::invalid_argument {
 public:
  struct Facts {
    ErrorKind kind = ErrorKind::value;
    const char* role = "";  // "params", "grads", "state"; empty where no array is meant
    std::int64_t leaf = -1;
    const char* knob = "";
    std::string expected = {};
    std::string found = {};
    const char* other_role = "";  // the second array, where two are meant
    std::int64_t other_leaf = -1;
  };

  explicit Error(Facts facts);

  ErrorKind kind() const { return facts_.kind; }
  std::string role() const { return facts_.role; }
  std::int64_t leaf() const { return facts_.leaf; }
  std::string knob() const { return facts_.knob; }
  const std::string& expected() const { return facts_.expected; }
  const std::string& found() const { return facts_.found; }
  std::string other_role() const { return facts_.other_role; }
  std::int64_t other_leaf() const { return facts_.other_leaf; }

 private:
  static std::string phrase(const Facts& facts);

  Facts facts_;
};

// "7 arrays", of 7 and " arrays".
ADAFACTOR_FUNCTION std::string counted(std::int64_t n, const char* what);

}}  // namespace adafactor::ADAFACTOR_ABI

#if ADAFACTOR_DEFINES_STEP

namespace adafactor { inline namespace ADAFACTOR_ABI {

ADAFACTOR_RARE ADAFACTOR_FUNCTION Error::Error(Facts facts)
    : std::invalid_argument(phrase(facts)), facts_(std::move(facts)) {}

ADAFACTOR_RARE ADAFACTOR_FUNCTION std::string Error::phrase(const Facts& facts) {
  std::string text = facts.role;
  const auto append = [&text](const char* between, const std::string& fact) {
    if (!fact.empty()) text.append(text.empty() ? "" : between).append(fact);
  };
  if (facts.leaf >= 0) append(" ", "leaf " + std::to_string(facts.leaf));
  append(" ", facts.knob);
  append(": ", facts.found);
  append(" ", facts.other_role);
  if (facts.other_leaf >= 0) append(" ", "leaf " + std::to_string(facts.other_leaf));
  if (!facts.expected.empty()) append(facts.found.empty() ? ": " : ", ", "expected " + facts.expected);
  return text;
}

ADAFACTOR_RARE ADAFACTOR_FUNCTION std::string counted(std::int64_t n, const char* what) {
  return std::to_string(n).append(what);
}

}}  // namespace adafactor::ADAFACTOR_ABI

#endif  // ADAFACTOR_DEFINES_STEP
