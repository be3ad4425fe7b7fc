// Adafactor's update of one leaf in long double, written from the paper as plainly as it can be: what the tests of the
// step compare with. The leaf is [slice][row][column], or one row where it is not factored.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "adafactor/config.hpp"
#include "adafactor/plan/layout.hpp"

namespace plain {

using Number = long double;
using Numbers = std::vector<Number>;

inline Number rms(const Numbers& values) {
  Number sum = 0;
  for (const Number x : values) sum += x * x;
  return std::sqrt(sum / static_cast<Number>(values.size()));
}

class Leaf {
 public:
  Leaf(const adafactor::Config& config, const adafactor::Layout& layout, Numbers parameter)
      : p(std::move(parameter)),
        config_(config),
        slices_(static_cast<std::size_t>(layout.slices)),
        rows_(static_cast<std::size_t>(layout.rows)),
        cols_(static_cast<std::size_t>(layout.cols)),
        factored_(layout.factored),
        full_(p.size()),
        accumulator_(p.size()) {
    row.resize(factored_ ? slices_ * rows_ : 0);
    col.resize(factored_ ? slices_ * cols_ : 0);
    momentum.resize(p.size());
    average.resize(p.size());
  }

  // One call.
  void step(Numbers g) {
    const Number sign = config_.maximize ? -1 : 1;
    for (Number& x : g) x *= sign / static_cast<Number>(config_.loss_scale_factor.value_or(1));
    ++calls_;
    if (const auto every = config_.gradient_accumulation_steps) {
      for (std::size_t i = 0; i < g.size(); ++i) accumulator_[i] += g[i];
      if (calls_ % *every != 0) return;
      for (std::size_t i = 0; i < g.size(); ++i) g[i] = accumulator_[i] / static_cast<Number>(*every);
      std::ranges::fill(accumulator_, Number{0});
    }
    ++updates_;
    clip(g);
    set_scalars();
    const Numbers u = factored_ ? factored_update(g) : full_update(g);
    apply(u);
  }

  Numbers p, row, col, momentum, average;
  Number alpha = 0, clip_factor = 1, update_rms = 0, parameter_rms = 0;

 private:
  void clip(Numbers& g) const {
    const Number norm = rms(g) * std::sqrt(static_cast<Number>(g.size()));
    const auto limit = config_.clipnorm ? config_.clipnorm : config_.global_clipnorm;
    for (Number& x : g) {
      if (limit) x *= std::min<Number>(1, static_cast<Number>(*limit) / norm);
      if (config_.clipvalue) x = std::clamp<Number>(x, -*config_.clipvalue, *config_.clipvalue);
    }
  }

  void set_scalars() {
    const auto t = static_cast<Number>(updates_);
    const Number cap = 1 / std::sqrt(t);
    learning_rate_ = config_.warmup_init ? 1e-6L * t : static_cast<Number>(config_.learning_rate);
    rho_ = config_.relative_step == adafactor::RelativeStep::off ? learning_rate_ : std::min(learning_rate_, cap);
    const Number counted = std::max<Number>(1, t - static_cast<Number>(config_.step_offset));
    beta_2_ = std::min<Number>(config_.beta_2_cap.value_or(1), 1 - std::pow(counted, Number{config_.beta_2_decay}));
  }

  Number epsilon() const { return static_cast<Number>(config_.epsilon_1.value()); }
  bool clamps() const { return config_.epsilon_1_mode == adafactor::EpsilonMode::clamp; }

