// The program on disks that are full or cannot be written. Both are mounts of their own, which end with the shell that made
// them; where a system gives no such mounts, the tests are skipped.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "model_copy.h"
#include "run_program.h"
#include "testing/sanitized.h"
#include "testing/temp_folder.h"

namespace atom::testing {
namespace {

class MountsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (kSanitized) GTEST_SKIP() << "mounts are nothing to a sanitizer";
    if (shell("mount -t tmpfs none \"$DIR\"").code != 0)
      GTEST_SKIP() << "this system gives no mounts of one's own";
  }
  // By a shell whose mounts nobody else sees. DIR: a folder for one; ATOM, MODEL: the program and a model of two layers.
  Result shell(const std::string& script) {
    return run_program({.arguments = {"-Urm", "sh", "-c", script},
                        .environment = {{"DIR", folder_.path().string()},
                                        {"ATOM", ATOM_PROGRAM},
                                        {"MODEL", model_.path()},
                                        {"TEXT", ATOM_SOURCE_DIR "/examples/text/calibration.txt"}},
                        .program = "/usr/bin/unshare"});
  }
  TempFolder home_, folder_;
  ModelCopy model_ = two_layers(home_ / "model");
};

constexpr const char* kQuantize =
    "quantize() { $ATOM quantize \"$1\" \"$2\" --preset w8a8 --calibration \"$TEXT\" --samples 1 "
    "--sequence 64 -q > /dev/null; }\n";

TEST_F(MountsTest, AFullDiskIsSaidAndLeavesNothing) {
  const Result result = shell(std::string(kQuantize) + R"sh(
mount -t tmpfs -o size=1m none "$DIR" || exit 99
quantize "$MODEL" "$DIR/out"; echo "before $?" $(ls -A "$DIR") end
needed=$(quantize "$MODEL" "$DIR/out" 2>&1 | sed -n 's/.*needs \([0-9]*\) bytes.*/\1/p')
mount -o remount,size="$needed" "$DIR"  # whole pages of every file do not fit
quantize "$MODEL" "$DIR/out"; echo "amid $?" $(ls -A "$DIR") end
mount -o remount,size=64m "$DIR"
quantize "$MODEL" "$DIR/out"; echo "after $?" $(ls -A "$DIR") end
$ATOM verify "$DIR/out" > /dev/null; echo "verified $?"
)sh");
  EXPECT_EQ(result.out, "before 1 end\namid 1 end\nafter 0 out end\nverified 0\n") << result.err;
  EXPECT_NE(result.err.find("bytes, but the file system has only 1048576 free"), std::string::npos);
  EXPECT_NE(result.err.find("cannot write the file: No space left on device"), std::string::npos)
      << result.err;
}

TEST_F(MountsTest, AReadOnlyModelIsReadAndNothingIsWrittenThere) {
  const Result result = shell(std::string(kQuantize) + R"sh(
mount -t tmpfs -o size=64m none "$DIR" && mkdir "$DIR/a model \"$(printf '\303\251')" && cd "$DIR"/a* || exit 99
cp "$MODEL"/* . && mount -o remount,ro "$DIR" || exit 99
$ATOM generate . --prompt A -n 2 -q > /dev/null; echo "read $?"
$ATOM inspect "$PWD" > /dev/null; echo "inspected $?"
quantize . ../out; echo "written $?"
)sh");
  EXPECT_EQ(result.out, "read 0\ninspected 0\nwritten 1\n") << result.err;
  EXPECT_NE(result.err.find("Read-only file system"), std::string::npos) << result.err;
}

// As somebody whom permissions bind: root without the capabilities that overrule them.
TEST(PermissionsTest, WhatMayNotBeReadOrWrittenIsNamed) {
  const TempFolder folder;
  const std::string model = (folder / "model").string(), closed = (folder / "closed").string();
  std::filesystem::create_directory(model);
  std::filesystem::create_directory(closed);
  for (const auto& entry : std::filesystem::directory_iterator(shipped_model()))
    std::filesystem::copy(entry.path(), std::filesystem::path(model) / entry.path().filename());
  const auto bound = [](std::vector<std::string> arguments) {
    if (::geteuid() != 0) return run_program(arguments);
    arguments.insert(arguments.begin(),
                     {"--bounding-set", "-dac_override,-dac_read_search", ATOM_PROGRAM});
    return run_program({.arguments = arguments, .program = "/usr/bin/setpriv"});
  };
  const auto forbid = [](const std::string& path, bool may) {
    using std::filesystem::perms;
    std::filesystem::permissions(path, may ? perms::owner_all : perms::none);
  };
  if (bound({"inspect", model}).code != 0) GTEST_SKIP() << "this system has no setpriv";
  for (const char* name : {"config.json", "model.safetensors", "tokenizer.json"}) {
    const std::string path = model + "/" + name;
    forbid(path, false);
    const Result result = bound({"generate", model, "--prompt", "A", "-n", "1"});
    EXPECT_EQ(result.code, 1) << name;
    EXPECT_NE(result.err.find(path), std::string::npos) << result.err;
    EXPECT_NE(result.err.find("Permission denied"), std::string::npos) << result.err;
    forbid(path, true);
  }
  forbid(closed, false);
  const Result result = bound({"quantize", model, closed + "/out", "--preset", "w8a8", "--samples",
                               "1", "--sequence", "64", "-q"});
  forbid(closed, true);
  EXPECT_EQ(result.code, 1);
  EXPECT_NE(result.err.find("Permission denied"), std::string::npos) << result.err;
  EXPECT_TRUE(std::filesystem::is_empty(closed));
}

}  // namespace
}  // namespace atom::testing
