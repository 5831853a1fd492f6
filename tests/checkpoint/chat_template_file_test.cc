#include "checkpoint/chat_template_file.h"

#include <gtest/gtest.h>

#include "base/file.h"
#include "testing/expect_error.h"
#include "testing/temp_folder.h"

namespace atom::checkpoint {
namespace {

using atom::testing::expect_error;
using atom::testing::TempFolder;

class ChatTemplateFileTest : public ::testing::Test {
 protected:
  void put(std::string_view name, std::string_view bytes) {
    write_file_atomically(folder_ / name, bytes);
  }
  void put_config(std::string_view json) { put("tokenizer_config.json", json); }
  ChatTemplateFile read() { return read_chat_template(folder_.path()); }
  void expect_refused(std::initializer_list<std::string_view> parts) {
    expect_error([&] { read(); }, parts);
    expect_error([&] { read(); }, {folder_.path().string()});
  }
  TempFolder folder_;
};

TEST_F(ChatTemplateFileTest, AFolderWithoutOneHasNone) {
  EXPECT_EQ(read().source, std::nullopt);
  EXPECT_EQ(read().bos_token, "");
  put_config(R"({"chat_template":null,"bos_token":null})");
  EXPECT_EQ(read().source, std::nullopt);
}

TEST_F(ChatTemplateFileTest, ReadsATextAndTokens) {
  put_config(R"({"chat_template":"a{{ b }}","bos_token":"<s>","eos_token":{"content":"</s>"}})");
  EXPECT_EQ(read().source, "a{{ b }}");
  EXPECT_EQ(read().name, "");
  EXPECT_EQ(read().bos_token, "<s>");
  EXPECT_EQ(read().eos_token, "</s>");
}

TEST_F(ChatTemplateFileTest, ItsOwnFileComesFirst) {
  put_config(R"({"chat_template":"old","eos_token":"x"})");
  put("chat_template.jinja", "new\n");
  EXPECT_EQ(read().source, "new\n");
  EXPECT_EQ(read().eos_token, "x");
}

TEST_F(ChatTemplateFileTest, AnotherFileBeatsTheFolder) {
  put_config(R"({"chat_template":1,"eos_token":"x"})");
  put("chat_template.jinja", "own");
  put("other.jinja", "other");
  const ChatTemplateFile file = read_chat_template(folder_.path(), folder_ / "other.jinja");
  EXPECT_EQ(file.source, "other");
  EXPECT_EQ(file.origin, (folder_ / "other.jinja").string());
  EXPECT_EQ(file.eos_token, "x");
  expect_error([&] { read_chat_template(folder_.path(), folder_ / "none"); }, {"none"});
}

TEST_F(ChatTemplateFileTest, TakesTheDefaultOfAList) {
  put_config(
      R"({"chat_template":[{"name":"tool_use","template":"t"},{"name":"default","template":"d"}]})");
  EXPECT_EQ(read().source, "d");
  EXPECT_EQ(read().name, "default");
  EXPECT_EQ(read().origin, (folder_ / "tokenizer_config.json").string());
}

TEST_F(ChatTemplateFileTest, TakesTheFirstOfAListWithoutDefault) {
  put_config(
      R"({"chat_template":[{"name":"tool_use","template":"t"},{"name":"rag","template":"r"}]})");
  EXPECT_EQ(read().source, "t");
  EXPECT_EQ(read().name, "tool_use");
}

TEST_F(ChatTemplateFileTest, TokensMayLieInTheMap) {
  put("special_tokens_map.json", R"({"bos_token":{"content":"<b>"},"eos_token":"<e>"})");
  put_config(R"({"eos_token":"<own>"})");
  EXPECT_EQ(read().bos_token, "<b>");
  EXPECT_EQ(read().eos_token, "<own>");
}

TEST_F(ChatTemplateFileTest, RefusesBadFiles) {
  put_config("{");
  expect_refused({"tokenizer_config.json", "not valid JSON"});
  put_config("[]");
  expect_refused({"must be a JSON object"});
  put_config(R"({"chat_template":1})");
  expect_refused({"\"chat_template\" must be a string or a list"});
  put_config(R"({"chat_template":[]})");
  expect_refused({"the list \"chat_template\" is empty"});
  put_config(R"({"chat_template":["x"]})");
  expect_refused({"chat_template[0]"});
  put_config(R"({"chat_template":[{"name":"default"}]})");
  expect_refused({"chat_template[0]", "\"template\" is missing"});
  put_config(
      R"({"chat_template":[{"name":"default","template":"a"},{"name":"default","template":"b"}]})");
  expect_refused({"the name 'default' twice"});
  put_config(R"({"bos_token":["<s>"]})");
  expect_refused({"\"bos_token\" must be a string or an object"});
  put_config(R"({"bos_token":{"content":1}})");
  expect_refused({"bos_token", "\"content\" must be a string"});
  expect_error([&] { read_chat_template(folder_ / "missing"); }, {"missing", "not a folder"});
}

}  // namespace
}  // namespace atom::checkpoint