  Numbers factored_update(const Numbers& g) {
    const Number added = clamps() ? 0 : epsilon();
    Numbers u(g.size());
    for (std::size_t s = 0; s < slices_; ++s) {
      Numbers rows(rows_);
      Numbers cols(cols_);
      for (std::size_t i = 0; i < rows_; ++i) {
        for (std::size_t j = 0; j < cols_; ++j) {
          const Number x = g[(s * rows_ + i) * cols_ + j];
          rows[i] += (x * x + added) / static_cast<Number>(cols_);
          cols[j] += (x * x + added) / static_cast<Number>(rows_);
        }
      }
      Number mean = 0;
      for (std::size_t i = 0; i < rows_; ++i) {
        Number& moment = row[s * rows_ + i];
        moment = beta_2_ * moment + (1 - beta_2_) * rows[i];
        mean += moment / static_cast<Number>(rows_);
      }
      for (std::size_t j = 0; j < cols_; ++j) {
        Number& moment = col[s * cols_ + j];
        moment = beta_2_ * moment + (1 - beta_2_) * cols[j];
      }
      if (clamps()) mean = std::max(mean, epsilon());
      for (std::size_t i = 0; i < rows_; ++i) {
        for (std::size_t j = 0; j < cols_; ++j) {
          Number estimate = row[s * rows_ + i] * col[s * cols_ + j] / mean;
          if (clamps()) estimate = std::max(estimate, epsilon() * epsilon());
          const std::size_t k = (s * rows_ + i) * cols_ + j;
          u[k] = g[k] / std::sqrt(estimate);
        }
      }
    }
    return u;
  }

  Numbers full_update(const Numbers& g) {
    Numbers u(g.size());
    for (std::size_t k = 0; k < g.size(); ++k) {
      full_[k] = beta_2_ * full_[k] + (1 - beta_2_) * (g[k] * g[k] + (clamps() ? 0 : epsilon()));
      const Number estimate = clamps() ? std::max(full_[k], epsilon() * epsilon()) : full_[k];
      u[k] = g[k] / std::sqrt(estimate);
    }
    return u;
  }

  // weight_decay times what it is relative to; alpha is known where that is alpha.
  Number decay() const {
    const auto weight = static_cast<Number>(config_.weight_decay.value_or(0));
    if (config_.weight_decay_on == adafactor::WeightDecayOn::learning_rate) return weight * learning_rate_;
    return config_.weight_decay_on == adafactor::WeightDecayOn::step ? weight * alpha : weight;
  }

  void apply(const Numbers& u) {
    update_rms = rms(u);
    parameter_rms = rms(p);
    clip_factor = config_.clip_threshold ? 1 / std::max<Number>(1, update_rms / Number{*config_.clip_threshold}) : 1;
    alpha = rho_;
    if (config_.scale_parameter) {
      const Number scale = config_.decays_first() ? std::abs(1 - decay()) * parameter_rms : parameter_rms;
      const Number ceiling = config_.max_parameter_scale.value_or(1e300);
      alpha *= std::clamp(scale, static_cast<Number>(config_.epsilon_2), ceiling);
    }
    const bool of_scaled = config_.momentum_on == adafactor::MomentumOn::scaled;
    for (std::size_t k = 0; k < p.size(); ++k) {
      Number x = u[k] * clip_factor * (of_scaled ? alpha : 1);
      if (config_.beta_1) {
        const auto beta_1 = static_cast<Number>(*config_.beta_1);
        x = momentum[k] = beta_1 * momentum[k] + (1 - beta_1) * x;
      }
      p[k] -= (of_scaled ? x : alpha * x) + decay() * p[k];
      if (!config_.use_ema) continue;
      const Number kept = updates_ == 1 ? 0 : static_cast<Number>(config_.ema_momentum);
      average[k] = kept * average[k] + (1 - kept) * p[k];
      if (config_.ema_overwrite_frequency && updates_ % *config_.ema_overwrite_frequency == 0) p[k] = average[k];
    }
  }

  adafactor::Config config_;
  std::size_t slices_, rows_, cols_;
  bool factored_;
  Numbers full_, accumulator_;
  long calls_ = 0;
  long updates_ = 0;
  Number learning_rate_ = 0, rho_ = 0, beta_2_ = 0;
};

}  // namespace plain
