// Whether strided arrays share memory: one array with itself, two with each other, the first offending pair of many.
// The answer is exact, except where numbers leave 60 bits or the search for it leaves a bound; then it is `undecided`.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <vector>

#include "adafactor/compiler/abi.hpp"
#include "adafactor/door/strides.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI {

// The memory of an array. Axes of extent 1, and all axes of an array without elements, may have any stride.
struct StridedRegion {
  const void* data = nullptr;
  std::int64_t itemsize = 0;  // in bytes
  int rank = 0;
  const std::int64_t* shape = nullptr;
  const std::int64_t* strides = nullptr;  // in elements; zero and negative ones too
  bool written = false;                   // OverlapFinder alone reads this
};

// Two of many regions that share a byte, at least one of them written; or that might, where it could not be decided.
struct OverlappingPair {
  std::size_t first = 0;  // the smaller index
  std::size_t second = 0;
  Overlap verdict = Overlap::none;
};

namespace overlap_detail {

// How many partial sums one question may try, and how many all questions of one OverlapFinder::find.
inline constexpr std::int64_t kPairBudget = 100'000;
inline constexpr std::int64_t kTotalBudget = 5'000'000;

enum class Measure : std::uint8_t { empty, bounded, unbounded };

// The terms of a region by axis, and the address of its lowest byte. Unbounded is what leaves the bounds of this file.
ADAFACTOR_EACH_CALL inline Measure measure(const StridedRegion& region, StrideSet& sum, std::uint64_t& start) {
  const std::span<const std::int64_t> shape(region.shape, static_cast<std::size_t>(region.rank));
  if (region.itemsize <= 0 || std::any_of(shape.begin(), shape.end(), [](std::int64_t extent) { return extent <= 0; }))
    return Measure::empty;
  if (region.itemsize > kMaxReach) return Measure::unbounded;
  sum.width = region.itemsize;
  std::int64_t reach = region.itemsize;
  std::int64_t below = 0;
  for (std::size_t axis = 0; axis < shape.size(); ++axis) {
    const std::int64_t stride = region.strides[axis];
    const std::int64_t last = shape[axis] - 1;
    if (last == 0 || stride == 0) continue;
    const std::int64_t most = kMaxReach / region.itemsize / last;
    if (stride > most || stride < -most || sum.size == kMaxTerms) return Measure::unbounded;
    const Term term{(stride < 0 ? -stride : stride) * region.itemsize, last};
    reach += term.reach();
    if (reach > kMaxReach) return Measure::unbounded;
    if (stride < 0) below += term.reach();
    sum.add(term);
  }
  const std::uint64_t address = reinterpret_cast<std::uintptr_t>(region.data);
  start = address - static_cast<std::uint64_t>(below);
  // An array that begins below address 0 has wrapped around, and so ends beyond the last one.
  const bool wraps = static_cast<std::uint64_t>(reach) > (std::numeric_limits<std::uint64_t>::max)() - start;
  return wraps ? Measure::unbounded : Measure::bounded;
}

// The bytes of a region: from `start`, plus one of each term, plus 0 ... width - 1.
struct Bytes {
  std::uint64_t start = 0;
  std::uint64_t end = 0;
  std::int64_t width = 0;
  std::span<const Term> terms = {};
  bool bounded = true;
};

ADAFACTOR_EACH_CALL inline Overlap meet(const Bytes& a, const Bytes& b, std::int64_t& budget) {
  if (!a.bounded || !b.bounded) return Overlap::undecided;
  if (a.end <= b.start || b.end <= a.start) return Overlap::none;
  if (a.terms.empty() && b.terms.empty()) return Overlap::some;
  // Both meet where a sum of a, minus a sum of b, is the distance of the starts, give or take the widths. Counted from
  // the last index backwards, the terms of b are added too.
  StrideSet sum;
  for (const Term& term : a.terms) sum.add(term);
  std::int64_t high = b.width - 1;
  for (const Term& term : b.terms) {
    sum.add(term);
    high += term.reach();
  }
  high +=
      b.start >= a.start ? static_cast<std::int64_t>(b.start - a.start) : -static_cast<std::int64_t>(a.start - b.start);
  sum.width = a.width + b.width - 1;
  sum.simplify();
  return Search(sum.terms(), budget).from(0, high - sum.width + 1, high);
}

inline Bytes bytes_of(const StrideSet& sum, std::uint64_t start) {
  return {start, start + static_cast<std::uint64_t>(sum.reach() + sum.width), sum.width, sum.terms(), true};
}

}  // namespace overlap_detail

