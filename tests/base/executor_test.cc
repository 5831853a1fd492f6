#include "base/executor.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "base/affinity.h"
#include "base/error.h"
#include "base/file.h"
#include "testing/temp_folder.h"

namespace atom {
namespace {

class ExecutorTest : public ::testing::TestWithParam<int> {};

TEST_P(ExecutorTest, RunsEveryIterationOnceWithAWorkerInRange) {
  Executor pool({.threads = GetParam()});
  EXPECT_EQ(pool.threads(), GetParam());
  for (const int64_t count : {0, 1, 2, 7, 1000}) {
    std::vector<std::atomic<int>> runs(static_cast<size_t>(count));
    std::atomic<bool> bad_worker = false;
    pool.parallel_for(count, [&](int64_t i, int worker) {
      ++runs[static_cast<size_t>(i)];
      if (worker < 0 || worker >= pool.threads()) bad_worker = true;
    });
    for (const auto& run : runs) EXPECT_EQ(run, 1);
    EXPECT_FALSE(bad_worker);
  }
}

TEST_P(ExecutorTest, AWorkerIdIsHeldByOneThreadAtATime) {
  Executor pool({.threads = GetParam()});
  std::vector<std::atomic<int>> holders(static_cast<size_t>(GetParam()));
  std::vector<int64_t> scratch(static_cast<size_t>(GetParam()));  // plain: a race shows in TSan
  std::atomic<bool> shared = false;
  for (int repeat = 0; repeat < 20; ++repeat)
    pool.parallel_for(200, [&](int64_t i, int worker) {
      const auto slot = static_cast<size_t>(worker);
      if (holders[slot].fetch_add(1) != 0) shared = true;
      scratch[slot] += i;
      holders[slot].fetch_sub(1);
    });
  EXPECT_FALSE(shared);
  int64_t sum = 0;
  for (const int64_t part : scratch) sum += part;
  EXPECT_EQ(sum, 20 * (199 * 200 / 2));
}

TEST_P(ExecutorTest, RethrowsAndStaysUsable) {
  Executor pool({.threads = GetParam()});
  std::atomic<int> inside = 0;
  try {
    pool.parallel_for(100, [&](int64_t i, int) {
      ++inside;
      if (i == 50) {
        --inside;
        throw Error("iteration 50");
      }
      --inside;
    });
    FAIL() << "no exception";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "iteration 50");
  }
  EXPECT_EQ(inside, 0);  // the loop ended before the exception came out
  std::atomic<int> runs = 0;
  pool.parallel_for(100, [&](int64_t, int) { ++runs; });
  EXPECT_EQ(runs, 100);
}

TEST_P(ExecutorTest, RefusesNestedLoops) {
  Executor pool({.threads = GetParam()});
  EXPECT_THROW(
      pool.parallel_for(4, [&](int64_t, int) { pool.parallel_for(2, [](int64_t, int) {}); }),
      InvariantError);
  EXPECT_NO_THROW(pool.parallel_for(4, [](int64_t, int) {}));
}

TEST_P(ExecutorTest, TakesLoopsFromSeveralThreads) {
  Executor pool({.threads = GetParam()});
  std::atomic<int> runs = 0;
  {
    std::vector<std::jthread> callers;
    for (int caller = 0; caller < 4; ++caller)
      callers.emplace_back([&] {
        for (int repeat = 0; repeat < 10; ++repeat)
          pool.parallel_for(50, [&](int64_t, int) { ++runs; });
      });
  }
  EXPECT_EQ(runs, 4 * 10 * 50);
}

TEST_P(ExecutorTest, PinsWorkersAndGivesTheCallerItsMaskBack) {
  const std::vector<int> before = allowed_cpus();
  {
    Executor pool({.threads = GetParam(), .pin = true});
    std::atomic<bool> wide = false;
    pool.parallel_for(100, [&](int64_t, int) {
      // A single thread runs the loop in the caller, which is not worth pinning.
      if (pool.threads() > 1 && allowed_cpus().size() != 1) wide = true;
    });
    EXPECT_FALSE(wide);
  }
  EXPECT_EQ(allowed_cpus(), before);
}

INSTANTIATE_TEST_SUITE_P(Threads, ExecutorTest, ::testing::Values(1, 2, 5));

TEST(Executor, UsesSeveralThreads) {
  Executor pool({.threads = 2});
  // The first iteration waits for the second, which only another thread can run.
  std::atomic<int> entered = 0;
  pool.parallel_for(2, [&](int64_t, int) {
    ++entered;
    while (entered < 2) std::this_thread::yield();
  });
  EXPECT_EQ(entered, 2);
}

TEST(Executor, DefaultTakesTheAvailableCpus) {
  EXPECT_GE(available_cpus(), 1);
  EXPECT_EQ(Executor({}).threads(), available_cpus());
}

// Writes one control file below `root`, with its folders.
void put(const std::filesystem::path& path, std::string_view text) {
  std::filesystem::create_directories(path.parent_path());
  write_file_atomically(path, text);
}

TEST(CgroupQuota, ReadsVersion2RoundedUpAndTheSmallestOfTheAncestors) {
  const testing::TempFolder mount;
  EXPECT_EQ(cgroup_cpu_quota(mount.path(), "0::/a/b\n"), std::nullopt);
  put(mount / "a/b/cpu.max", "max 100000\n");
  EXPECT_EQ(cgroup_cpu_quota(mount.path(), "0::/a/b\n"), std::nullopt);
  put(mount / "a/cpu.max", "250000 100000\n");
  EXPECT_EQ(cgroup_cpu_quota(mount.path(), "0::/a/b\n"), 3);
  put(mount / "cpu.max", "50000 100000\n");
  EXPECT_EQ(cgroup_cpu_quota(mount.path(), "0::/a/b\n"), 1);
}

TEST(CgroupQuota, ReadsVersion1) {
  const testing::TempFolder mount;
  put(mount / "cpu/g/cpu.cfs_quota_us", "-1\n");
  put(mount / "cpu/g/cpu.cfs_period_us", "100000\n");
  const std::string_view membership = "5:memory:/g\n4:cpuacct,cpu:/g\n";
  EXPECT_EQ(cgroup_cpu_quota(mount.path(), membership), std::nullopt);
  put(mount / "cpuacct,cpu/g/cpu.cfs_quota_us", "400000\n");
  put(mount / "cpuacct,cpu/g/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(cgroup_cpu_quota(mount.path(), membership), 4);
}

TEST(CgroupQuota, IgnoresMalformedText) {
  const testing::TempFolder mount;
  put(mount / "cpu.max", "lots of cpus");
  for (const char* membership : {"", "\n\n", "0", "0:", "0::", "0::/", ":::::", "0::/../.."})
    EXPECT_EQ(cgroup_cpu_quota(mount.path(), membership), std::nullopt) << membership;
  put(mount / "cpu.max", "100000 0");
  EXPECT_EQ(cgroup_cpu_quota(mount.path(), "0::/"), std::nullopt);
}

}  // namespace
}  // namespace atom
