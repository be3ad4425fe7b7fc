// Rows of four and of eight elements, several to the lanes: each element meets the factors of its own row and column.
#include <cstdint>
#include <vector>

#include "adafactor/cpu/short/registers.hpp"
#include "support/check.hpp"
#include "support/sixteen.hpp"

namespace {

using sixteen::same_bits;

// Each element of twenty rows meets the factors of its own row and column, by sixteen, by fewer and alone.
template <int width>
void short_rows_find_their_factors() {
  constexpr int rows = 20;
  std::vector<float> row_factors(rows);
  std::vector<float> col_factors(width);
  std::vector<float> g(static_cast<std::size_t>(rows * width));
  for (std::size_t i = 0; i < row_factors.size(); ++i) row_factors[i] = 1.0F + static_cast<float>(i) / 7;
  for (std::size_t i = 0; i < col_factors.size(); ++i) col_factors[i] = 2.0F - static_cast<float>(i) / 3;
  for (std::size_t i = 0; i < g.size(); ++i) g[i] = 0.5F + static_cast<float>(i) / 11;
  const adafactor::ShortRowU<float, width> update(row_factors.data(), col_factors.data());
  for (const std::size_t n : {g.size(), g.size() - 1, g.size() - 5, g.size() - 9}) {
    std::vector<float> found(g.size());
    adafactor::for_each(static_cast<std::int64_t>(n), [&](std::int64_t i, auto amount) {
      adafactor::store(found.data() + i, update(adafactor::load<float>(g.data() + i, amount), i, amount), amount);
    });
    for (std::size_t i = 0; i < g.size(); ++i) {
      const float expected = i < n ? (g[i] * row_factors[i / width]) * col_factors[i % width] : 0;
      CHECK(same_bits(found[i], expected));
    }
  }
}

}  // namespace

int main() {
  if (!check::runs_here()) return check::kSkipped;
  short_rows_find_their_factors<4>();
  short_rows_find_their_factors<8>();
  return check::report();
}
