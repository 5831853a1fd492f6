// What reaches a terminal: no control characters of names and texts, no half characters.
#include "apps/console.h"

#include <gtest/gtest.h>

#include <sstream>
#include <string>
#include <thread>
#include <vector>

namespace atom::app {
namespace {

TEST(ConsoleTest, PrintableEscapesControlsAndWhatIsNoUtf8) {
  EXPECT_EQ(printable("caf\u00e9 \u4e2d"), "caf\u00e9 \u4e2d");
  EXPECT_EQ(printable("a\n\x1b[31m\x7f"), "a\\x0a\\x1b[31m\\x7f");
  EXPECT_EQ(printable("\u0080\u009b\u009f\u00a0"), "\\xc2\\x80\\xc2\\x9b\\xc2\\x9f\u00a0");
  EXPECT_EQ(printable("\x9b"
                      "31m\xc3"),
            "\\x9b31m\\xc3");
  EXPECT_EQ(printable(printable("\x1b")), printable("\x1b"));
}

TEST(ConsoleTest, PrintableLinesKeepsNewlinesAndTabsOnly) {
  EXPECT_EQ(printable_lines("a\tb\n\r\x1b]0;x\a"), "a\tb\n\\x0d\\x1b]0;x\\x07");
}

TEST(ConsoleTest, ClippedCutsBetweenCharacters) {
  EXPECT_EQ(clipped("\u00e9\u4e2d\U0001F600z", 0), "");
  EXPECT_EQ(clipped("\u00e9\u4e2d\U0001F600z", 2), "\u00e9\u4e2d");
  EXPECT_EQ(clipped("\u00e9\u4e2d\U0001F600z", 3), "\u00e9\u4e2d\U0001F600");
  EXPECT_EQ(clipped("\u00e9\u4e2d\U0001F600z", 9), "\u00e9\u4e2d\U0001F600z");
}

// The progress of a load and lines of the log come from different threads.
TEST(ConsoleTest, LinesOfThreadsStayWhole) {
  Console shared;
  shared.configure({.color = false});
  ::testing::internal::CaptureStderr();
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 3; ++t)
      threads.emplace_back([&shared, t] {
        for (int i = 0; i < 200; ++i) {
          if (t == 0) shared.progress("load " + std::to_string(i));
          if (t == 1) shared.notice("a notice of the first thread");
          if (t == 2) shared.warning("a warning of the second");
        }
        if (t == 0) shared.end_progress();
      });
  }
  std::istringstream lines(::testing::internal::GetCapturedStderr());
  int notices = 0, warnings = 0;
  for (std::string line; std::getline(lines, line);) {
    notices += line == "atom: a notice of the first thread";
    warnings += line == "atom: warning: a warning of the second";
  }
  EXPECT_EQ(notices, 200);
  EXPECT_EQ(warnings, 200);
}

}  // namespace
}  // namespace atom::app
