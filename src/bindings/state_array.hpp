// The arrays of a state as pieces of its memory, and as arrays of a device that other libraries take.
#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "adafactor/dtype.hpp"
#include "adafactor/plan.hpp"

namespace adafactor::bindings {

namespace py = pybind11;

// Where a piece of a state lies in its memory. It has the leaf's own order of axes; in memory the slice axes come
// first.
struct StatePiece {
  DType dtype;
  std::int64_t offset;                // in bytes
  std::vector<std::int64_t> shape;    // without the axes that it lacks
  std::vector<std::int64_t> strides;  // in elements
};

// That of a leaf, of a kind by its name; nothing where the leaf has none. Throws KeyError for another name.
std::optional<StatePiece> piece_of(const Plan& plan, std::size_t leaf, const std::string& kind);

// The same of a state on a device, as an object that exports it by DLPack and keeps the state alive; None where the
// leaf has none.
py::object device_piece(const py::object& owner, std::size_t leaf, const std::string& kind);

}  // namespace adafactor::bindings