// Whether two different indices of one region name the same byte.
ADAFACTOR_EACH_CALL inline Overlap self_overlap(const StridedRegion& region) {
  using namespace overlap_detail;
  const std::span<const std::int64_t> shape(region.shape, static_cast<std::size_t>(region.rank));
  StrideSet sum;
  std::uint64_t start = 0;
  const Measure measured = measure(region, sum, start);
  if (measured == Measure::empty) return Overlap::none;
  for (std::size_t axis = 0; axis < shape.size(); ++axis) {
    if (shape[axis] > 1 && region.strides[axis] == 0) return Overlap::some;
  }
  if (measured == Measure::unbounded) return Overlap::undecided;
  // Two indices differ first, by the size of the stride, in the term k: there by 1 to its last, which may be taken as
  // positive, and in each smaller one by -last to last. They clash where the bytes differ by less than an item.
  std::int64_t budget = kPairBudget;
  for (std::size_t k = 0; k < sum.size; ++k) {
    StrideSet differences;
    differences.width = 2 * region.itemsize - 1;
    const Term leading = sum.storage[k];
    if (leading.last > 1) differences.add({leading.stride, leading.last - 1});
    std::int64_t high = region.itemsize - 1 - leading.stride;
    for (const Term& term : sum.terms().subspan(k + 1)) {
      differences.add({term.stride, 2 * term.last});
      high += term.reach();
    }
    differences.simplify();
    const Overlap found = Search(differences.terms(), budget).from(0, high - differences.width + 1, high);
    if (found != Overlap::none) return found;
  }
  return Overlap::none;
}

// Whether two regions share a byte.
ADAFACTOR_EACH_CALL inline Overlap overlap(const StridedRegion& a, const StridedRegion& b) {
  using namespace overlap_detail;
  std::array<StrideSet, 2> sums;
  std::array<Bytes, 2> bytes;
  bool bounded = true;
  for (std::size_t side = 0; side < 2; ++side) {
    std::uint64_t start = 0;
    const Measure measured = measure(side == 0 ? a : b, sums[side], start);
    if (measured == Measure::empty) return Overlap::none;
    bounded = bounded && measured == Measure::bounded;
    if (!bounded) continue;
    sums[side].simplify();
    bytes[side] = bytes_of(sums[side], start);
  }
  std::int64_t budget = kPairBudget;
  return bounded ? meet(bytes[0], bytes[1], budget) : Overlap::undecided;
}

// Finds the first of many regions that another one must not share memory with. Keeps its own memory from call to call,
// so a call on no more regions than an earlier one allocates nothing.
class OverlapFinder {
 public:
  // The pair with the smallest first, then the smallest second index, of those in which at least one is written and
  // which share a byte or are undecided. Takes n log n and the pairs that no stride can keep apart.
  std::optional<OverlappingPair> find(std::span<const StridedRegion> regions) {
    found_.reset();
    budget_ = overlap_detail::kTotalBudget;
    describe(regions);
    lines_.clear();
    for (std::size_t k = 0; k < entries_.size(); ++k) {
      lines_.push_back({entries_[k].bytes.start, entries_[k].bytes.end, k});
    }
    sort(lines_);
    // Regions whose addresses form one unbroken range can only meet each other.
    for (std::size_t first = 0, last = 0; first < lines_.size(); first = last) {
      std::uint64_t end = lines_[first].end;
      for (last = first + 1; last < lines_.size() && lines_[last].start < end; ++last) {
        end = (std::max)(end, lines_[last].end);
      }
      if (last - first > 1) compare_all(std::span(lines_).subspan(first, last - first));
    }
    return found_;
  }

 private:
  struct Entry {
    overlap_detail::Bytes bytes;
    std::size_t index;
    std::size_t first_term;
    std::size_t term_count;
    bool written;
  };

  // Part of a line or of a circle that a region lies in.
  struct Interval {
    std::uint64_t start;
    std::uint64_t end;
    std::size_t entry;
  };

  // Few enough to compare without looking for a better way.
  static constexpr std::size_t kFewPairs = 64;

  ADAFACTOR_EACH_CALL void describe(std::span<const StridedRegion> regions) {
    entries_.clear();
    terms_.clear();
    for (std::size_t index = 0; index < regions.size(); ++index) {
      overlap_detail::StrideSet sum;
      std::uint64_t start = 0;
      const overlap_detail::Measure measured = overlap_detail::measure(regions[index], sum, start);
      if (measured == overlap_detail::Measure::empty) continue;
      Entry entry{{}, index, terms_.size(), 0, regions[index].written};
      if (measured == overlap_detail::Measure::bounded) {
        sum.simplify();
        entry.bytes = overlap_detail::bytes_of(sum, start);
        entry.term_count = sum.size;
        terms_.insert(terms_.end(), sum.terms().begin(), sum.terms().end());
      } else {
        entry.bytes = {.end = (std::numeric_limits<std::uint64_t>::max)(), .bounded = false};
      }
      entries_.push_back(entry);
    }
    // Only now does the vector of terms stay where it is.
    for (Entry& entry : entries_) {
      entry.bytes.terms = std::span<const overlap_detail::Term>(terms_).subspan(entry.first_term, entry.term_count);
    }
  }

