// What was built, and how many threads it uses.
#include "../cpu/dispatch.hpp"
#include "bindings.hpp"
#include "devices.hpp"
#include "other_runtimes.hpp"

namespace adafactor::bindings {

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
    info["cuda"] = !cuda::backend().missing;
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
