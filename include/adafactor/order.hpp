// The numbers that fix the order of every sum, and with it its bits: they depend on nothing but the leaf's shape.
#pragma once

#include <cstdint>

#include "adafactor/compiler/abi.hpp"

namespace adafactor { inline namespace ADAFACTOR_DATA {

// Partial sums of a run, folded in one order.
inline constexpr int kLanes = 16;

// Columns whose sixteen partial sums are folded at once, and the most that a buffer in L1 holds.
inline constexpr std::int64_t kBlock = 512;

// Columns whose float sums stay in L1 while the rows pass by. Tiles wider than this have fewer than kFewRows rows.
inline constexpr std::int64_t kPanel = 4096;
inline constexpr std::int64_t kFewRows = 64;

// Column sums are kept in the leaf's arithmetic over this many rows, then added up in double; so many rows of a block
// are a cell, whose sum is one number in the total of its tile. Tiles begin at a multiple of it.
inline constexpr std::int64_t kRowGroup = 16;

}}  // namespace adafactor::ADAFACTOR_DATA
