// Leaves that are cut into parts over a mesh, as ranks hold them: the parts of each in a state of its own, in one
// process, and a call that adds up their buffers group by group.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "adafactor/adafactor.hpp"
#include "adafactor/parts.hpp"
#include "support/digest.hpp"

namespace parts {

using adafactor::LeafSpec;
using adafactor::Plan;
using adafactor::StateKind;
using Shape = std::vector<std::int64_t>;

// What one dimension of the mesh does to a leaf: it cuts an axis into pieces of equal multiples of `unit`, the last
// ones smaller or empty; or, without an axis, each part has all of it.
struct Cut {
  int axis = -1;
  std::int64_t unit = 1;
};

// A leaf, and what each dimension of the mesh does to it.
struct CutLeaf {
  LeafSpec whole;
  std::vector<Cut> cuts;
};

// Calls body(in_part, in_whole) with the indices of every element of a part, in memory in which some axes follow each
// other, the last the fastest.
template <class Body>
void for_elements(const LeafSpec& spec, const std::vector<int>& axes, const Body& body, std::size_t depth = 0,
                  std::int64_t in_part = 0, std::int64_t in_whole = 0) {
  const auto element = [&](std::int64_t i) {
    body(static_cast<std::size_t>(in_part + i), static_cast<std::size_t>(in_whole + i));
  };
  if (axes.empty()) return element(0);
  const auto axis = static_cast<std::size_t>(axes[depth]);
  in_part *= spec.shape[axis];
  in_whole = in_whole * spec.global_shape[axis] + spec.offset[axis];
  for (std::int64_t i = 0; i < spec.shape[axis]; ++i) {
    if (depth + 1 == axes.size()) {
      element(i);
    } else {
      for_elements(spec, axes, body, depth + 1, in_part + i, in_whole + i);
    }
  }
}

inline std::vector<int> all_axes(const Shape& shape) {
  std::vector<int> axes(shape.size());
  std::iota(axes.begin(), axes.end(), 0);
  return axes;
}

// The axes that an array of the state has, in the order of its memory.
inline std::vector<int> axes_of(const adafactor::LeafPlan& leaf, StateKind kind) {
  const adafactor::Layout& layout = leaf.layout;
  if (!layout.factored) return all_axes(leaf.spec.shape);
  std::vector<int> axes;
  for (const int axis : all_axes(leaf.spec.shape)) {
    if (axis != layout.row_axis && axis != layout.col_axis) axes.push_back(axis);
  }
  if (kind != StateKind::col) axes.push_back(layout.row_axis);
  if (kind != StateKind::row) axes.push_back(layout.col_axis);
  return axes;
}

// The part of a leaf that lies at a place of the mesh.
inline LeafSpec part_of(const CutLeaf& leaf, const std::vector<int>& mesh, const std::vector<int>& place) {
  LeafSpec part = leaf.whole;
  part.global_shape = leaf.whole.shape;
  part.offset.assign(part.shape.size(), 0);
  part.split.assign(part.shape.size(), 0);
  for (std::size_t k = 0; k < mesh.size(); ++k) {
    const Cut& cut = leaf.cuts[k];
    if (cut.axis < 0) continue;
    const auto axis = static_cast<std::size_t>(cut.axis);
    const std::int64_t extent = part.shape[axis];
    const std::int64_t each = (extent + mesh[k] * cut.unit - 1) / (mesh[k] * cut.unit) * cut.unit;
    const std::int64_t first = std::min(place[k] * each, extent);
    part.offset[axis] += first;
    part.shape[axis] = std::min(each, extent - first);
    part.split[axis] |= 1U << k;
  }
  return part;
}

// One part of all leaves: what a rank has.
class Rank {
 public:
  Rank(const std::vector<CutLeaf>& leaves, const std::vector<int>& mesh, std::vector<int> place,
       const adafactor::Config& config)
      : place_(std::move(place)) {
    std::vector<LeafSpec> specs;
    for (const CutLeaf& leaf : leaves) specs.push_back(part_of(leaf, mesh, place_));
    specs_ = specs;
    state_.emplace(std::make_shared<const Plan>(specs, std::vector{config}));
    parameters_.emplace(specs_);
    gradients_.emplace(specs_);
    rate_ = {config.learning_rate, false};
  }

