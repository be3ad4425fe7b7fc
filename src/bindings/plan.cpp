// Plans: what a tree of leaves costs and how it is laid out, before any array is touched.
#include <string>

#include "adafactor/step/call.hpp"
#include "bindings.hpp"

namespace adafactor::bindings {

namespace {

DType dtype_of(std::size_t leaf, const std::string& text) {
  for (const DType dtype : kDTypes) {
    if (text == name(dtype)) return dtype;
  }
  throw Error({.kind = ErrorKind::type,
               .leaf = static_cast<std::int64_t>(leaf),
               .expected = words(kParameterTypes),
               .found = "dtype " + text});
}

std::shared_ptr<Plan> make_plan(const std::vector<std::vector<std::int64_t>>& shapes,
                                const std::vector<std::string>& dtypes, const std::vector<std::size_t>& rows,
                                const std::vector<py::dict>& knobs, const std::vector<std::string>& paths) {
  std::vector<LeafSpec> leaves;
  for (std::size_t i = 0; i < shapes.size(); ++i) {
    leaves.push_back({shapes[i], dtype_of(i, dtypes.at(i)), rows.at(i), paths.at(i)});
  }
  std::vector<Config> configs;
  for (const py::dict& row : knobs) configs.push_back(config_from(row));
  return std::make_shared<Plan>(std::move(leaves), std::move(configs));
}

py::dict layout_of(const Plan& plan, std::size_t index) {
  const LeafPlan& leaf = plan.leaves().at(index);
  const Layout& layout = leaf.layout;
  py::dict result;
  result["factored"] = layout.factored;
  result["row_axis"] = layout.row_axis;
  result["col_axis"] = layout.col_axis;
  result["slices"] = layout.slices;
  result["rows"] = layout.rows;
  result["cols"] = layout.cols;
  result["tiles"] = leaf.tile_count;
  py::list kinds;
  for (std::size_t kind = 0; kind < kStateKinds; ++kind) {
    if (leaf.state[kind].exists()) kinds.append(kStateKindNames[kind]);
  }
  result["kinds"] = std::move(kinds);
  return result;
}

}  // namespace

void bind_plan(py::module_& m) {
  py::classh<Plan>(m, "Plan", "The layouts, tiles, byte counts and knobs of all leaves; immutable.")
      .def(py::init(&make_plan), py::arg("shapes"), py::arg("dtypes"), py::arg("rows"), py::arg("knobs"),
           py::arg("paths"))
      .def_property_readonly("state_nbytes", &Plan::state_nbytes)
      .def_property_readonly("scratch_nbytes", [](const Plan& plan) { return scratch_nbytes(plan); })
      .def_property_readonly(
          "gpu_scratch_nbytes", [](const Plan& plan) { return cuda::device_scratch_nbytes(plan); },
          "The same in the memory of a GPU.")
      .def("layout", &layout_of, py::arg("leaf"),
           "How a leaf is factored, into how many tiles it is cut, and which arrays its state has.");
}

}  // namespace adafactor::bindings
