// Runtimes are found by the names of the files that are loaded, as threadpoolctl finds them, and asked by the one
// function that all of them have.
#include "other_runtimes.hpp"

#if defined(__linux__)

#include <dlfcn.h>
#include <link.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "bindings.hpp"

namespace adafactor::bindings {

namespace {

using Ask = int (*)();

// Those that were found; a process has a few, and keeps them.
std::array<std::atomic<Ask>, 8>& runtimes() {
  static std::array<std::atomic<Ask>, 8> found{};
  return found;
}

bool is_runtime(std::string_view path) {
  const std::string_view name = path.substr(path.rfind('/') + 1);
  return std::ranges::any_of(std::array<std::string_view, 3>{"libgomp", "libiomp", "libomp"},
                             [&](std::string_view start) { return name.starts_with(start); });
}

std::vector<std::string> loaded_runtimes() {
  std::vector<std::string> paths;
  dl_iterate_phdr(
      [](dl_phdr_info* info, std::size_t, void* found) {
        if (info->dlpi_name && is_runtime(info->dlpi_name)) {
          static_cast<std::vector<std::string>*>(found)->emplace_back(info->dlpi_name);
        }
        return 0;
      },
      &paths);
  return paths;
}

void keep(Ask ask) {
  for (std::atomic<Ask>& place : runtimes()) {
    Ask known = nullptr;
    if (place.compare_exchange_strong(known, ask) || known == ask) return;
  }
}

void find_runtimes() {
  for (const std::string& path : loaded_runtimes()) {
    void* file = dlopen(path.c_str(), RTLD_LAZY | RTLD_NOLOAD);  // which is never closed: it is asked from now on
    if (!file) continue;
    if (auto* ask = reinterpret_cast<Ask>(dlsym(file, "omp_get_max_threads"))) keep(ask);
  }
}

}  // namespace

void look_for_runtimes() {
  using Clock = std::chrono::steady_clock;
  static std::atomic<py::ssize_t> modules{-1};
  static std::atomic<Clock::rep> looked{0};
  const py::ssize_t now_modules = PyDict_Size(PyImport_GetModuleDict());
  const Clock::rep now = Clock::now().time_since_epoch().count();
  constexpr Clock::rep second = std::chrono::duration_cast<Clock::duration>(std::chrono::seconds(1)).count();
  if (modules.exchange(now_modules) == now_modules && now - looked.load() < second) return;
  looked = now;
  find_runtimes();
}

int threads_of_other_runtimes() {
  int least = 0;
  for (const std::atomic<Ask>& place : runtimes()) {
    const Ask ask = place.load();
    if (!ask) break;
    least = least > 0 ? std::min(least, ask()) : ask();
  }
  return least;
}

}  // namespace adafactor::bindings

#else

namespace adafactor::bindings {

void look_for_runtimes() {}
int threads_of_other_runtimes() { return 0; }

}  // namespace adafactor::bindings

#endif
