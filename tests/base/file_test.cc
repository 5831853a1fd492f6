#include "base/file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>

#include "base/sha256.h"
#include "testing/expect_error.h"
#include "testing/file_size_limit.h"
#include "testing/temp_folder.h"

namespace atom {
namespace {

using testing::expect_error;
using testing::TempFolder;

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

TEST(File, RoundTripWithBlanksAndNonAsciiInThePath) {
  const TempFolder folder;
  std::filesystem::create_directory(folder / "gew\xc3\xb6hnlich \xe6\xa8\xa1");
  const auto path = folder / "gew\xc3\xb6hnlich \xe6\xa8\xa1/a file.bin";
  write_file_atomically(path, "some text");
  EXPECT_EQ(read_file(path), "some text");
  const MappedFile map(path);
  EXPECT_EQ(std::memcmp(map.bytes().data(), "some text", map.bytes().size()), 0);
}

TEST(ReadFile, RefusesMissingFoldersPipesAndLargeFiles) {
  const TempFolder folder;
  expect_error([&] { read_file(folder / "absent"); }, {"absent", "No such file"});
  expect_error([&] { read_file(folder.path()); }, {"not a regular file", "directory"});
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  expect_error([&] { read_file(folder / "pipe"); }, {"pipe", "not a regular file"});
  write_file_atomically(folder / "ten", "0123456789");
  EXPECT_EQ(read_file(folder / "ten", 10).size(), 10u);
  expect_error([&] { read_file(folder / "ten", 9); }, {"ten", "10 bytes exceed", "9 bytes"});
}

TEST(ReadFile, ReadsKernelFilesOfSizeZero) {
  EXPECT_NE(read_file("/proc/self/status").find("Pid:"), std::string::npos);
}

TEST(MappedFile, EmptyFileAndErrors) {
  const TempFolder folder;
  write_file_atomically(folder / "empty", "");
  EXPECT_EQ(MappedFile(folder / "empty").bytes().size(), 0u);
  expect_error([&] { MappedFile map(folder / "absent"); }, {"absent", "No such file"});
  expect_error([&] { MappedFile map(folder.path()); }, {"not a regular file"});
}

TEST(MappedFile, MovesAndKeepsBytesAfterRelease) {
  const TempFolder folder;
  const std::string text(100'000, 'x');
  write_file_atomically(folder / "f", text + "end");
  MappedFile first(folder / "f");
  MappedFile map = std::move(first);
  EXPECT_EQ(first.bytes().size(), 0u);
  map.release(1, 99'999);
  EXPECT_EQ(std::memcmp(map.bytes().data(), (text + "end").data(), text.size() + 3), 0);
  EXPECT_THROW(map.release(100'000, 4), InvariantError);
}

TEST(AtomicFile, AppearsOnlyAtCommit) {
  const TempFolder folder;
  const auto path = folder / "out.bin";
  write_file_atomically(path, "old");
  {
    AtomicFile file(path);
    file.write(bytes_of("new and longer"));
    EXPECT_EQ(read_file(path), "old");
    EXPECT_EQ(folder.names().size(), 2u);
    file.commit();
    EXPECT_EQ(file.size(), 14u);
    EXPECT_EQ(file.sha256(), sha256_hex(bytes_of("new and longer")));
  }
  EXPECT_EQ(read_file(path), "new and longer");
  EXPECT_EQ(folder.names(), std::vector<std::string>{"out.bin"});
}

TEST(AtomicFile, WithoutCommitNothingRemains) {
  const TempFolder folder;
  {
    AtomicFile file(folder / "out.bin");
    file.write(bytes_of("half"));
  }
  EXPECT_TRUE(folder.names().empty());
}

TEST(AtomicFile, TwoWritersOfOneNameDoNotMix) {
  const TempFolder folder;
  AtomicFile a(folder / "f"), b(folder / "f");
  a.write(bytes_of("aaaa"));
  b.write(bytes_of("bb"));
  a.commit();
  b.commit();
  EXPECT_EQ(read_file(folder / "f"), "bb");
  EXPECT_EQ(folder.names().size(), 1u);
}

TEST(AtomicFile, WritesAcrossTheBuffer) {
  const TempFolder folder;
  std::string expected;
  AtomicFile file(folder / "f");
  // 1 MiB is the buffer: below, beyond, and exactly at it.
  for (const size_t size : {size_t{1} << 19, (size_t{1} << 20) + 1, size_t{3}, size_t{1} << 20}) {
    const std::string part(size, static_cast<char>('a' + expected.size() % 23));
    file.write(bytes_of(part));
    expected += part;
  }
  file.commit();
  EXPECT_EQ(read_file(folder / "f"), expected);
  EXPECT_EQ(file.sha256(), sha256_hex(bytes_of(expected)));
}

TEST(AtomicFile, FullDiskNamesFileAndReasonAndLeavesNothing) {
  const TempFolder folder;
  const std::string large(300'000, 'x');
  {
    const testing::FileSizeLimit limit(100'000);
    expect_error([&] { write_file_atomically(folder / "big.bin", large); },
                 {"big.bin", "cannot write the file", "File too large"});
  }
  EXPECT_TRUE(folder.names().empty());
}

TEST(AtomicFile, NamesTheReasonWhenItCannotBeCreatedOrNamed) {
  const TempFolder folder;
  expect_error([&] { AtomicFile file(folder / "absent/f"); }, {"absent/f", "No such file"});
  expect_error([&] { AtomicFile file(folder / "x/"); }, {"needs a name"});
  std::filesystem::create_directory(folder / "taken");
  expect_error([&] { write_file_atomically(folder / "taken", "x"); },
               {"taken", "cannot give the finished file its name", "directory"});
  EXPECT_EQ(folder.names(), std::vector<std::string>{"taken"});
}

TEST(AtomicFile, MisuseIsADefect) {
  const TempFolder folder;
  AtomicFile file(folder / "f");
  EXPECT_THROW(file.sha256(), InvariantError);
  file.commit();
  EXPECT_THROW(file.commit(), InvariantError);
  EXPECT_THROW(file.write(bytes_of("x")), InvariantError);
}

}  // namespace
}  // namespace atom
