// Large pieces of work leave a thread to the others; what waits is bounded.
#include "serving/work_threads.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <future>
#include <vector>

namespace atom::serving {
namespace {

constexpr size_t kLarge = 100;

TEST(WorkThreadsTest, LargePiecesLeaveAThreadToOthers) {
  std::promise<void> gate;
  const std::shared_future<void> open = gate.get_future().share();
  std::atomic<int> large = 0, most = 0, ended = 0;
  std::promise<void> all;
  const auto work = [&] {
    most = std::max(most.load(), ++large);
    open.wait();
    --large;
    if (++ended == 6) all.set_value();
  };
  WorkThreads threads(3, 10000, kLarge);
  for (int i = 0; i < 6; ++i) ASSERT_TRUE(threads.post(kLarge, work));
  for (int i = 0; i < 20; ++i) {  // each is done while large ones run and wait
    std::promise<void> done;
    ASSERT_TRUE(threads.post(kLarge - 1, [&done] { done.set_value(); }));
    ASSERT_EQ(done.get_future().wait_for(std::chrono::seconds(60)), std::future_status::ready);
  }
  EXPECT_EQ(ended, 0);
  gate.set_value();
  ASSERT_EQ(all.get_future().wait_for(std::chrono::seconds(60)), std::future_status::ready);
  EXPECT_EQ(most, 2);
}

TEST(WorkThreadsTest, OneThreadDoesAllInTheirOrder) {
  std::vector<int> order;
  std::promise<void> done;
  {
    std::promise<void> gate;
    WorkThreads threads(1, 10000, kLarge);
    threads.post(1, [&gate] { gate.get_future().wait(); });
    for (int i = 0; i < 8; ++i)
      threads.post(i % 3 == 0 ? kLarge : 1, [&order, i] { order.push_back(i); });
    threads.post(kLarge, [&done] { done.set_value(); });
    gate.set_value();
    ASSERT_EQ(done.get_future().wait_for(std::chrono::seconds(60)), std::future_status::ready);
  }
  EXPECT_EQ(order, (std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7}));
}

TEST(WorkThreadsTest, BoundsWhatWaits) {
  std::promise<void> gate;
  WorkThreads threads(1, 100, kLarge);
  EXPECT_TRUE(threads.post(1000, [&gate] { gate.get_future().wait(); }));  // alone any size
  EXPECT_FALSE(threads.post(1, [] {}));
  gate.set_value();
}

}  // namespace
}  // namespace atom::serving
