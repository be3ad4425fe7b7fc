// The random bits of stochastic rounding: the generator against its authors' numbers, and that an element's bits do not
// depend on how many are made at once.
#include <cstdint>
#include <vector>

#include "adafactor/cpu/runs/noise.hpp"
#include "adafactor/plan/noise_key.hpp"
#include "support/check.hpp"

namespace {

using adafactor::Noise;

void is_philox_as_its_authors_have_it() {
  // kat_vectors of Random123, philox4x32 with 10 rounds.
  std::uint32_t zeros[4] = {0, 0, 0, 0};
  adafactor::loop_detail::philox(0, zeros);
  CHECK_EQ(zeros[0], 0x6627e8d5U);
  CHECK_EQ(zeros[1], 0xe169c58dU);
  CHECK_EQ(zeros[2], 0xbc57ac4cU);
  CHECK_EQ(zeros[3], 0x9b00dbd8U);
  std::uint32_t digits[4] = {0x243f6a88U, 0x85a308d3U, 0x13198a2eU, 0x03707344U};
  adafactor::loop_detail::philox(0x299f31d0a4093822U, digits);
  CHECK_EQ(digits[0], 0xd16cfe09U);
  CHECK_EQ(digits[1], 0x94fdccebU);
  CHECK_EQ(digits[2], 0x5001e420U);
  CHECK_EQ(digits[3], 0x24126ea1U);
}

void a_run_has_the_bits_of_its_elements() {
  const Noise noise{0x0123456789abcdefU, 0x100000002U};
  for (const std::int64_t first : {std::int64_t{0}, std::int64_t{1}, std::int64_t{127}, std::int64_t{640},
                                   (std::int64_t{1} << 36) - 5, (std::int64_t{1} << 40) + 3}) {
    for (const std::int64_t n : {1, 15, 128, 300, 512}) {
      std::vector<std::uint16_t> run(static_cast<std::size_t>(n));
      adafactor::make_noise(noise, first, n, run.data());
      int wrong = 0;
      for (std::int64_t i = 0; i < n; ++i) {
        wrong += run[static_cast<std::size_t>(i)] != adafactor::noise_of(noise, first + i);
      }
      CHECK_EQ(wrong, 0);
    }
  }
}

// Whatever one of the numbers is that the noise depends on, half of the bits change with it.
void everything_counts() {
  const std::uint64_t key = adafactor::noise_key("layers/0/w", 1);
  const auto bits_of = [](Noise noise, std::int64_t first) {
    std::vector<std::uint16_t> run(4096);
    adafactor::make_noise(noise, first, 4096, run.data());
    return run;
  };
  const std::vector<std::uint16_t> bits = bits_of({key, 1}, 0);
  const auto expect_others = [&](const std::vector<std::uint16_t>& others) {
    int differing = 0;
    for (std::size_t i = 0; i < bits.size(); ++i) differing += __builtin_popcount(bits[i] ^ others[i]);
    CHECK(differing > 32768 - 600 && differing < 32768 + 600);  // of 65536; 600 are 4.7 standard deviations
  };
  expect_others(bits_of({key, 2}, 0));
  expect_others(bits_of({key, 1}, 4096));
  expect_others(bits_of({adafactor::noise_key("layers/0/w", 2), 1}, 0));
  expect_others(bits_of({adafactor::noise_key("layers/1/w", 1), 1}, 0));
}

void a_path_is_hashed_by_fnv() {
  CHECK_EQ(adafactor::noise_key("", 0), 0xcbf29ce484222325U);
  CHECK_EQ(adafactor::noise_key("a", 0), 0xaf63dc4c8601ec8cU);
  CHECK_EQ(adafactor::noise_key("foobar", 0), 0x85944171f73967e8U);
}

}  // namespace

int main() {
  if (!check::runs_here()) return check::kSkipped;
  is_philox_as_its_authors_have_it();
  a_run_has_the_bits_of_its_elements();
  everything_counts();
  a_path_is_hashed_by_fnv();
  return check::report();
}
