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
#include <thread>

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

// The cores that a quota of time in a period is worth; 0 where there is none, as the words `max` and -1 say.
inline int cores_of_quota(const std::string& quota, const std::string& period) {
  const double used = std::strtod(quota.c_str(), nullptr);
  const double whole = std::strtod(period.c_str(), nullptr);
  return used > 0 && whole > 0 ? (std::max)(1, static_cast<int>((std::min)(used / whole, 1e6))) : 0;
}

// What the group of a folder may use: the second version of control groups has one file, the first has two.
inline int cores_of_folder(const std::string& folder) {
  const std::string both = text_of(folder + "/cpu.max");
  if (const std::size_t space = both.find(' '); space != both.npos) {
    return cores_of_quota(both.substr(0, space), both.substr(space));
  }
  return cores_of_quota(text_of(folder + "/cpu.cfs_quota_us"), text_of(folder + "/cpu.cfs_period_us"));
}

// A group may use no more than those that it is in. Where its own folder is hidden, as in a container, theirs remain.
inline int cores_of_path(const std::string& tree, std::string group) {
  int least = 0;
  for (;;) {
    const int found = cores_of_folder(tree + group);
    if (found > 0) least = least > 0 ? (std::min)(least, found) : found;
    const std::size_t end = group.rfind('/');
    if (end == group.npos) return least;
    group.resize(end);
  }
}

ADAFACTOR_FUNCTION int cores_of_group(const std::string& root) {
  int least = 0;
  const std::string groups = text_of(root + "/proc/self/cgroup");
  for (std::size_t begin = 0, end = 0; (end = groups.find('\n', begin)) != groups.npos; begin = end + 1) {
    const std::string line = groups.substr(begin, end - begin);  // number:controllers:group
    const std::size_t first = line.find(':');
    const std::size_t second = line.find(':', first + 1);
    if (first == line.npos || second == line.npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const bool has_time = controllers.empty() || ("," + controllers + ",").find(",cpu,") != controllers.npos;
    if (!has_time) continue;
    const std::string tree = root + "/sys/fs/cgroup" + (controllers.empty() ? "" : "/" + controllers);
    const int found = cores_of_path(tree, line.substr(second + 1));
    if (found > 0) least = least > 0 ? (std::min)(least, found) : found;
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
