// What a step on one device has found and written, held field by field against what it has on another: each difference
// is said with its name.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

#include "adafactor/adafactor.hpp"
#include "adafactor/step/workspace.hpp"
#include "support/check.hpp"

namespace same_steps {

// Numbers have the same bits, but that one NaN is like another.
inline bool same(double a, double b) { return (a != a && b != b) || std::memcmp(&a, &b, sizeof a) == 0; }
template <class T>
bool same(const T& a, const T& b) {
  return a == b;
}

// A check of two numbers, whose name is put together where it fails alone.
template <class T>
void check(const T& found, const T& expected, const std::string& where, const char* name) {
  if (same(found, expected)) {
    check::record(true, "", "", std::source_location::current());
  } else {
    check::equal(check::describe(found), check::describe(expected), (where + name).c_str());
  }
}

// Some members of two structures, each with its name.
template <class T>
struct Both {
  const T& found;
  const T& expected;
  const std::string& where;

  template <class Member>
  const Both& operator()(const char* name, Member T::* member) const {
    check(found.*member, expected.*member, where, name);
    return *this;
  }
};

inline void check_range(const adafactor::MomentRange& found, const adafactor::MomentRange& expected,
                        const std::string& where) {
  using Range = adafactor::MomentRange;
  Both<Range>{found, expected, where}(".smallest", &Range::smallest)(".largest", &Range::largest);
}

// What `moments` has found of a tile alone, or all that the phases have.
inline void check_sums(const adafactor::TileSums& found, const adafactor::TileSums& expected, bool of_moments,
                       const std::string& where) {
  using Sums = adafactor::TileSums;
  const Both<Sums> both{found, expected, where};
  both(": gradient_squares", &Sums::gradient_squares)(": clipped_squares", &Sums::clipped_squares)(": row_moments",
                                                                                                   &Sums::row_moments);
  if (of_moments) return;
  both(": update_squares", &Sums::update_squares)(": parameter_squares", &Sums::parameter_squares);
  check_range(found.rows, expected.rows, where + ": rows");
  check_range(found.cols, expected.cols, where + ": cols");
}

inline void check_decisions(const adafactor::Found& found, const adafactor::Found& expected, const std::string& where) {
  using Found = adafactor::Found;
  Both<Found>{found, expected, where}(": held", &Found::held)(": stopped", &Found::stopped)(
      ": clamp_binds", &Found::clamp_binds)(": wide", &Found::wide)(": at_floor", &Found::at_floor)(
      ": gradient_squares", &Found::gradient_squares)(": norm_factor", &Found::norm_factor)(
      ": update_squares", &Found::update_squares)(": parameter_squares", &Found::parameter_squares)(
      ": clip_factor", &Found::clip_factor)(": step_size", &Found::step_size)(": weight_decay", &Found::weight_decay);
}

inline void check_verdict(const adafactor::Verdict& found, const adafactor::Verdict& expected) {
  using Verdict = adafactor::Verdict;
  Both<Verdict>{found, expected, "verdict"}(": finite", &Verdict::finite)(": is_void", &Verdict::is_void)(
      ": scaled_squares", &Verdict::scaled_squares);
}

inline void check_report(const adafactor::LeafReport& found, const adafactor::LeafReport& expected,
                         const std::string& where) {
  using Report = adafactor::LeafReport;
  Both<Report>{found, expected, where}(": grad_norm", &Report::grad_norm)(": param_rms", &Report::param_rms)(
      ": update_rms", &Report::update_rms)(": clip_factor", &Report::clip_factor)(": step_size", &Report::step_size)(
      ": nonfinite", &Report::nonfinite)(": at_floor", &Report::at_floor);
}

// What a call says, and what is said of each leaf afterwards.
inline void check_reports(const adafactor::Stepper& found, const adafactor::Outcome& of_found,
                          const adafactor::Stepper& expected, const adafactor::Outcome& of_expected) {
  using Outcome = adafactor::Outcome;
  Both<Outcome>{of_found, of_expected, "outcome"}(": updated", &Outcome::updated)(": skipped", &Outcome::skipped)(
      ": nonfinite_leaf", &Outcome::nonfinite_leaf)(": global_grad_norm", &Outcome::global_grad_norm);
  for (std::size_t leaf = 0; leaf < expected.plan().leaves().size(); ++leaf) {
    check_report(adafactor::report(found, leaf, of_found.updated),
                 adafactor::report(expected, leaf, of_expected.updated), "report of leaf " + std::to_string(leaf));
  }
}

inline void check_counters(const adafactor::Counters& found, const adafactor::Counters& expected) {
  using Counters = adafactor::Counters;
  using Count = adafactor::LeafCount;
  Both<Counters>{found, expected, "counters"}(": updates", &Counters::updates)(": calls", &Counters::calls)(
      ": skips", &Counters::skips);
  for (std::size_t leaf = 0; leaf < expected.leaves.size(); ++leaf) {
    const std::string where = "counters of leaf " + std::to_string(leaf);
    Both<Count>{found.leaves[leaf], expected.leaves[leaf], where}(": updates", &Count::updates)(
        ": accumulated", &Count::accumulated)(": stopped", &Count::stopped);
  }
}

// Whether the bits of an element are those of a NaN.
inline bool is_nan(const std::byte* element, adafactor::DType dtype) {
  const auto read = [&]<class T>(T value) {
    std::memcpy(&value, element, sizeof value);
    return value;
  };
  switch (dtype) {
    case adafactor::DType::float64:
      return read(0.0) != read(0.0);
    case adafactor::DType::float32:
      return read(0.0F) != read(0.0F);
    case adafactor::DType::float16:
      return (read(std::uint16_t{}) & 0x7fff) > 0x7c00;
    case adafactor::DType::bfloat16:
      return (read(std::uint16_t{}) & 0x7fff) > 0x7f80;
  }
  return false;
}

// The elements of an array.
inline void check_elements(const std::byte* found, const std::byte* expected, std::int64_t count,
                           adafactor::DType dtype, const std::string& where) {
  const auto item = static_cast<std::size_t>(adafactor::item_size(dtype));
  std::int64_t differ = 0;
  for (std::int64_t i = 0; i < count; ++i, found += item, expected += item) {
    const bool is_same = std::memcmp(found, expected, item) == 0 || (is_nan(found, dtype) && is_nan(expected, dtype));
    differ += is_same ? 0 : 1;
  }
  check(differ, std::int64_t{0}, where, ": elements that differ");
}

}  // namespace same_steps
