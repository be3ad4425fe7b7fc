// A few steps and the digest of what they leave, for files with different flags: each has its own copy.
#pragma once

#include <adafactor/adafactor.hpp>
#include <cstddef>
#include <cstdint>

namespace {

std::uint64_t digest_of_steps() {
  constexpr std::size_t rows = 37;
  constexpr std::size_t cols = 53;
  static float weights[rows * cols];
  static float gradient[rows * cols];
  std::uint32_t random = 1;
  const auto next = [&random] {
    random = random * 1664525U + 1013904223U;
    return static_cast<float>(random >> 8) * 0x1p-24f - 0.5f;
  };
  for (float& w : weights) w = next();
  adafactor::Config config;
  config.learning_rate = 0.05;
  config.beta_1 = 0.9;
  config.weight_decay = 0.01;
  adafactor::Optimizer optimizer{config, {{{rows, cols}, adafactor::DType::float32}}};
  for (int call = 0; call < 5; ++call) {
    for (float& g : gradient) g = next();
    optimizer.step({weights}, {gradient});
  }
  std::uint64_t digest = 14695981039346656037U;  // FNV-1a
  const auto add = [&digest](const std::byte* bytes, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) digest = (digest ^ static_cast<std::uint64_t>(bytes[i])) * 1099511628211U;
  };
  add(reinterpret_cast<const std::byte*>(weights), sizeof weights);
  add(optimizer.state().memory(), static_cast<std::size_t>(optimizer.nbytes()));
  return digest;
}

}  // namespace
