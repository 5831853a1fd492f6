// What a signal leaves of a quantization: at most the journal from which it is resumed.
#include <gtest/gtest.h>

#include "apps/model_copy.h"
#include "apps/run_program.h"
#include "testing/temp_folder.h"

namespace atom::testing {
namespace {

void expect_journal_at_most(const TempFolder& folder) {
  for (const std::string& name : folder.names()) EXPECT_EQ(name, ".out.journal");
}

TEST(InterruptTest, TerminatedAndHungUpQuantizationsLeaveNoOutput) {
  for (const int signal : {SIGTERM, SIGHUP}) {
    const TempFolder folder;
    const Result result = run_program(
        Invocation{.arguments = {"quantize", shipped_model().string(), (folder / "out").string(),
                                 "--samples", "64", "--sequence", "512"},
                   .interrupt_after = "elapsed",
                   .signal = signal});
    EXPECT_EQ(result.code, 128 + signal) << result.err;
    EXPECT_NE(result.err.find("interrupted"), std::string::npos);  // by itself, not by the kernel
    expect_journal_at_most(folder);
  }
}

TEST(InterruptTest, InterruptedQuantizationLeavesNoOutput) {
  const TempFolder folder;
  const Result result = run_program(
      Invocation{.arguments = {"quantize", shipped_model().string(), (folder / "out").string(),
                               "--samples", "64", "--sequence", "512"},
                 .interrupt_after = "elapsed"});
  EXPECT_EQ(result.code, 130) << result.err;
  expect_journal_at_most(folder);
  // Progress that is no terminal's: whole lines without escapes.
  for (const char* part : {"layer ", "/6", "elapsed", "MiB"})
    EXPECT_NE(result.err.find(part), std::string::npos) << part << "\n" << result.err;
  EXPECT_EQ(result.err.find_first_of("\x1b\r"), std::string::npos);
}

}  // namespace
}  // namespace atom::testing