  const std::vector<int>& place() const { return place_; }
  const LeafSpec& spec(std::size_t leaf) const { return specs_[leaf]; }
  adafactor::State& state() { return *state_; }
  digest::Arrays& parameters() { return *parameters_; }
  digest::Arrays& gradients() { return *gradients_; }
  const adafactor::LearningRate& rate() const { return rate_; }

 private:
  std::vector<int> place_;
  std::vector<LeafSpec> specs_;
  std::optional<adafactor::State> state_;
  std::optional<digest::Arrays> parameters_;
  std::optional<digest::Arrays> gradients_;
  adafactor::LearningRate rate_;
};

// All parts of all leaves, of a mesh with one or two dimensions.
class Ranks {
 public:
  Ranks(const std::vector<CutLeaf>& leaves, std::vector<int> mesh, const adafactor::Config& config)
      : leaves_(leaves), mesh_(std::move(mesh)) {
    const int second = mesh_.size() > 1 ? mesh_[1] : 1;
    for (int i = 0; i < mesh_[0]; ++i) {
      for (int j = 0; j < second; ++j) {
        ranks_.push_back(std::make_unique<Rank>(leaves_, mesh_, std::vector{i, j}, config));
      }
    }
  }

  std::vector<std::unique_ptr<Rank>>& all() { return ranks_; }

  // Each rank takes its parts of whole arrays.
  void take_parameters(const digest::Arrays& whole) { take(whole, &Rank::parameters); }
  void take_gradients(const digest::Arrays& whole) { take(whole, &Rank::gradients); }

  // One call; `absent(rank, leaf)` says which parts have no gradient.
  std::vector<adafactor::Outcome> step(const std::function<bool(std::size_t, std::size_t)>& absent = {},
                                       double grad_multiplier = 1,
                                       const adafactor::Backend& backend = adafactor::cpu_backend()) {
    std::vector<std::vector<adafactor::TensorView>> gradients;
    std::vector<std::unique_ptr<adafactor::Step>> steps;
    for (std::size_t r = 0; r < ranks_.size(); ++r) {
      Rank& rank = *ranks_[r];
      gradients.emplace_back(rank.gradients().views(), rank.gradients().views() + leaves_.size());
      for (std::size_t leaf = 0; leaf < leaves_.size(); ++leaf) {
        if (absent && absent(r, leaf)) gradients.back()[leaf] = {};
      }
      const adafactor::TensorView* parameters = rank.parameters().views();
      const adafactor::Call call{parameters, gradients.back().data(), parameters, &rank.rate(), grad_multiplier};
      steps.push_back(std::make_unique<adafactor::Step>(rank.state(), call, backend));
    }
    using Ask = std::span<double> (adafactor::Step::*)(int);
    const auto run = [&](adafactor::Phases phases) {
      for (auto& step : steps) step->run(phases);
    };
    const auto exchange = [&](Ask ask) {
      for (int group = 0; group < static_cast<int>(mesh_.size()); ++group) add_up(steps, ask, group);
    };
    run(adafactor::kSums);
    exchange(&adafactor::Step::sums);
    run(adafactor::kSquares);
    exchange(&adafactor::Step::squares);
    run(adafactor::kRest);
    std::vector<adafactor::Outcome> outcomes;
    for (auto& step : steps) outcomes.push_back(step->finish());
    return outcomes;
  }

