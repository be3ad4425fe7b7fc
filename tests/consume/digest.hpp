// A few steps and the digest of what they leave, for files with different flags: each has its own copy.
#pragma once

#include <adafactor/adafactor.hpp>
#include <cstddef>
#include <cstdint>

namespace {

constexpr std::size_t kRows = 37;
constexpr std::size_t kCols = 53;

[[maybe_unused]] adafactor::Optimizer make_optimizer() {
  adafactor::Config config;
  config.learning_rate = 0.05;
  config.beta_1 = 0.9;
  config.weight_decay = 0.01;
  return adafactor::Optimizer{config, {{{kRows, kCols}, adafactor::DType::float32}}};
}

std::uint64_t digest_of_steps(adafactor::Optimizer& optimizer) {
  static float weights[kRows * kCols];
  static float gradient[kRows * kCols];
  std::uint32_t random = 1;
  const auto next = [&random] {
    random = random * 1664525U + 1013904223U;
    return static_cast<float>(random >> 8) * 0x1p-24f - 0.5f;
  };
  for (float& w : weights) w = next();
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

[[maybe_unused]] std::uint64_t digest_of_steps() {
  adafactor::Optimizer optimizer = make_optimizer();
  return digest_of_steps(optimizer);
}

}  // namespace
