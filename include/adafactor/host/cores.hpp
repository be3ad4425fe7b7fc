// How many cores a process has time for: fewer than the machine's where it may run on some of them only, or where its
// control group, a container's for instance, is allowed less.
#pragma once

#include <string>

#include "adafactor/compiler/abi.hpp"
#include "adafactor/host/files.hpp"

namespace adafactor { inline namespace ADAFACTOR_ABI { namespace detail {

// The cores that the process may run on, and whose time its control group may use; at least 1.
ADAFACTOR_FUNCTION int usable_cores();

// Those whose time the control groups of a process may use, whole ones; 0 where nothing limits them. Linux says so in
// files, which lie under `root`: "" for those of this process.
ADAFACTOR_FUNCTION int cores_of_group(const std::string& root);

}}}  // namespace adafactor::ADAFACTOR_ABI::detail

#if ADAFACTOR_DEFINES_THREADS

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <utility>

#if defined(__linux__)
#include <sched.h>
#endif

namespace adafactor { inline namespace ADAFACTOR_ABI { namespace detail {

// What OMP_NUM_THREADS said when it was first asked; 0 where it is no number.
inline int asked_threads() {
  static const char* const words = std::getenv("OMP_NUM_THREADS");
  static const int number = words ? std::atoi(words) : 0;
  return (std::max)(0, number);
}

// The cores that the group of a folder may use, of a quota of time in a period: the second version of control groups
// has both in one file, the first in two. 0 where there is no quota, as the words `max` and -1 say.
ADAFACTOR_RARE inline int cores_of_folder(const std::string& folder) {
  std::string both = text_of(folder + "/cpu.max");
  if (both.empty()) {
    both = text_of(folder + "/cpu.cfs_quota_us").append(" ").append(text_of(folder + "/cpu.cfs_period_us"));
  }
  char* rest = nullptr;
  const double quota = std::strtod(both.c_str(), &rest);
  const double period = std::strtod(rest, nullptr);
  return quota > 0 && period > 0 ? (std::max)(1, static_cast<int>((std::min)(quota / period, 1e6))) : 0;
}

// The smaller of two numbers of cores, of which 0 stands for no limit.
inline int stricter(int limit, int other) { return limit > 0 && (other == 0 || limit < other) ? limit : other; }

// A group may use no more than those that it is in. Where its own folder is hidden, as in a container, theirs remain.
ADAFACTOR_RARE inline int cores_of_path(std::string folder, const char* group) {
  const std::size_t root = folder.size();
  int least = 0;
  for (folder.append(group);; folder.resize(folder.rfind('/'))) {
    least = stricter(least, cores_of_folder(folder));
    if (folder.find('/', root) == folder.npos) return least;
  }
}

// Whether one of the controllers, with commas between them, is that of time; in the second version they have no names.
inline bool has_time(const char* controllers) {
  if (*controllers == '\0') return true;
  for (const char* word = controllers; word; word = std::strchr(word, ',')) {
    word += *word == ',';
    if (std::strncmp(word, "cpu", 3) == 0 && (word[3] == ',' || word[3] == '\0')) return true;
  }
  return false;
}

ADAFACTOR_RARE ADAFACTOR_FUNCTION int cores_of_group(const std::string& root) {
  int least = 0;
  std::string groups = text_of(root + "/proc/self/cgroup");  // lines of number:controllers:group
  char* end = nullptr;
  for (char* line = groups.data(); (end = std::strchr(line, '\n')); line = end + 1) {
    *end = '\0';
    char* const controllers = std::strchr(line, ':');
    char* const group = controllers ? std::strchr(controllers + 1, ':') : nullptr;
    if (!group) continue;
    *group = '\0';
    if (!has_time(controllers + 1)) continue;
    std::string tree = root + "/sys/fs/cgroup";
    if (controllers[1] != '\0') tree.append("/").append(controllers + 1);
    least = stricter(least, cores_of_path(std::move(tree), group + 1));
  }
  return least;
}

ADAFACTOR_FUNCTION int usable_cores() {
  static const int of_machine = static_cast<int>(std::thread::hardware_concurrency());
  static const int of_group = cores_of_group("");
  int cores = of_machine;
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) cores = CPU_COUNT(&set);
#endif
  return (std::max)(1, of_group > 0 ? (std::min)(cores, of_group) : cores);
}

}}}  // namespace adafactor::ADAFACTOR_ABI::detail

#endif  // ADAFACTOR_DEFINES_THREADS
