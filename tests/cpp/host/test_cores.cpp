// The cores that a process may use are those of its control groups, in both versions that Linux has, and in a
// container, where the folder of a group is not where its name says.
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "adafactor/host/cores.hpp"
#include "support/check.hpp"
#include "support/files.hpp"

namespace {

using check::Files;

// The cores of a process whose files these are.
int cores_of(const Files& files) { return check::with_files(files, adafactor::detail::cores_of_group); }

void nothing_limits_where_no_file_says_so() {
  CHECK_EQ(cores_of({}), 0);
  CHECK_EQ(cores_of({{"proc/self/cgroup", "0::/\n"}}), 0);
  CHECK_EQ(cores_of({{"proc/self/cgroup", "0::/a\n"}, {"sys/fs/cgroup/a/cpu.max", "max 100000\n"}}), 0);
  CHECK_EQ(cores_of({{"proc/self/cgroup", "no group\n:\n"}, {"sys/fs/cgroup/cpu.max", "200000 100000\n"}}), 0);
  CHECK_EQ(cores_of({{"proc/self/cgroup", "0::/\n"}, {"sys/fs/cgroup/cpu.max", "words\n"}}), 0);
}

void the_second_version_has_one_file_in_each_folder() {
  const std::pair<std::string, std::string> process{"proc/self/cgroup", "0::/user/job\n"};
  CHECK_EQ(cores_of({process, {"sys/fs/cgroup/user/job/cpu.max", "300000 100000\n"}}), 3);
  CHECK_EQ(cores_of({process, {"sys/fs/cgroup/user/job/cpu.max", "250000 100000\n"}}), 2);
  CHECK_EQ(cores_of({process, {"sys/fs/cgroup/user/job/cpu.max", "10000 100000\n"}}), 1);
  CHECK_EQ(cores_of({process, {"sys/fs/cgroup/cpu.max", "400000 100000\n"}}), 4);
  CHECK_EQ(cores_of({process,
                     {"sys/fs/cgroup/user/job/cpu.max", "max 100000\n"},
                     {"sys/fs/cgroup/user/cpu.max", "200000 100000\n"},
                     {"sys/fs/cgroup/cpu.max", "900000 100000\n"}}),
           2);
}

void the_first_version_has_two() {
  for (const std::string controllers : {"cpu", "cpu,cpuacct"}) {
    const std::string folder = "sys/fs/cgroup/" + controllers + "/job";
    const Files files{{"proc/self/cgroup", "5:memory:/other\n4:" + controllers + ":/job\n"},
                      {folder + "/cpu.cfs_quota_us", "200000\n"},
                      {folder + "/cpu.cfs_period_us", "50000\n"},
                      {"sys/fs/cgroup/" + controllers + "/cpu.cfs_quota_us", "-1\n"},
                      {"sys/fs/cgroup/" + controllers + "/cpu.cfs_period_us", "100000\n"}};
    CHECK_EQ(cores_of(files), 4);
  }
  // Accounts of time are no limit.
  CHECK_EQ(cores_of({{"proc/self/cgroup", "2:cpuacct:/\n"},
                     {"sys/fs/cgroup/cpuacct/cpu.cfs_quota_us", "100000\n"},
                     {"sys/fs/cgroup/cpuacct/cpu.cfs_period_us", "100000\n"}}),
           0);
}

void there_is_always_one() { CHECK(adafactor::detail::usable_cores() >= 1); }

}  // namespace

int main() {
  nothing_limits_where_no_file_says_so();
  the_second_version_has_one_file_in_each_folder();
  the_first_version_has_two();
  there_is_always_one();
  return check::report();
}
