// CPU sets and CPU quotas of this process, for the executor.
//
//   const std::vector<int> cpus = allowed_cpus();
//   const PinnedThread pinned(cpus, worker);   // the calling thread, until the end of the scope
#pragma once

#include <filesystem>
#include <optional>
#include <string_view>
#include <vector>

namespace atom {

// Numbers of the CPUs in the affinity mask of the calling thread, ascending; empty when unknown.
std::vector<int> allowed_cpus();

// Restricts the calling thread to cpus[index % cpus.size()], or to all of `cpus` for index -1. A
// kernel that refuses is ignored: pinning is a wish.
void pin_this_thread(const std::vector<int>& cpus, int index);

// Pins the calling thread and gives it all of `cpus` back at the end. An empty list does nothing.
class PinnedThread {
 public:
  PinnedThread(const std::vector<int>& cpus, int index) : cpus_(cpus) {
    if (!cpus_.empty()) pin_this_thread(cpus_, index);
  }
  ~PinnedThread() {
    if (!cpus_.empty()) pin_this_thread(cpus_, -1);
  }
  PinnedThread(const PinnedThread&) = delete;
  PinnedThread& operator=(const PinnedThread&) = delete;

 private:
  const std::vector<int>& cpus_;
};

// CPU quota in whole CPUs (rounded up, at least 1) that the control groups set, or none. `mount` is
// the cgroup file system, `membership` the text of /proc/self/cgroup. Version 2 (cpu.max) and
// version 1 (cpu.cfs_quota_us) are read from the own group up to the root; the smallest wins. Files
// that are absent or malformed set no quota.
std::optional<int> cgroup_cpu_quota(const std::filesystem::path& mount,
                                    std::string_view membership);

}  // namespace atom
