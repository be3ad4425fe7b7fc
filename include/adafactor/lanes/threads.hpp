// Sixteen numbers at a time on a GPU: one in each of sixteen neighbouring threads, a team. All threads of a team go
// through the same loops with the same numbers beside the lanes; a sum is folded between them in the order that every
// CPU has.
#pragma once

#include <cstddef>
#include <cstdint>

#include "adafactor/lanes/formats.hpp"
#include "adafactor/lanes/numbers.hpp"
#include "adafactor/lanes/run.hpp"
#include "adafactor/order.hpp"

#include "adafactor/compiler/exact_begin.hpp"

namespace adafactor { inline namespace ADAFACTOR_LOOPS {

// Which lane this thread is, and what it hears from the lane whose number differs from its own in the bits of
// `distance`: the device says (src/cuda/threads.hpp).
ADAFACTOR_INLINE int lane();
ADAFACTOR_INLINE double exchange(double number, int distance);

// Whether no run is longer than a block of columns.
inline constexpr bool kRunsAreBlocks = true;

// The same numbers in double.
template <class T, int n>
ADAFACTOR_INLINE Lanes<double, n> widen(const Lanes<T, n>& a) {
  return {{static_cast<double>(a.group.value)}};
}

// Whether there is an element for this lane.
template <int n>
ADAFACTOR_INLINE bool has_lane(Exactly<n>) {
  return lane() < n;
}
ADAFACTOR_INLINE bool has_lane(Part part) { return lane() < part.count; }

// Reads this lane's element of those that are stored as S, zero where there is none, and writes it.
template <class T, class S, class Amount>
ADAFACTOR_INLINE Lanes<T> load(const S* from, Amount amount) {
  return {{has_lane(amount) ? load<T>(from + lane(), One{}) : T{}}};
}
template <class S, class T, class Amount>
ADAFACTOR_INLINE void store(S* to, const Lanes<T>& lanes, Amount amount) {
  if (has_lane(amount)) store(to + lane(), lanes.group.value, One{});
}

// The sum of all lanes, in double, as a tree of 8, 4, 2, 1; every thread of the team has it.
template <class T>
ADAFACTOR_INLINE double fold(const Lanes<T>& lanes) {
  double sum = static_cast<double>(lanes.group.value);
  for (int distance = kLanes / 2; distance >= 1; distance /= 2) sum = sum + exchange(sum, distance);
  return sum;
}

// Calls body(i, amount) for i = 0, 16, 32, ... below n; lanes beyond the end have no element.
template <class Body>
ADAFACTOR_INLINE void for_lanes(std::int64_t n, const Body& body) {
  ADAFACTOR_KEEP_ROLLED
  for (std::int64_t i = 0; i < n; i += kLanes) body(i, Part{static_cast<int>(n - i < kLanes ? n - i : kLanes)});
}

// How many numbers of a source a thread asks for before it uses the first: it waits for what it reads. Of a source that
// has to be looked for, one.
template <class Source>
inline constexpr int kBatch = 1;
template <class S>
inline constexpr int kBatch<Run<S>> = 8;

// Calls use(i, amount, read(i, amount)) in this way, so many at a time.
template <int batch, class Read, class Use>
ADAFACTOR_INLINE void for_batches(std::int64_t n, const Read& read, const Use& use) {
  const int count = static_cast<int>(n);
  decltype(read(std::int64_t{0}, Full{})) numbers[std::size_t{batch}];
  int first = 0;
  ADAFACTOR_KEEP_ROLLED
  for (; first + batch * kLanes <= count; first += batch * kLanes) {
    ADAFACTOR_UNROLL
    for (int k = 0; k < batch; ++k) numbers[k] = read(first + k * kLanes, Full{});
    ADAFACTOR_UNROLL
    for (int k = 0; k < batch; ++k) use(first + k * kLanes, Full{}, numbers[k]);
  }
  ADAFACTOR_KEEP_ROLLED
  for (; first < count; first += kLanes) {
    const Part part{count - first};
    use(first, part, read(first, part));
  }
}

// The same, as many at a time as the source wants.
template <class Source, class Read, class Use>
ADAFACTOR_INLINE void for_lanes(std::int64_t n, const Read& read, const Use& use) {
  for_batches<kBatch<Source>>(n, read, use);
}

// The same of what is done element by element.
template <class Body>
ADAFACTOR_INLINE void for_each(std::int64_t n, const Body& body) {
  for_lanes(n, body);
}
// What goes on to memory keeps more registers busy.
template <class Source, class Read, class Use>
ADAFACTOR_INLINE void for_each(std::int64_t n, const Read& read, const Use& use) {
  for_batches<(kBatch<Source> + 1) / 2>(n, read, use);
}

}}  // namespace adafactor::ADAFACTOR_LOOPS

#include "adafactor/compiler/exact_end.hpp"
