// Which numbers are sums of multiples of a few strides: the arithmetic behind the question whether arrays share memory.
// Exact and fast for one and two strides of any size; a bounded search, nearly always short, for more.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>

#include "adafactor/compiler/abi.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI {

// Whether memory is shared; undecided where finding out would take too long, or the numbers are too large.
enum class Overlap : std::uint8_t { none, some, undecided };

namespace overlap_detail {

// Byte counts stay so small that four of them add up within 64 bits.
inline constexpr std::int64_t kMaxReach = std::int64_t{1} << 60;
// The most axes, of one region, that count: those of an extent above 1 and a stride that is not 0.
inline constexpr std::size_t kMaxTerms = 64;
// The numbers stride * i for i = 0 ... last.
struct Term {
  std::int64_t stride;
  std::int64_t last;

  std::int64_t reach() const { return stride * last; }
};

// The numbers that are one of each term, the largest stride first, plus one of 0 ... width - 1. Twice kMaxTerms: the
// terms of a pair.
struct StrideSet {
  std::array<Term, 2 * kMaxTerms> storage;
  std::size_t size = 0;
  std::int64_t width = 0;

  StrideSet() {}  // NOLINT: leaves the storage as it is; a pair needs 2 of its 128 terms
  // Terms come nearly in order: those of an array in C order are in it, and so are those of each array of a pair.
  void add(Term term) {
    std::size_t place = size++;
    for (; place > 0 && storage[place - 1].stride < term.stride; --place) storage[place] = storage[place - 1];
    storage[place] = term;
  }
  std::span<Term> terms() { return {storage.data(), size}; }
  std::span<const Term> terms() const { return {storage.data(), size}; }

  std::int64_t reach() const {
    std::int64_t total = 0;
    for (const Term& term : terms()) total += term.reach();
    return total;
  }

  // The same set of numbers from the fewest terms. Neighbours that touch become one wider window, so a contiguous array
  // has no term at all.
  void simplify() {
    std::size_t kept = size;
    for (std::size_t k = size; k-- > 0;) {
      const Term term = storage[k];
      if (term.stride <= width) {
        width += term.reach();
      } else if (!extend_one_from(kept, term)) {
        storage[--kept] = term;
      }
    }
    std::copy(storage.data() + kept, storage.data() + size, storage.data());
    size -= kept;
  }

 private:
  // i + factor * j takes every value up to last + factor * term.last as long as no step leaves a gap.
  bool extend_one_from(std::size_t first, Term term) {
    for (std::size_t k = first; k < size; ++k) {
      Term& smaller = storage[k];
      const std::int64_t factor = term.stride / smaller.stride;
      if (term.stride % smaller.stride == 0 && factor <= smaller.last + 1) {
        smaller.last += factor * term.last;
        return true;
      }
    }
    return false;
  }
};

// The smallest z >= 0 with low <= a * z mod m <= high, or -1, for 0 <= a < m <= 2^31 and 0 < low <= high < m. Where no
// multiple of a lies between the bounds, the question is the same one modulo a, as in Euclid's algorithm.
inline std::int64_t first_within(std::int64_t a, std::int64_t m, std::int64_t low, std::int64_t high) {
  if (a == 0) return -1;
  if (2 * a > m) return first_within(m - a, m, m - high, m - low);
  const std::int64_t z = (low + a - 1) / a;
  if (z * a <= high) return z;
  const std::int64_t wraps = first_within((a - m % a) % a, a, low % a, high % a);
  return wraps < 0 ? -1 : (low + m * wraps + a - 1) / a;
}

// Whether numbers of some terms, largest stride first, add up to a number between two bounds.
class Search {
 public:
  Search(std::span<const Term> terms, std::int64_t& budget) : terms_(terms), budget_(budget) {
    reach_[terms.size()] = 0;
    divisor_[terms.size()] = 0;
    for (std::size_t k = terms.size(); k-- > 0;) {
      reach_[k] = reach_[k + 1] + terms[k].reach();
      divisor_[k] = std::gcd(divisor_[k + 1], terms[k].stride);
    }
  }

  Overlap from(std::size_t k, std::int64_t low, std::int64_t high) {
    if (high < 0 || low > reach_[k]) return Overlap::none;
    if (low <= 0 || high >= reach_[k]) return Overlap::some;  // all zero, or all at their last
    // From here on a term is left: with none, the reach is 0.
    if (high - high % divisor_[k] < low) return Overlap::none;
    const std::size_t left = terms_.size() - k;
    if (left == 1) return Overlap::some;  // a multiple of its stride, above 0 and below its reach
    if (left == 2 && terms_[k + 1].stride <= kMaxModulus) return from_two(terms_[k], terms_[k + 1], low, high);
    const std::int64_t stride = terms_[k].stride;
    const std::int64_t least = first_index(stride, low, reach_[k + 1]);
    for (std::int64_t i = (std::min)(terms_[k].last, high / stride); i >= least; --i) {
      if (--budget_ < 0) return Overlap::undecided;
      const Overlap found = from(k + 1, low - i * stride, high - i * stride);
      if (found != Overlap::none) return found;
    }
    return Overlap::none;
  }

 private:
  static constexpr std::int64_t kMaxModulus = std::int64_t{1} << 31;

  // The smallest i >= 0 with stride * i + reach >= low.
  static std::int64_t first_index(std::int64_t stride, std::int64_t low, std::int64_t reach) {
    return low <= reach ? 0 : (low - reach + stride - 1) / stride;
  }

  // Exact, whatever the extents, for 0 < low <= high < the reach of both.
  static Overlap from_two(Term first, Term second, std::int64_t low, std::int64_t high) {
    const std::int64_t most = (std::min)(first.last, high / first.stride);
    const std::int64_t least = first_index(first.stride, low, second.reach());
    if (least > most) return Overlap::none;
    // At these ends the smaller term's own bounds decide: its first or its last multiple is between the bounds.
    if (most * first.stride >= low || high - least * first.stride >= second.reach()) return Overlap::some;
    // In between, the rest has to be at most `room` above a multiple of the smaller stride.
    const std::int64_t room = high - low;
    const std::int64_t rest = (high - least * first.stride) % second.stride;
    if (rest <= room) return Overlap::some;
    const std::int64_t step = (second.stride - first.stride % second.stride) % second.stride;
    const std::int64_t more = first_within(step, second.stride, second.stride - rest, second.stride - rest + room);
    return more >= 0 && more <= most - least ? Overlap::some : Overlap::none;
  }

  std::span<const Term> terms_;
  std::int64_t& budget_;
  std::array<std::int64_t, 2 * kMaxTerms + 1> reach_;
  std::array<std::int64_t, 2 * kMaxTerms + 1> divisor_;
};

}  // namespace overlap_detail

}}  // namespace adafactor::ADAFACTOR_ABI
