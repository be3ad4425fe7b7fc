// Plans for tests of what a plan holds: leaves of every kind of layout and tiling.
#pragma once

#include <cstdint>
#include <vector>

#include "adafactor/plan.hpp"

namespace plans {

using Shape = std::vector<std::int64_t>;

inline const std::vector<Shape> kShapes{
    {},          {1},         {5},          {0, 4},        {7, 3},         {1, 300000},    {300000, 1}, {40, 9000},
    {600, 5000}, {3600, 512}, {511, 513},   {512, 512},    {255, 4097},    {256, 4096},    {8, 200000}, {131072, 3},
    {9, 1541},   {300, 3, 3}, {20, 600, 7}, {2, 700, 700}, {3, 300, 5000}, {24, 18, 3, 3}, {300000},    {5, 1, 1, 200}};

inline adafactor::Plan plan_of(const std::vector<Shape>& shapes, const adafactor::Config& config = {},
                               adafactor::DType dtype = adafactor::DType::float32) {
  std::vector<adafactor::LeafSpec> leaves;
  for (const Shape& shape : shapes) leaves.push_back({shape, dtype});
  return adafactor::Plan(leaves, {config});
}

}  // namespace plans
