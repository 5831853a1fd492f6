#include "checkpoint/output_folder.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "testing/expect_error.h"
#include "testing/temp_folder.h"

namespace atom::checkpoint {
namespace {

namespace fs = std::filesystem;
using atom::testing::expect_error;
using atom::testing::TempFolder;

class OutputFolderTest : public ::testing::Test {
 protected:
  OutputFolderTest() { fs::create_directory(in_); }
  void expect_refused(const fs::path& out, std::initializer_list<std::string_view> parts) {
    const size_t before = folder_.names().size();
    expect_error([&] { OutputFolder output(out, in_); }, parts);
    EXPECT_EQ(folder_.names().size(), before);  // no work folder remains
  }
  TempFolder folder_;
  fs::path in_ = folder_ / "in";
};

TEST_F(OutputFolderTest, AppearsAtCommitWithItsFiles) {
  const fs::path final = folder_ / "out put \xc3\xa9";
  {
    OutputFolder output(final, in_);
    EXPECT_EQ(output.path().parent_path(), output.final_path().parent_path());
    EXPECT_EQ(output.path().filename().string().front(), '.');
    write_file_atomically(output.path() / "a", "text");
    EXPECT_FALSE(fs::exists(final));
    output.commit();
    EXPECT_EQ(output.path(), output.final_path());
    EXPECT_THROW(output.commit(), InvariantError);
  }
  EXPECT_EQ(read_file(final / "a"), "text");
  EXPECT_EQ(folder_.names().size(), 2u);  // input and output
}

TEST_F(OutputFolderTest, WithoutCommitNothingRemains) {
  {
    OutputFolder output(folder_ / "out", in_);
    fs::create_directory(output.path() / "sub");
    write_file_atomically(output.path() / "sub/a", "text");
  }
  EXPECT_EQ(folder_.names(), std::vector<std::string>{"in"});
}

TEST_F(OutputFolderTest, TakesAnEmptyFolderSlashesAndLinks) {
  fs::create_directory(folder_ / "empty");
  {
    OutputFolder output(folder_ / "empty", in_);
    write_file_atomically(output.path() / "a", "x");
    output.commit();
  }
  EXPECT_TRUE(fs::exists(folder_ / "empty/a"));
  {
    OutputFolder output((folder_ / "slash").string() + "/", in_);
    output.commit();
  }
  EXPECT_TRUE(fs::is_directory(folder_ / "slash"));
  fs::create_directory(folder_ / "target");
  fs::create_directory_symlink(folder_ / "target", folder_ / "link");
  {
    OutputFolder output(folder_ / "link", in_);
    write_file_atomically(output.path() / "a", "x");
    output.commit();
  }
  EXPECT_TRUE(fs::is_symlink(folder_ / "link"));
  EXPECT_TRUE(fs::exists(folder_ / "target/a"));
}

TEST_F(OutputFolderTest, RefusesTakenNames) {
  write_file_atomically(folder_ / "file", "x");
  expect_refused(folder_ / "file", {"file", "exists and is a file"});
  fs::create_directory(folder_ / "full");
  write_file_atomically(folder_ / "full/a", "x");
  expect_refused(folder_ / "full", {"full", "not empty"});
  fs::create_symlink(folder_ / "nothing", folder_ / "dangling");
  expect_refused(folder_ / "dangling", {"dangling", "link to nothing"});
  expect_refused("", {"needs a name"});
}

TEST_F(OutputFolderTest, RefusesMissingParents) {
  expect_refused(folder_ / "absent/out", {"absent/out", "parent folder", "does not exist"});
  write_file_atomically(folder_ / "file", "x");
  expect_refused(folder_ / "file/out", {"does not exist"});
}

TEST_F(OutputFolderTest, RefusesTheInputFolderAndWhatLiesInIt) {
  fs::create_directory(in_ / "sub");
  expect_refused(in_, {"must not be or lie in the input folder"});
  expect_refused(in_ / "out", {"must not be or lie in"});
  expect_refused(in_ / "sub/out", {"must not be or lie in"});
  expect_refused(in_ / ".." / "in" / "out", {"must not be or lie in"});
  expect_refused(folder_ / "absent/../in/out", {"must not be or lie in"});
  fs::create_directory_symlink(in_, folder_ / "alias");
  expect_refused(folder_ / "alias/out", {"must not be or lie in"});
  // A name that merely begins alike is another folder.
  EXPECT_NO_THROW(OutputFolder(folder_ / "in-4bit", in_));
  expect_error([&] { OutputFolder output(folder_ / "out", folder_ / "absent"); },
               {"absent", "input folder"});
  EXPECT_NO_THROW(OutputFolder(folder_ / "out", {}));
}

TEST_F(OutputFolderTest, RefusesASecondRunOnTheSameOutput) {
  OutputFolder a(folder_ / "out", in_);
  expect_refused(folder_ / "out", {"out", "another run is writing this output", "partial-"});
  const OutputFolder other(folder_ / "other", in_);
  write_file_atomically(a.path() / "a", "x");
  a.commit();
  EXPECT_TRUE(fs::exists(folder_ / "out/a"));
}

TEST_F(OutputFolderTest, RefusesANameThatWasTakenMeanwhile) {
  OutputFolder a(folder_ / "out", in_);
  fs::create_directories(folder_ / "out/other");
  expect_error([&] { a.commit(); }, {"out", "cannot give the finished folder its name"});
}

TEST_F(OutputFolderTest, RemovesOnlyWhatARunOnThisOutputLeft) {
  for (const char* name : {".out.partial-2147483646", ".other.partial-2147483646", "kept"})
    fs::create_directories(folder_ / name / "sub");
  const OutputFolder output(folder_ / "out", in_, false), other(folder_ / "other", in_, false);
  for (const fs::path& name :
       {fs::path(".out.partial-2147483646"), fs::path("kept"), fs::path("../kept"),
        output.path().filename(), other.path().filename()})
    output.remove_left(name.string());
  EXPECT_FALSE(fs::exists(folder_ / ".out.partial-2147483646"));
  for (const fs::path& name :
       {folder_ / ".other.partial-2147483646", folder_ / "kept", output.path(), other.path()})
    EXPECT_TRUE(fs::exists(name)) << name;
}

TEST_F(OutputFolderTest, NamesWhatAKilledRunLeftAndTouchesNothing) {
  // Beyond every system's largest process number; the parent of this process lives.
  fs::create_directory(folder_ / ".out.partial-2147483646");
  fs::create_directory(folder_ / ".out.partial-2147483646-1");
  fs::create_directory(folder_ / fmt::format(".out.partial-{}", ::getppid()));
  fs::create_directory(folder_ / ".out.partial-x");
  fs::create_directory(folder_ / ".other.partial-2147483646");
  std::vector<std::string> lines;
  set_log_sink([&](LogLevel, const std::string& line) { lines.push_back(line); });
  { const OutputFolder output(folder_ / "out", in_); }
  set_log_sink({});
  ASSERT_EQ(lines.size(), 2u);
  for (const std::string& line : lines)
    EXPECT_NE(line.find(".out.partial-2147483646"), std::string::npos) << line;
  EXPECT_EQ(folder_.names().size(), 6u);
}

TEST_F(OutputFolderTest, ComparesTheFreeSpace) {
  const OutputFolder output(folder_ / "out", in_);
  EXPECT_NO_THROW(output.require_space(1));
  expect_error([&] { output.require_space(UINT64_MAX); },
               {"out", "needs 18446744073709551615 bytes", "only", "free"});
}

}  // namespace
}  // namespace atom::checkpoint