  // Slices of columns of one matrix all lie in one range of addresses, but modulo the length of a row each has a range
  // of its own. So each stride of the widest region is tried as a circle, and the one that leaves the fewest pairs
  // wins.
  ADAFACTOR_EACH_CALL void compare_all(std::span<const Interval> line) {
    std::size_t fewest = pairs(line);
    if (fewest > kFewPairs) {
      const Entry* widest = nullptr;
      for (const Interval& interval : line) {
        const Entry& entry = entries_[interval.entry];
        if (entry.term_count == 0) continue;
        if (widest == nullptr || interval.end - interval.start > widest->bytes.end - widest->bytes.start) {
          widest = &entry;
        }
      }
      std::int64_t best = 0;
      for (std::size_t k = 0; widest != nullptr && k < widest->term_count; ++k) {
        roll(line, widest->bytes.terms[k].stride);
        const std::size_t count = pairs(circle_);
        if (count >= fewest) continue;
        fewest = count;
        best = widest->bytes.terms[k].stride;
      }
      if (best != 0) {
        roll(line, best);
        sweep(circle_);
        return;
      }
    }
    sweep(line);
  }

  // Where the regions lie modulo a stride: terms that are its multiples go round to where they were.
  ADAFACTOR_EACH_CALL void roll(std::span<const Interval> line, std::int64_t stride) {
    const auto length = static_cast<std::uint64_t>(stride);
    circle_.clear();
    for (const Interval& interval : line) {
      const overlap_detail::Bytes& bytes = entries_[interval.entry].bytes;
      auto reach = static_cast<std::uint64_t>(bytes.width);
      for (const overlap_detail::Term& term : bytes.terms) {
        if (term.stride % stride != 0) reach += static_cast<std::uint64_t>(term.reach());
      }
      const std::uint64_t start = bytes.start % length;
      if (!bytes.bounded || reach >= length) {
        circle_.push_back({0, length, interval.entry});
      } else if (start + reach <= length) {
        circle_.push_back({start, start + reach, interval.entry});
      } else {
        circle_.push_back({start, length, interval.entry});
        circle_.push_back({0, start + reach - length, interval.entry});
      }
    }
    sort(circle_);
  }

  // A heap sorts them: less to compile than std::sort, in every file that includes this.
  static void sort(std::vector<Interval>& intervals) {
    const auto before = [](const Interval& a, const Interval& b) {
      return a.start != b.start ? a.start < b.start : a.entry < b.entry;
    };
    std::make_heap(intervals.begin(), intervals.end(), before);
    std::sort_heap(intervals.begin(), intervals.end(), before);
  }

  // The places, in a sorted span, of the intervals of written regions; a read one is compared with these alone.
  void list_written(std::span<const Interval> intervals) {
    written_.clear();
    for (std::size_t i = 0; i < intervals.size(); ++i) {
      if (entries_[intervals[i].entry].written) written_.push_back(i);
    }
  }

  // How many pairs `sweep` would visit.
  std::size_t pairs(std::span<const Interval> intervals) {
    list_written(intervals);
    std::size_t count = 0;
    for (std::size_t i = 0; i < intervals.size(); ++i) {
      const auto rest = intervals.subspan(i + 1);
      const auto beyond = std::lower_bound(rest.begin(), rest.end(), intervals[i].end,
                                           [](const Interval& other, std::uint64_t end) { return other.start < end; });
      const auto meeting = static_cast<std::size_t>(beyond - rest.begin());
      if (entries_[intervals[i].entry].written) {
        count += meeting;
      } else {
        const auto from = std::lower_bound(written_.begin(), written_.end(), i);
        count += static_cast<std::size_t>(std::lower_bound(written_.begin(), written_.end(), i + 1 + meeting) - from);
      }
    }
    return count;
  }

  void sweep(std::span<const Interval> intervals) {
    list_written(intervals);
    std::size_t next_written = 0;
    for (std::size_t i = 0; i < intervals.size(); ++i) {
      const Interval& interval = intervals[i];
      const Entry& entry = entries_[interval.entry];
      if (entry.written) {
        ++next_written;
        for (std::size_t j = i + 1; j < intervals.size() && intervals[j].start < interval.end; ++j) {
          compare(entry, entries_[intervals[j].entry]);
        }
      } else {
        for (std::size_t k = next_written; k < written_.size(); ++k) {
          const Interval& other = intervals[written_[k]];
          if (other.start >= interval.end) break;
          compare(entry, entries_[other.entry]);
        }
      }
    }
  }

  void compare(const Entry& a, const Entry& b) {
    if (a.index == b.index) return;  // two parts of one region on a circle
    const std::size_t first = (std::min)(a.index, b.index);
    const std::size_t second = (std::max)(a.index, b.index);
    if (found_ && (first != found_->first ? first > found_->first : second >= found_->second)) return;
    const std::int64_t granted = (std::min)(overlap_detail::kPairBudget, budget_);
    std::int64_t left = granted;
    const Overlap verdict = overlap_detail::meet(a.bytes, b.bytes, left);
    budget_ -= granted - std::max<std::int64_t>(left, 0);
    if (verdict != Overlap::none) found_ = OverlappingPair{first, second, verdict};
  }

  std::vector<Entry> entries_;
  std::vector<overlap_detail::Term> terms_;
  std::vector<Interval> lines_;
  std::vector<Interval> circle_;
  std::vector<std::size_t> written_;
  std::optional<OverlappingPair> found_;
  std::int64_t budget_ = 0;
};

}}  // namespace adafactor::ADAFACTOR_ABI
