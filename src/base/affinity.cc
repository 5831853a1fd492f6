#include "base/affinity.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <string>
#include <thread>

#include "base/error.h"
#include "base/executor.h"
#include "base/file.h"

namespace atom {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxControlFileBytes = 64 * 1024;

std::string read_control_file(const fs::path& path) {
  try {
    return read_file(path, kMaxControlFileBytes);
  } catch (const Error&) {
    return {};
  }
}

// The decimal integer at the front of `text`, which loses it and the blanks before it.
std::optional<int64_t> take_integer(std::string_view& text) {
  text.remove_prefix(std::min(text.find_first_not_of(" \t\n"), text.size()));
  int64_t value = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (code != std::errc()) return std::nullopt;
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  return value;
}

std::optional<int> whole_cpus(std::optional<int64_t> quota, std::optional<int64_t> period) {
  if (!quota || !period || *quota <= 0 || *period <= 0) return std::nullopt;
  const int64_t cpus = *quota / *period + (*quota % *period != 0);
  return static_cast<int>(std::clamp<int64_t>(cpus, 1, 1 << 20));
}

std::optional<int> smaller(std::optional<int> a, std::optional<int> b) {
  if (!a || !b) return a ? a : b;
  return std::min(*a, *b);
}

// "max 100000" or "150000 100000" (microseconds of quota and period).
std::optional<int> quota_version_2(const fs::path& group) {
  const std::string text = read_control_file(group / "cpu.max");
  std::string_view rest = text;
  const auto quota = take_integer(rest);
  return whole_cpus(quota, take_integer(rest));
}

std::optional<int> quota_version_1(const fs::path& group) {
  const std::string quota_text = read_control_file(group / "cpu.cfs_quota_us");
  const std::string period_text = read_control_file(group / "cpu.cfs_period_us");
  std::string_view quota = quota_text, period = period_text;
  return whole_cpus(take_integer(quota), take_integer(period));
}

template <typename Quota>
std::optional<int> smallest_up_to_root(const fs::path& root, fs::path group, const Quota& quota) {
  std::optional<int> result = quota(root);
  group = group.relative_path();
  while (!group.empty()) {
    result = smaller(result, quota(root / group));
    group = group.parent_path();
  }
  return result;
}

bool lists_cpu_controller(std::string_view controllers) {
  return fmt::format(",{},", controllers).find(",cpu,") != std::string::npos;
}

}  // namespace

std::vector<int> allowed_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::pthread_getaffinity_np(::pthread_self(), sizeof set, &set) != 0) return {};
  std::vector<int> cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
    if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
  return cpus;
}

void pin_this_thread(const std::vector<int>& cpus, int index) {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (index >= 0) {
    CPU_SET(cpus[static_cast<size_t>(index) % cpus.size()], &set);
  } else {
    for (const int cpu : cpus) CPU_SET(cpu, &set);
  }
  ::pthread_setaffinity_np(::pthread_self(), sizeof set, &set);
}

std::optional<int> cgroup_cpu_quota(const fs::path& mount, std::string_view membership) {
  std::optional<int> result;
  // One line per hierarchy, "number:controllers:group"; number 0 without controllers is version 2.
  while (!membership.empty()) {
    const size_t end = std::min(membership.find('\n'), membership.size());
    const std::string_view line = membership.substr(0, end);
    membership.remove_prefix(std::min(end + 1, membership.size()));
    const size_t first = line.find(':');
    const size_t second = line.find(':', first == std::string_view::npos ? first : first + 1);
    if (second == std::string_view::npos) continue;
    const std::string_view controllers = line.substr(first + 1, second - first - 1);
    const fs::path group = line.substr(second + 1);
    if (controllers.empty()) {
      result = smaller(result, smallest_up_to_root(mount, group, quota_version_2));
    } else if (lists_cpu_controller(controllers)) {
      for (const fs::path& root : {mount / "cpu", mount / controllers})
        result = smaller(result, smallest_up_to_root(root, group, quota_version_1));
    }
  }
  return result;
}

int available_cpus() {
  int cpus = static_cast<int>(allowed_cpus().size());
  if (cpus == 0) cpus = static_cast<int>(std::thread::hardware_concurrency());
  const auto quota = cgroup_cpu_quota("/sys/fs/cgroup", read_control_file("/proc/self/cgroup"));
  if (quota) cpus = std::min(cpus, *quota);
  return std::max(cpus, 1);
}

}  // namespace atom
