// The random bits of stochastic rounding (philox.hpp) for many elements at a time.
#pragma once

#include <cstdint>
#include <cstring>

#include "adafactor/cpu/runs/philox.hpp"
#include "adafactor/lanes/lanes.hpp"
#include "adafactor/step/leaf.hpp"

namespace adafactor { inline namespace ADAFACTOR_LOOPS {

namespace loop_detail {

inline constexpr int kNoiseBlock = 128;  // elements of sixteen counters

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

template <>
struct Multiply<WordRegister> {
  static ADAFACTOR_INLINE Products<WordRegister> of(const WordRegister& words, std::uint32_t factor) {
    const auto wide = bits_as<WideRegister>(words);
    const WideRegister even = multiply_even(wide, factor);
    const WideRegister odd = multiply_even(wide >> 32, factor);
    constexpr std::uint64_t low = 0xffffffffU;
    return {bits_as<WordRegister>((even & low) | (odd << 32)), bits_as<WordRegister>((even >> 32) | (odd & ~low))};
  }
};
#else
inline constexpr int kWordWidth = 1;
using WordRegister = std::uint32_t;
#endif

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

}}  // namespace adafactor::ADAFACTOR_LOOPS
