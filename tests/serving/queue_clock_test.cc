// The time that a new request waits, from those that end.
#include "serving/queue_clock.h"

#include <gtest/gtest.h>

namespace atom::serving {
namespace {

TEST(QueueClockTest, CountsEndsWhileOthersWait) {
  QueueClock clock;
  clock.waiting(0, 100);
  EXPECT_EQ(clock.seconds(100, 50), 0);  // nobody waits, whatever is assumed
  clock.waiting(10, 100);
  EXPECT_EQ(clock.seconds(100, 3), 30);  // nothing has ended yet
  EXPECT_EQ(clock.seconds(107, 3), 70);  // it already takes longer
  for (int i = 1; i <= 20; ++i) {
    clock.ended(107 + 0.5 * i);
    clock.waiting(10, 107 + 0.5 * i);
  }
  EXPECT_DOUBLE_EQ(clock.seconds(117, 3), 10 * 17.0 / 20);
  // Of a slower server's beginning nothing is left.
  for (int i = 1; i <= 64; ++i) clock.ended(117 + 0.25 * i);
  clock.waiting(8, 133);
  EXPECT_DOUBLE_EQ(clock.seconds(133, 3), 8 * 0.25);
  EXPECT_DOUBLE_EQ(clock.seconds(133 + 64, 3), 8 * 1.25);  // and when nothing ends, it shows
  clock.waiting(0, 200);
  clock.waiting(1, 201);
  EXPECT_EQ(clock.seconds(202, 0), 2);
}

}  // namespace
}  // namespace atom::serving
