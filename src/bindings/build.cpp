// What was built, and how many threads it uses.
#include "../cpu/dispatch.hpp"
#include "../cuda/library.hpp"
#include "bindings.hpp"
#include "other_runtimes.hpp"

namespace adafactor::bindings {

namespace {

// CUDA counts its versions in one number: 13000 is 13.0.
std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

// False in a build without CUDA, and else what the kernels are for and what is there to run them.
py::object cuda_info() {
  const cuda::Library& library = cuda::library();
  if (!library.is_built) return py::bool_(false);
  py::dict info;
  const auto text = [](const char* words) -> py::object { return words ? py::object(py::str(words)) : py::none(); };
  info["toolkit"] = text(library.functions ? library.functions->toolkit : nullptr);
  info["architectures"] = text(library.functions ? library.functions->architectures : nullptr);
  info["driver"] = library.driver > 0 ? py::object(py::str(version_text(library.driver))) : py::none();
  info["devices"] = library.devices;
  info["missing"] = library.missing.empty() ? py::object(py::none()) : py::str(library.missing);
  return info;
}

}  // namespace

void bind_build(py::module_& m) {
  m.attr("version") = ADAFACTOR_VERSION;
  m.def("build_info", [] {
    py::dict info;
    info["version"] = ADAFACTOR_VERSION;
    info["isa"] = compiled_kernels().isa;
    py::list isas;
    for (const KernelTable* kernels : cpu::usable_kernels()) isas.append(kernels->isa);
    info["isas"] = py::tuple(isas);
    info["threads"] = threads_kind();
    look_for_runtimes();
    info["num_threads"] = get_num_threads();
    info["cuda"] = cuda_info();
    info["compiler"] = __VERSION__;
    return info;
  });
  set_thread_limit(&threads_of_other_runtimes);
  m.def("set_num_threads", &set_num_threads, py::arg("n"));
  m.def("get_num_threads", [] {
    look_for_runtimes();
    return get_num_threads();
  });
}

}  // namespace adafactor::bindings
