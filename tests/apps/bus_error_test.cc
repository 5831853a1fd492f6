// Files that another process cuts while the program has them mapped.
#include "apps/bus_error.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include "apps/model_copy.h"
#include "apps/run_program.h"
#include "base/file.h"
#include "testing/sanitized.h"
#include "testing/temp_folder.h"

namespace atom::testing {
namespace {

constexpr size_t kPages = 4 * 4096;

// The program's handler over that of the kernel: a sanitizer's would speak as well.
void take_over() {
  const rlimit none = {0, 0};
  ::setrlimit(RLIMIT_CORE, &none);
  ::signal(SIGBUS, SIG_DFL);
  app::end_at_cut_files();
}

// Maps `path`, cuts the file to `left` bytes, and reads the byte at `at`. In a process of its own.
void read_after_cut(const std::filesystem::path& path, size_t left, size_t at) {
  take_over();
  const MappedFile file(path);
  std::filesystem::resize_file(path, left);
  volatile std::byte byte = file.bytes()[at];
  ::_exit(byte == std::byte{'x'} ? 0 : 4);
}

class BusErrorTest : public ::testing::Test {
 protected:
  void SetUp() override {
    GTEST_FLAG_SET(death_test_style, "threadsafe");
    write_text(path_, std::string(kPages, 'x'));
  }
  TempFolder folder_;
  std::filesystem::path path_ = folder_ / "model.safetensors";
};

TEST_F(BusErrorTest, ACutFileIsNamedInOneLine) {
  EXPECT_EXIT(read_after_cut(path_, 4096, 2 * 4096), ::testing::ExitedWithCode(1),
              "^atom: error: [^\n]*/model.safetensors: the file was cut while it was "
              "read[^\n]*\n$");
}

TEST_F(BusErrorTest, WhatIsLeftOfACutFileIsRead) {
  EXPECT_EXIT(read_after_cut(path_, 2 * 4096, 4096), ::testing::ExitedWithCode(0), "^$");
}

TEST_F(BusErrorTest, NamesStayOnOneLine) {
  std::filesystem::rename(path_, folder_ / "a\n\x1b[2Jb");
  EXPECT_EXIT(read_after_cut(folder_ / "a\n\x1b[2Jb", 0, 0), ::testing::ExitedWithCode(1),
              "/a\\?\\?\\[2Jb: the file was cut");
}

// Memory that is no file's of ours faults as it would without the handler.
TEST_F(BusErrorTest, OtherFaultsAreStillSignals) {
  const auto fault = [this](bool unmapped_before) {
    take_over();
    if (unmapped_before) const MappedFile once(path_);
    const int fd = ::open(path_.c_str(), O_RDONLY);
    const auto* data =
        static_cast<const volatile char*>(::mmap(nullptr, kPages, PROT_READ, MAP_PRIVATE, fd, 0));
    std::filesystem::resize_file(path_, 0);
    ::_exit(data[0]);
  };
  EXPECT_EXIT(fault(false), ::testing::KilledBySignal(SIGBUS), "^$");
  write_text(path_, std::string(kPages, 'x'));
  EXPECT_EXIT(fault(true), ::testing::KilledBySignal(SIGBUS), "^$");
}

TEST_F(BusErrorTest, SignalsThatAreSentAreStillSignals) {
  const auto send = [this] {
    take_over();
    const MappedFile file(path_);
    ::kill(::getpid(), SIGBUS);
    ::_exit(0);
  };
  EXPECT_EXIT(send(), ::testing::KilledBySignal(SIGBUS), "^$");
}

// The weights are read layer by layer: what the first progress line leaves to do is gone.
TEST_F(BusErrorTest, ACutShardEndsAQuantizationThatCanBeResumed) {
  if (kSanitized) GTEST_SKIP() << "quantizes twice: minutes there, and the handler is tested above";
  const ModelCopy model(folder_ / "model", shipped_model());
  const std::filesystem::path shard = model / "model.safetensors";
  const std::string bytes = read_file(shard);
  model.replace("model.safetensors", bytes);
  const auto written = std::filesystem::last_write_time(shard);
  const std::string out = (folder_ / "out").string();
  const std::vector<std::string> arguments = {
      "quantize", model.path(), out, "--samples", "2", "--sequence", "64", "--threads", "1"};
  const Result cut = run_program(
      Invocation{.arguments = arguments, .interrupt_after = "elapsed", .interrupt = [&](pid_t) {
                   std::filesystem::resize_file(shard, 4096);
                 }});
  EXPECT_EQ(cut.code, 1) << cut.err;
  EXPECT_NE(cut.err.find("atom: error: " + shard.string() + ": the file was cut"),
            std::string::npos)
      << cut.err;
  EXPECT_FALSE(std::filesystem::exists(out));

  model.replace("model.safetensors", bytes);
  std::filesystem::last_write_time(shard, written);  // a journal knows its source by it
  std::vector<std::string> again = arguments;
  again.push_back("--resume");
  const Result resumed = run_program(Invocation{.arguments = again});
  EXPECT_EQ(resumed.code, 0) << resumed.err;
  EXPECT_EQ(run_program({"verify", out}).code, 0);
}

}  // namespace
}  // namespace atom::testing
