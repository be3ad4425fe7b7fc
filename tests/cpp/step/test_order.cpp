// The order of the sums of squares, as docs/algorithm/phases.md says it, in plain loops: cells of a tile, tiles of a
// leaf, leaves. Exponents are so far apart that another order has other bits.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "adafactor/adafactor.hpp"
#include "adafactor/cpu/kernels.hpp"
#include "support/check.hpp"
#include "support/plain_sum.hpp"

namespace {

using adafactor::kBlock;
using adafactor::kLanes;
using adafactor::kPanel;
using adafactor::kRowGroup;
using adafactor::LeafPlan;
using adafactor::Plan;
using adafactor::Tile;
using Numbers = std::vector<float>;
using Shape = std::vector<std::int64_t>;

// Numbers between 2^-16 and 2^16, of both signs, and their squares.
Numbers draw(std::int64_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> exponent(-16, 16);
  Numbers numbers;
  for (std::int64_t i = 0; i < count; ++i)
    numbers.push_back(std::exp2(exponent(random)) * (random() % 2 ? 1.0F : -1.0F));
  return numbers;
}

Numbers squares_of(Numbers numbers) {
  for (float& number : numbers) number = number * number;
  return numbers;
}

// One quantity of a leaf whose layout is that of its memory.
struct Squares {
  const LeafPlan& leaf;
  const Numbers& numbers;

  Numbers run(std::int64_t slice, std::int64_t row, std::int64_t first, std::int64_t n) const {
    const auto start = numbers.begin() + (slice * leaf.layout.rows + row) * leaf.layout.cols + first;
    return {start, start + n};
  }

  // Group by group, in each block by block, row after row.
  void add_cells(const Tile& tile, std::int64_t slice, std::vector<double>& cells) const {
    for (std::int64_t panel = 0; panel < tile.cols; panel += kPanel) {
      const std::int64_t end = std::min(panel + kPanel, tile.cols);
      for (std::int64_t group = 0; group < tile.rows; group += kRowGroup) {
        for (std::int64_t block = panel; block < end; block += kBlock) {
          double cell = 0;
          for (std::int64_t r = group; r < std::min(group + kRowGroup, tile.rows); ++r) {
            cell += plain::sum(run(slice, tile.row + r, tile.col + block, std::min(kBlock, end - block)));
          }
          cells.push_back(cell);
        }
      }
    }
  }

  // Rows shorter than the lanes: the sums of sixteen rows make a run.
  void add_short_rows(const Tile& tile, std::int64_t slice, std::vector<double>& cells) const {
    for (std::int64_t group = 0; group < tile.rows; group += kRowGroup) {
      std::vector<double> rows;
      for (std::int64_t r = group; r < std::min(group + kRowGroup, tile.rows); ++r) {
        rows.push_back(plain::sum(run(slice, tile.row + r, 0, tile.cols)));
      }
      cells.push_back(plain::sum(rows));
    }
  }

  // Small slices: a lane has one of every sixteen, a cell two of them.
  void add_small_slices(const Tile& tile, std::vector<double>& cells) const {
    std::vector<double> lanes(kLanes);
    for (std::int64_t done = 0; done < tile.slices; ++done) {
      double of_slice = 0;
      for (std::int64_t row = 0; row < tile.rows; ++row) {
        const Numbers run_of_row = run(tile.slice + done, row, 0, tile.cols);
        of_slice += plain::sum(std::vector<double>(run_of_row.begin(), run_of_row.end()));
      }
      lanes[static_cast<std::size_t>(done % kLanes)] += of_slice;
      if (done % (2 * kLanes) == 2 * kLanes - 1 || done == tile.slices - 1) {
        cells.push_back(plain::fold(lanes));
        std::ranges::fill(lanes, 0);
      }
    }
  }

  // What `rms` makes of short rows: as many as fit in a block are a run, and a cell.
  void add_runs(const Tile& tile, std::vector<double>& cells) const {
    const adafactor::Layout& layout = leaf.layout;
    const std::int64_t most = kBlock / layout.cols;
    const std::int64_t together = leaf.has_small_slices() ? most - most % layout.rows : most;
    for (std::int64_t row = 0; row < tile.slices * tile.rows; row += together) {
      const std::int64_t count = std::min(together, tile.slices * tile.rows - row);
      cells.push_back(plain::sum(run(tile.slice, tile.row + row, 0, count * layout.cols)));
    }
  }

