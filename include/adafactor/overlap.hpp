#pragma once
#include <cstdint>
namespace adafactor {
struct StridedRegion {
  const void* data;
  std::int64_t itemsize;
  int rank;
  const std::int64_t* shape;
  const std::int64_t* strides;
};
struct OverlapFinder {};
}  // namespace adafactor
