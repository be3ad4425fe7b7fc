// The random bits of stochastic rounding: a function of the seed, the leaf's path, the number of its update and the
// element's index, so that they depend on no thread, no layout and no split of the leaf.
//
// 16 bits an element, from Philox 4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"):
//   key      path_hash ^ mix(seed), its low word first; path_hash is the 64-bit FNV-1a of the path's UTF-8 bytes,
//            mix the finalizer of splitmix64;
//   counter  words 0 and 1: 16 (e div 128) + e mod 16, low word first, where e is the element's index in C order;
//            words 2 and 3: the number of the leaf's update, 1 for the first, low word first;
//   bits     with q = (e div 16) mod 8: the lower (q even) or the upper half of word q div 2 of the output.
// So sixteen neighbours take the same half of the same word of sixteen counters that follow each other.
#pragma once

#include <cstdint>

#include "adafactor/compiler/abi.hpp"
#include "adafactor/step/leaf.hpp"

namespace adafactor { inline namespace ADAFACTOR_LOOPS {

namespace loop_detail {

// The two halves of the products of 32-bit words and a number.
template <class W>
struct Products {
  W low, high;
};

template <class W>
struct Multiply;

template <>
struct Multiply<std::uint32_t> {
  static ADAFACTOR_INLINE Products<std::uint32_t> of(std::uint32_t word, std::uint32_t factor) {
    const std::uint64_t product = std::uint64_t{word} * factor;
    return {static_cast<std::uint32_t>(product), static_cast<std::uint32_t>(product >> 32)};
  }
};

// Ten rounds on four words, or on four registers of words with a counter each.
template <class W>
ADAFACTOR_INLINE void philox(std::uint64_t key, W (&words)[4]) {
  auto key_0 = static_cast<std::uint32_t>(key);
  auto key_1 = static_cast<std::uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const Products<W> first = Multiply<W>::of(words[0], 0xD2511F53U);
    const Products<W> second = Multiply<W>::of(words[2], 0xCD9E8D57U);
    words[0] = second.high ^ words[1] ^ key_0;
    words[1] = second.low;
    words[2] = first.high ^ words[3] ^ key_1;
    words[3] = first.low;
    key_0 += 0x9E3779B9U;
    key_1 += 0xBB67AE85U;
  }
}

}  // namespace loop_detail

// The bits of one element.
ADAFACTOR_DEVICE inline std::uint16_t noise_of(Noise noise, std::int64_t element) {
  const auto e = static_cast<std::uint64_t>(element);
  const std::uint64_t counter = e / 128 * 16 + e % 16;
  std::uint32_t words[4] = {static_cast<std::uint32_t>(counter), static_cast<std::uint32_t>(counter >> 32),
                            static_cast<std::uint32_t>(noise.update), static_cast<std::uint32_t>(noise.update >> 32)};
  loop_detail::philox(noise.key, words);
  const auto half = static_cast<int>(e / 16 % 8);
  const std::uint32_t early = half / 2 == 0 ? words[0] : words[1];
  const std::uint32_t late = half / 2 == 2 ? words[2] : words[3];
  return static_cast<std::uint16_t>((half < 4 ? early : late) >> (half % 2 * 16));
}

}}  // namespace adafactor::ADAFACTOR_LOOPS
