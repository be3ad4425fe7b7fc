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
#include <cstring>

#include "adafactor/lanes/formats.hpp"
#include "adafactor/lanes/lanes.hpp"
#include "adafactor/step/leaf.hpp"

namespace adafactor { inline namespace ADAFACTOR_LOOPS {

namespace loop_detail {

inline constexpr int kNoiseBlock = 128;  // elements of sixteen counters

// The two halves of the products of 32-bit words and a number.
template <class W>
struct Products {
  W low, high;
};

ADAFACTOR_INLINE Products<std::uint32_t> multiply_words(std::uint32_t words, std::uint32_t factor) {
  const std::uint64_t product = std::uint64_t{words} * factor;
  return {static_cast<std::uint32_t>(product), static_cast<std::uint32_t>(product >> 32)};
}

#if ADAFACTOR_NATIVE_LANES
inline constexpr int kWordWidth = kNativeWidth<float>;
using WordRegister = Register<std::uint32_t, kWordWidth>::type;
using WideRegister = Register<std::uint64_t, kWordWidth / 2>::type;

// The products of the even words, each in a place of 64 bits. Compilers do not find the instruction.
ADAFACTOR_INLINE WideRegister multiply_even(const WideRegister& words, std::uint32_t factor) {
#if defined(__AVX512F__)
  return reinterpret_cast<WideRegister>(
      _mm512_maskz_mul_epu32(0xff, reinterpret_cast<__m512i>(words), _mm512_set1_epi64(factor)));
#elif defined(__AVX2__)
  return reinterpret_cast<WideRegister>(_mm256_mul_epu32(reinterpret_cast<__m256i>(words), _mm256_set1_epi64x(factor)));
#elif defined(__SSE2__) && !defined(__AVX__)
  return reinterpret_cast<WideRegister>(_mm_mul_epu32(reinterpret_cast<__m128i>(words), _mm_set1_epi64x(factor)));
#else
  return (words & 0xffffffffU) * std::uint64_t{factor};
#endif
}

ADAFACTOR_INLINE Products<WordRegister> multiply_words(const WordRegister& words, std::uint32_t factor) {
  const auto wide = bits_as<WideRegister>(words);
  const WideRegister even = multiply_even(wide, factor);
  const WideRegister odd = multiply_even(wide >> 32, factor);
  constexpr std::uint64_t low = 0xffffffffU;
  return {bits_as<WordRegister>((even & low) | (odd << 32)), bits_as<WordRegister>((even >> 32) | (odd & ~low))};
}
#else
inline constexpr int kWordWidth = 1;
using WordRegister = std::uint32_t;
#endif

// Ten rounds on four words, or on four registers of words with a counter each.
template <class W>
ADAFACTOR_INLINE void philox(std::uint64_t key, W (&words)[4]) {
  auto key_0 = static_cast<std::uint32_t>(key);
  auto key_1 = static_cast<std::uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const Products<W> first = multiply_words(words[0], 0xD2511F53U);
    const Products<W> second = multiply_words(words[2], 0xCD9E8D57U);
    words[0] = second.high ^ words[1] ^ key_0;
    words[1] = second.low;
    words[2] = first.high ^ words[3] ^ key_1;
    words[3] = first.low;
    key_0 += 0x9E3779B9U;
    key_1 += 0xBB67AE85U;
  }
}

// The rounds on `counter`, counter + 1, ...: as many as there are words in a register. A block's counters begin at a
// multiple of sixteen, so that only the low words differ.
ADAFACTOR_INLINE void philox_of(Noise noise, std::uint64_t counter, WordRegister (&words)[4]) {
  std::uint32_t low[kWordWidth];
  for (int i = 0; i < kWordWidth; ++i) low[i] = static_cast<std::uint32_t>(counter) + static_cast<std::uint32_t>(i);
  std::memcpy(&words[0], low, sizeof low);
  const WordRegister zero = words[0] ^ words[0];
  words[1] = zero + static_cast<std::uint32_t>(counter >> 32);
  words[2] = zero + static_cast<std::uint32_t>(noise.update);
  words[3] = zero + static_cast<std::uint32_t>(noise.update >> 32);
  philox(noise.key, words);
}

// The bits of the elements 128 block, ..., 128 block + 127.
inline void make_noise_block(Noise noise, std::uint64_t block, std::uint16_t* to) {
  for (int lane = 0; lane < kLanes; lane += kWordWidth) {
    WordRegister words[4];
    philox_of(noise, block * kLanes + static_cast<std::uint64_t>(lane), words);
    for (int word = 0; word < 4; ++word) {
      store_words<kWordWidth, std::uint16_t>(to + 2 * word * kLanes + lane, words[word] & 0xffffU);
      store_words<kWordWidth, std::uint16_t>(to + (2 * word + 1) * kLanes + lane, words[word] >> 16);
    }
  }
}

}  // namespace loop_detail

// The bits of the elements first, ..., first + n - 1.
inline void make_noise(Noise noise, std::int64_t first, std::int64_t n, std::uint16_t* to) {
  constexpr std::int64_t block = loop_detail::kNoiseBlock;
  for (std::int64_t done = 0; done < n;) {
    const std::int64_t skipped = (first + done) % block;
    const std::int64_t count = block - skipped < n - done ? block - skipped : n - done;
    const auto index = static_cast<std::uint64_t>((first + done) / block);
    if (count == block) {
      loop_detail::make_noise_block(noise, index, to + done);
    } else {
      std::uint16_t whole[block];
      loop_detail::make_noise_block(noise, index, whole);
      std::memcpy(to + done, whole + skipped, static_cast<std::size_t>(count) * sizeof(std::uint16_t));
    }
    done += count;
  }
}

// The bits of one element.
inline std::uint16_t noise_of(Noise noise, std::int64_t element) {
  const auto e = static_cast<std::uint64_t>(element);
  const std::uint64_t counter = e / 128 * 16 + e % 16;
  std::uint32_t words[4] = {static_cast<std::uint32_t>(counter), static_cast<std::uint32_t>(counter >> 32),
                            static_cast<std::uint32_t>(noise.update), static_cast<std::uint32_t>(noise.update >> 32)};
  loop_detail::philox(noise.key, words);
  const auto half = static_cast<int>(e / 16 % 8);
  return static_cast<std::uint16_t>(words[half / 2] >> (half % 2 * 16));
}

}}  // namespace adafactor::ADAFACTOR_LOOPS
