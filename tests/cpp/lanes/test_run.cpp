// A run asks for memory that may lie anywhere, or nowhere, and reads the same numbers however far ahead it asks.
#include <cstddef>
#include <cstdint>
#include <vector>

#include "adafactor/lanes/lanes.hpp"
#include "support/check.hpp"

namespace {

using adafactor::Bfloat16;
using adafactor::Float16;
using adafactor::Run;

template <class S>
void a_run_reads_what_lies_there() {
  std::vector<float> numbers(1024);
  for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<float>(i) * 0.25f;
  std::vector<S> stored(numbers.size());
  for (std::size_t i = 0; i < numbers.size(); i += 16) {
    adafactor::store(stored.data() + i, adafactor::load<float>(numbers.data() + i, adafactor::Full{}),
                     adafactor::Full{});
  }
  constexpr std::ptrdiff_t far = std::ptrdiff_t{1} << 40;
  for (const std::ptrdiff_t ahead : {std::ptrdiff_t{0}, std::ptrdiff_t{2048}, std::ptrdiff_t{-4096}, far, -far}) {
    const Run<S> run(stored.data(), ahead);
    for (const std::int64_t count : {0, 1, 15, 16, 17, 512}) {
      run.ask(512, count);
      run.ask_for_lines(512, count);
      run.ask_for_page(512, count);
    }
    for (std::int64_t i = 0; i < 1024; ++i) {
      CHECK_EQ(adafactor::load<float>(run, i, adafactor::One{}),
               adafactor::load<float>(stored.data() + i, adafactor::One{}));
    }
    float lanes[16];
    adafactor::store(lanes, adafactor::load<float>(run, 1008, adafactor::Full{}), adafactor::Full{});
    for (std::size_t i = 0; i < 16; ++i)
      CHECK_EQ(lanes[i], adafactor::load<float>(run, 1008 + static_cast<std::int64_t>(i), adafactor::One{}));
  }
}

void the_distance_is_a_machines() { CHECK_EQ(adafactor::bytes_ahead(), adafactor::asks_for_lines() ? 2048 : 0); }

}  // namespace

int main() {
  a_run_reads_what_lies_there<float>();
  a_run_reads_what_lies_there<Bfloat16>();
  a_run_reads_what_lies_there<Float16>();
  the_distance_is_a_machines();
  return check::report();
}