  double total(const Plan& plan, bool by_rms) const {
    std::vector<double> tiles;
    for (std::int64_t t = leaf.first_tile; t < leaf.first_tile + leaf.tile_count; ++t) {
      const Tile& tile = plan.tiles()[static_cast<std::size_t>(t)];
      const bool is_short = leaf.layout.factored && leaf.layout.cols < kLanes;
      std::vector<double> cells;
      if (is_short && by_rms) {
        add_runs(tile, cells);
      } else if (leaf.has_small_slices()) {
        add_small_slices(tile, cells);
      } else {
        for (std::int64_t slice = tile.slice; slice < tile.slice + tile.slices; ++slice) {
          is_short ? add_short_rows(tile, slice, cells) : add_cells(tile, slice, cells);
        }
      }
      tiles.push_back(plain::sum(cells));
    }
    return plain::sum(tiles);
  }
};

void sums_have_the_order_that_is_documented(const std::vector<Shape>& shapes) {
  std::vector<adafactor::LeafSpec> specs;
  for (const Shape& shape : shapes) specs.push_back({shape, adafactor::DType::float32});
  const auto plan = std::make_shared<const Plan>(specs, std::vector{adafactor::Config{}});
  std::vector<Numbers> parameters;
  std::vector<Numbers> gradients;
  std::vector<adafactor::TensorView> parameter_views;
  std::vector<adafactor::TensorView> gradient_views;
  const auto view = [](Numbers& numbers, const Shape& shape) {
    return adafactor::TensorView{
        numbers.data(), adafactor::DType::float32, {}, static_cast<int>(shape.size()), shape.data(), nullptr};
  };
  for (const LeafPlan& leaf : plan->leaves()) {
    parameters.push_back(draw(leaf.layout.size(), 1));
    gradients.push_back(draw(leaf.layout.size(), 2));
  }
  std::vector<double> totals_of_parameters;
  std::vector<double> totals;
  for (std::size_t i = 0; i < shapes.size(); ++i) {
    parameter_views.push_back(view(parameters[i], shapes[i]));
    gradient_views.push_back(view(gradients[i], shapes[i]));
    totals.push_back(Squares{plan->leaves()[i], squares_of(gradients[i])}.total(*plan, false));
    totals_of_parameters.push_back(Squares{plan->leaves()[i], squares_of(parameters[i])}.total(*plan, true));
  }
  adafactor::State state(plan);
  const adafactor::LearningRate rate{0.01, false};
  const adafactor::Outcome outcome =
      adafactor::step(state, {parameter_views.data(), gradient_views.data(), parameter_views.data(), &rate, 1, true},
                      adafactor::cpu_backend());
  for (std::size_t i = 0; i < shapes.size(); ++i) {
    const adafactor::LeafReport report = adafactor::report(state, i, outcome.updated);
    const std::string name = check::describe(shapes[i]) + " ";
    CHECK_EQ(name + check::describe(report.grad_norm), name + check::describe(std::sqrt(totals[i])));
    const double size = static_cast<double>(plan->leaves()[i].layout.size());
    CHECK_EQ(name + check::describe(report.param_rms),
             name + check::describe(std::sqrt(totals_of_parameters[i] / size)));
  }
  std::vector<double> scaled;
  for (const double total : totals) scaled.push_back(total * 0x1p-64);
  CHECK_EQ(outcome.global_grad_norm, std::sqrt(plain::sum(scaled)) * 0x1p32);
}

}  // namespace

int main() {
  sums_have_the_order_that_is_documented({{5},
                                          {3000},
                                          {300000},
                                          {40, 130},
                                          {40, 1100},
                                          {25, 5200},
                                          {700, 5000},
                                          {8, 200000},
                                          {50, 16, 16},
                                          {3, 600, 700},
                                          {100, 3},
                                          {131072, 3},
                                          {5000, 8},
                                          {30, 40, 11},
                                          {600, 3, 3},
                                          {45, 7, 15}});
  return check::report();
}
