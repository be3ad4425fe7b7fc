// How the shared object is found and asked.
#include "library.hpp"

#if defined(__unix__) || defined(__APPLE__)
#include <dlfcn.h>
#endif

#include <cstdlib>
#include <filesystem>
#include <stdexcept>

#include "adafactor/compiler/abi.hpp"
#include "adafactor/host/fork.hpp"
#include "adafactor/step/leaf.hpp"

namespace adafactor::cuda {

namespace {

constexpr const char* kName = "libadafactor_cuda.so";
constexpr const char* kNotBuilt = "this build has no CUDA";

#if defined(__unix__) || defined(__APPLE__)

std::filesystem::path place() {
  if (const char* named = std::getenv("ADAFACTOR_CUDA_LIBRARY"); named && *named) return named;
  Dl_info here{};
  if (!dladdr(reinterpret_cast<const void*>(&library), &here) || !here.dli_fname) return kName;
  return std::filesystem::path(here.dli_fname).parent_path() / kName;
}

using Ask = const Functions* (*)();

// Its functions; null, and why, where it cannot be opened or is of another build.
const Functions* open(const std::filesystem::path& path, std::string& missing) {
  void* object = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  const auto ask = object ? reinterpret_cast<Ask>(dlsym(object, "adafactor_cuda_functions")) : nullptr;
  if (!ask) {
    missing = dlerror();
    return nullptr;
  }
  const Functions* found = ask();
  const bool fits = std::string(found->version) == ADAFACTOR_VERSION && found->view_nbytes == sizeof(View) &&
                    found->leaf_nbytes == sizeof(Leaf);
  if (!fits) missing = path.string() + " is of another build";
  return fits ? found : nullptr;
}

#else

std::filesystem::path place() { return kName; }

const Functions* open(const std::filesystem::path&, std::string& missing) {
  missing = kNotBuilt;
  return nullptr;
}

#endif

Library found() {
  Library result;
  const std::filesystem::path path = place();
  std::error_code ignored;
  result.is_built = std::filesystem::exists(path, ignored);
  if (!result.is_built) {
    result.missing = kNotBuilt;
    return result;
  }
  result.functions = open(path, result.missing);
  if (!result.functions) return result;
  result.functions->driver(&result.driver);
  const Failure failure = result.functions->count_devices(&result.devices);
  if (result.driver == 0) {
    result.missing = "no driver of NVIDIA is installed";
  } else if (failure.words) {
    result.missing = failure.words;
  } else if (result.devices == 0) {
    result.missing = "no GPU that CUDA can use";
  }
  return result;
}

int& opened_after() {
  static int forks = detail::forks();
  return forks;
}

}  // namespace

const Library& library() {
  static const Library the_library = (opened_after(), found());
  return the_library;
}

const Functions& functions() {
  const Library& opened = library();
  if (!opened.missing.empty()) throw std::runtime_error(opened.missing);
  if (opened_after() == detail::forks()) return *opened.functions;
  throw std::runtime_error(
      "CUDA: a GPU cannot be used in a process that was forked off from one that had used it; start it by \"spawn\"");
}

}  // namespace adafactor::cuda
