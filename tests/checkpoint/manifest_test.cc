#include "checkpoint/manifest.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/file.h"
#include "base/sha256.h"
#include "testing/expect_error.h"
#include "testing/temp_folder.h"

namespace atom::checkpoint {
namespace {

using atom::testing::expect_error;
using atom::testing::TempFolder;

class ManifestTest : public ::testing::Test {
 protected:
  ManifestTest() {
    put("model.safetensors", "weights");
    put("config.json", "{}");
    write_manifest(folder_.path(), {make_manifest_entry(folder_.path(), "model.safetensors"),
                                    make_manifest_entry(folder_.path(), "config.json")});
  }
  void put(std::string_view name, std::string_view bytes) {
    write_file_atomically(folder_ / name, bytes);
  }
  FileResult first() { return verify_manifest(folder_.path()).files.at(0); }
  void expect_malformed(std::string_view text, std::initializer_list<std::string_view> parts) {
    put(kManifestName, text);
    expect_error([&] { verify_manifest(folder_.path()); }, parts);
    expect_error([&] { verify_manifest(folder_.path()); }, {kManifestName});
  }
  TempFolder folder_;
};

constexpr std::string_view kDigest =
    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

TEST_F(ManifestTest, ListsNameSizeAndHash) {
  const std::string text = read_file(folder_ / kManifestName);
  EXPECT_NE(text.find("\"version\": 1"), std::string::npos) << text;
  const auto entries = read_manifest(folder_.path());
  ASSERT_EQ(entries.size(), 2u);
  EXPECT_EQ(entries[0].name, "model.safetensors");
  EXPECT_EQ(entries[0].size, 7u);
  EXPECT_EQ(entries[0].sha256, sha256_hex(std::as_bytes(std::span("weights", 7))));
}

TEST_F(ManifestTest, UntouchedFolderIsOk) {
  const ManifestReport report = verify_manifest(folder_.path());
  EXPECT_TRUE(report.ok());
  ASSERT_EQ(report.files.size(), 2u);
  EXPECT_EQ(report.files[1].name, "config.json");
  EXPECT_TRUE(report.files[1].detail.empty());
}

TEST_F(ManifestTest, FindsEveryKindOfTampering) {
  put("model.safetensors", "weightS");
  EXPECT_EQ(first().state, FileState::kHashDiffers);
  EXPECT_NE(first().detail.find("instead of"), std::string::npos);
  EXPECT_FALSE(verify_manifest(folder_.path()).ok());
  put("model.safetensors", "weights and more");
  EXPECT_EQ(first().state, FileState::kSizeDiffers);
  EXPECT_EQ(first().detail, "16 bytes instead of 7");
  std::filesystem::remove(folder_ / "model.safetensors");
  EXPECT_EQ(first().state, FileState::kMissing);
  std::filesystem::create_directory(folder_ / "model.safetensors");
  EXPECT_EQ(first().state, FileState::kUnreadable);
  EXPECT_EQ(verify_manifest(folder_.path()).files.at(1).state, FileState::kOk);
}

TEST_F(ManifestTest, ReportsUnlistedWeights) {
  put("b.safetensors", "x");
  put("a.bin", "x");
  put("readme.md", "x");
  const ManifestReport report = verify_manifest(folder_.path());
  EXPECT_EQ(report.unlisted_weights, (std::vector<std::string>{"a.bin", "b.safetensors"}));
  EXPECT_FALSE(report.ok());
}

TEST_F(ManifestTest, RefusesMalformedManifests) {
  const auto with_file = [](std::string_view file) {
    return fmt::format(R"({{"version":1,"files":[{}]}})", file);
  };
  const auto entry = [](std::string_view name, std::string_view size, std::string_view digest) {
    return fmt::format(R"({{"name":"{}","size":{},"sha256":"{}"}})", name, size, digest);
  };
  expect_malformed("", {"not valid JSON"});
  expect_malformed("[]", {"JSON object"});
  expect_malformed(R"({"files":[]})", {"\"version\" is missing"});
  expect_malformed(R"({"version":2,"files":[]})", {"\"version\"", "2"});
  expect_malformed(R"({"version":1})", {"\"files\" must be an array"});
  expect_malformed(with_file("7"), {"JSON object", "7"});
  expect_malformed(with_file(R"({"name":"a"})"), {"\"size\" is missing"});
  expect_malformed(with_file(entry("a", "-1", kDigest)), {"\"size\"", "-1"});
  expect_malformed(with_file(entry("a", "1.5", kDigest)), {"\"size\"", "1.5"});
  expect_malformed(with_file(entry("a", "1", "abc")), {"64 lower-case", "abc"});
  expect_malformed(with_file(entry("a", "1", std::string(64, 'A'))), {"64 lower-case"});
  for (const char* name : {"../a", "/etc/passwd", "a/b", "", ".", "..", "atom_manifest.json"})
    expect_malformed(with_file(entry(name, "1", kDigest)), {"plain name", name});
  const std::string twice = entry("a", "1", kDigest);
  expect_malformed(with_file(twice + "," + twice), {"\"a\" twice"});
}

TEST_F(ManifestTest, MissingManifestAndUnwritableEntriesAreErrors) {
  const TempFolder empty;
  expect_error([&] { verify_manifest(empty.path()); }, {kManifestName, "No such file"});
  expect_error(
      [&] {
        write_manifest(empty.path(), {{"../x", 1, std::string(kDigest)}});
      },
      {"plain name", "../x"});
  expect_error([&] { write_manifest(empty.path(), {{"x", 1, "short"}}); }, {"64 lower-case"});
  EXPECT_TRUE(empty.names().empty());
}

}  // namespace
}  // namespace atom::checkpoint
