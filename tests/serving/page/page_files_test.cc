// The files of the page as the server gets them: all there, plain ASCII, and within their policy.
#include "serving/page.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <set>
#include <string>

namespace atom::serving {
namespace {

const PageFile* find_page(std::string_view path) {
  for (const PageFile& file : page_files()) {
    if (file.path == path) return &file;
  }
  return nullptr;
}

// The quoted texts that follow `before`, as in src="/app.js".
std::set<std::string> quoted_after(std::string_view text, std::string_view before) {
  std::set<std::string> found;
  for (size_t at = text.find(before); at != text.npos; at = text.find(before, at + 1)) {
    const size_t start = at + before.size();
    found.emplace(text.substr(start, text.find('"', start) - start));
  }
  return found;
}

TEST(PageFiles, StartWithThePageAndHaveTypes) {
  ASSERT_FALSE(page_files().empty());
  EXPECT_EQ(page_files().front().path, "/");
  std::set<std::string_view> paths;
  for (const PageFile& file : page_files()) {
    EXPECT_TRUE(paths.insert(file.path).second) << file.path << " twice";
    EXPECT_FALSE(file.bytes.empty()) << file.path;
    const std::string_view type = file.path == "/"              ? "text/html; charset=utf-8"
                                  : file.path.ends_with(".css") ? "text/css; charset=utf-8"
                                  : file.path.ends_with(".js")  ? "text/javascript; charset=utf-8"
                                  : file.path.ends_with(".svg") ? "image/svg+xml"
                                                                : "unknown";
    EXPECT_EQ(file.content_type, type) << file.path;
  }
}

TEST(PageFiles, AreTheFilesOfTheFolder) {
  for (const PageFile& file : page_files()) {
    const std::string name = file.path == "/" ? "/index.html" : std::string(file.path);
    std::ifstream stream(ATOM_SOURCE_DIR "/src/serving/page" + name, std::ios::binary);
    const std::string bytes((std::istreambuf_iterator<char>(stream)), {});
    EXPECT_EQ(bytes, file.bytes) << file.path;
  }
}

TEST(PageFiles, ReferToEachOtherOnly) {
  const std::string_view page = page_files().front().bytes;
  for (const std::string_view attribute : {"src=\"", "href=\""}) {
    for (const std::string& target : quoted_after(page, attribute)) {
      if (target.starts_with("#")) continue;
      EXPECT_NE(find_page(target), nullptr) << target;
    }
  }
  for (const PageFile& file : page_files()) {
    if (!file.path.ends_with(".js")) continue;
    EXPECT_NE(page.find("\"" + std::string(file.path) + "\""), page.npos)
        << file.path << " is not preloaded";
    for (const std::string& target : quoted_after(file.bytes, " from \"./")) {
      EXPECT_NE(find_page("/" + target), nullptr) << file.path << " imports " << target;
    }
  }
}

TEST(PageFiles, NeedNothingThatThePolicyForbids) {
  for (const PageFile& file : page_files()) {
    for (const std::string_view word :
         {"innerHTML =", "outerHTML", "insertAdjacentHTML", "document.write", "eval(",
          "new Function", " style=\"", "<style", " onclick=\"", "javascript:", "src=\"http", "url(",
          "@import"}) {
      EXPECT_EQ(file.bytes.find(word), file.bytes.npos) << file.path << " has " << word;
    }
    EXPECT_TRUE(std::ranges::all_of(file.bytes, [](char c) {
      return c == '\n' || (c >= ' ' && c <= '~');
    })) << file.path;
  }
}

TEST(PageSecurityPolicy, AllowsNothingInline) {
  EXPECT_TRUE(kPageSecurityPolicy.starts_with("default-src 'none'; "));
  for (const std::string_view word : {"unsafe", "*", "http:", "https:"}) {
    EXPECT_EQ(kPageSecurityPolicy.find(word), kPageSecurityPolicy.npos) << word;
  }
}

}  // namespace
}  // namespace atom::serving
