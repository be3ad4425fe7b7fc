// A small model for the tests of Optimizer: its leaves, its arrays, and the bytes of an optimizer's state.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "adafactor/adafactor.hpp"
#include "support/digest.hpp"

namespace models {

// Two float32 leaves with numbers that depend on a seed alone.
struct Model {
  explicit Model(std::uint64_t seed = 0) {
    fill(w, seed + 1);
    fill(b, seed + 2);
    fill(gw, seed + 3);
    fill(gb, seed + 4);
  }

  static void fill(std::vector<float>& values, std::uint64_t seed) {
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = digest::number<float>(seed, i, {-3, 1, 0});
  }

  adafactor::StepReport step(adafactor::Optimizer& optimizer, const adafactor::StepOptions& options = {}) {
    return optimizer.step({w.data(), b.data()}, {gw.data(), gb.data()}, options);
  }

  std::vector<float> w = std::vector<float>(20 * 33), b = std::vector<float>(33);
  std::vector<float> gw = std::vector<float>(20 * 33), gb = std::vector<float>(33);
};

inline const std::vector<adafactor::LeafSpec> kLeaves{{{20, 33}, adafactor::DType::float32},
                                                      {{33}, adafactor::DType::float32}};

inline std::vector<std::byte> memory_of(const adafactor::Optimizer& optimizer) {
  const std::byte* memory = optimizer.state().memory();
  return {memory, memory + optimizer.nbytes()};
}

inline adafactor::Config config_of(double learning_rate) {
  adafactor::Config config;
  config.learning_rate = learning_rate;
  return config;
}

}  // namespace models
