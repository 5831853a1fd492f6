// The list of mapped files that a handler of SIGBUS looks into.
#include "base/mapped_ranges.h"

#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/file.h"
#include "testing/temp_folder.h"

namespace atom {
namespace {

std::string file_of(const std::byte* address) {
  const char* path = mapped_file_at(address);
  return path == nullptr ? "none" : path;
}

TEST(MappedRanges, KnowTheFileOfEachByteAndNoOther) {
  const std::vector<std::byte> memory(300);
  const std::byte* data = memory.data();
  const MappedRange one(data, 100, "one"), two(data + 100, 50, "two");
  EXPECT_EQ(file_of(data), "one");
  EXPECT_EQ(file_of(data + 99), "one");
  EXPECT_EQ(file_of(data + 100), "two");
  EXPECT_EQ(file_of(data + 149), "two");
  EXPECT_EQ(file_of(data + 150), "none");
  EXPECT_EQ(file_of(data + 299), "none");
  EXPECT_EQ(file_of(nullptr), "none");
}

TEST(MappedRanges, AreKnownAsLongAsTheyLive) {
  const std::vector<std::byte> memory(200);
  const std::byte* data = memory.data();
  MappedRange last;
  {
    MappedRange first(data, 100, "first");
    MappedRange second(data + 100, 100, "second");
    MappedRange moved(std::move(first));
    EXPECT_EQ(file_of(data), "first");
    last = std::move(second);
    EXPECT_EQ(file_of(data + 100), "second");
  }
  EXPECT_EQ(file_of(data), "none");
  EXPECT_EQ(file_of(data + 100), "second");
  last = {};
  EXPECT_EQ(file_of(data + 100), "none");
}

TEST(MappedRanges, ThoseWithoutAPlaceAreNotKnownAndDoNoHarm) {
  const std::vector<std::byte> memory(kMostMappedRanges + 2);
  std::vector<MappedRange> ranges;
  for (size_t i = 0; i < memory.size(); ++i) ranges.emplace_back(&memory[i], 1, std::to_string(i));
  EXPECT_EQ(file_of(&memory[0]), "0");
  EXPECT_EQ(file_of(&memory[memory.size() - 1]), "none");
  ranges.clear();
  EXPECT_EQ(file_of(&memory[0]), "none");
  const MappedRange again(&memory[0], 1, "again");
  EXPECT_EQ(file_of(&memory[0]), "again");
}

TEST(MappedRanges, FilesAreOnTheList) {
  const testing::TempFolder folder;
  write_file_atomically(folder / "a", "some bytes");
  const std::byte* data = nullptr;
  {
    MappedFile first(folder / "a");
    data = first.bytes().data();
    MappedFile file(std::move(first));
    EXPECT_EQ(file_of(data), (folder / "a").string());
    EXPECT_EQ(file_of(data + 10), "none");
  }
  EXPECT_EQ(file_of(data), "none");
}

// Each thread finds its own ranges while the others put theirs on the list and take them off.
TEST(MappedRanges, ThreadsDoNotDisturbEachOther) {
  constexpr int kThreads = 4;
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t)
    threads.emplace_back([t, &wrong] {
      const std::vector<std::byte> memory(64);
      const std::string name = "of thread " + std::to_string(t);
      for (int i = 0; i < 200; ++i) {
        const MappedRange range(memory.data(), memory.size(), name);
        if (file_of(&memory[63]) != name) ++wrong;
      }
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

}  // namespace
}  // namespace atom