 private:
  void take(const digest::Arrays& whole, digest::Arrays& (Rank::*of_rank)()) {
    for (const auto& rank : ranks_) {
      for (std::size_t leaf = 0; leaf < leaves_.size(); ++leaf) {
        const LeafSpec& spec = rank->spec(leaf);
        const adafactor::TensorView& from = whole.views()[leaf];
        const adafactor::TensorView& to = (*rank.*of_rank)().views()[leaf];
        const auto item = static_cast<std::size_t>(adafactor::item_size(from.dtype));
        for_elements(spec, all_axes(spec.shape), [&](std::size_t in_part, std::size_t in_whole) {
          std::memcpy(static_cast<std::byte*>(to.data) + in_part * item,
                      static_cast<const std::byte*>(from.data) + in_whole * item, item);
        });
      }
    }
  }

  // Adds up the buffers of one group, over the ranks that differ in its dimension alone.
  void add_up(std::vector<std::unique_ptr<adafactor::Step>>& steps, std::span<double> (adafactor::Step::*ask)(int),
              int group) {
    std::vector<std::span<double>> buffers;
    for (auto& step : steps) buffers.push_back((*step.*ask)(group));
    const auto together = [&](std::size_t a, std::size_t b) {
      for (std::size_t k = 0; k < mesh_.size(); ++k) {
        if (static_cast<int>(k) != group && ranks_[a]->place()[k] != ranks_[b]->place()[k]) return false;
      }
      return true;
    };
    std::vector<std::vector<double>> totals;
    for (std::size_t a = 0; a < steps.size(); ++a) {
      std::vector<double> total(buffers[a].size(), 0.0);
      for (std::size_t b = 0; b < steps.size(); ++b) {
        if (!together(a, b)) continue;
        if (buffers[b].size() != total.size()) throw std::runtime_error("buffers of a group differ in length");
        for (std::size_t i = 0; i < total.size(); ++i) total[i] += buffers[b][i];
      }
      totals.push_back(std::move(total));
    }
    for (std::size_t a = 0; a < steps.size(); ++a) std::ranges::copy(totals[a], buffers[a].begin());
  }

  std::vector<CutLeaf> leaves_;
  std::vector<int> mesh_;
  std::vector<std::unique_ptr<Rank>> ranks_;
};

template <class T>
double number_of(T number) {
  if constexpr (sizeof(T) == 2) {
    return static_cast<double>(adafactor::to_float(number));
  } else {
    return static_cast<double>(number);
  }
}

// How far an array of a rank is from that part of the whole's: 0 where all bits are equal, else the largest difference,
// relative to the larger of 1 and the number where `absolute`, else to the number.
template <class T>
double distance_of(const std::byte* part, const std::byte* whole, const LeafSpec& spec, const std::vector<int>& axes,
                   bool absolute) {
  double largest = 0;
  for_elements(spec, axes, [&](std::size_t in_part, std::size_t in_whole) {
    T a;
    T b;
    std::memcpy(&a, part + in_part * sizeof a, sizeof a);
    std::memcpy(&b, whole + in_whole * sizeof b, sizeof b);
    if (std::memcmp(&a, &b, sizeof a) == 0) return;
    const double x = number_of(a);
    const double y = number_of(b);
    const double unit = absolute ? std::fmax(std::fabs(y), 1.0) : std::fabs(y);
    largest = std::fmax(largest, std::isfinite(x) ? std::fmax(std::fabs(x - y) / unit, 1e-300) : 1e300);
  });
  return largest;
}

inline double distance(const std::byte* part, const std::byte* whole, adafactor::DType dtype, const LeafSpec& spec,
                       const std::vector<int>& axes, bool absolute) {
  switch (dtype) {
    case adafactor::DType::float64:
      return distance_of<double>(part, whole, spec, axes, absolute);
    case adafactor::DType::float32:
      return distance_of<float>(part, whole, spec, axes, absolute);
    case adafactor::DType::float16:
      return distance_of<adafactor::Float16>(part, whole, spec, axes, absolute);
    case adafactor::DType::bfloat16:
      return distance_of<adafactor::Bfloat16>(part, whole, spec, axes, absolute);
  }
  return 1e300;
}

}  // namespace parts
