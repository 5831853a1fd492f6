// Tokenizers of folders in GGUF files: ids of a hard text stay, what has no form is refused.
#include <gtest/gtest.h>

#include <initializer_list>
#include <optional>

#include "base/file.h"
#include "checkpoint/gguf.h"
#include "checkpoint/model_files.h"
#include "convert/to_folder.h"
#include "convert/to_gguf.h"
#include "testing/expect_error.h"
#include "testing/temp_folder.h"
#include "text/tokenizer.h"

namespace atom::convert {
namespace {

using atom::testing::expect_error;
using atom::testing::TempFolder;
namespace fs = std::filesystem;

std::string hard_text() {
  return "  Hello   world  In 1984, 3.14159; don't we'll THEY'RE 's.\n\ndef f(x):\n\treturn "
         "[i**2]\r\nna\xC3\xAFve \xE4\xBB\x8A\xE6\x97\xA5 \xF0\x9F\x98\x80 \xE2\x96\x81x <0x41> "
         "e\xCC\x81 ";
}

// A folder of the tiny LLaMA with room for a tokenizer's ids.
class ConvertTokenizer : public ::testing::Test {
 protected:
  fs::path data(std::string_view name) const { return fs::path(ATOM_TEST_DATA) / name; }
  void make(int rows, std::initializer_list<std::pair<const char*, std::string>> files) {
    fs::create_directory(folder_);
    const auto source = checkpoint::ModelFiles::open(data("gguf/llama"));
    Json config = source.config();
    config["vocab_size"] = rows;
    std::vector<checkpoint::TensorInfo> infos;
    for (const std::string& name : source.tensor_names()) {
      tensor::Shape shape = source.tensor(name).shape;
      if (name == "model.embed_tokens.weight") shape = {rows, shape[1]};
      infos.push_back({name, tensor::DType::F32, shape});
    }
    checkpoint::SafetensorsWriter writer(folder_ / "model.safetensors", infos);
    for (const checkpoint::TensorInfo& info : infos)
      writer.write(info.name, std::vector<std::byte>(tensor::byte_size(info.dtype, info.shape)));
    writer.commit();
    write_file_atomically(folder_ / "config.json", config.dump());
    for (const auto& [name, bytes] : files) write_file_atomically(folder_ / name, bytes);
    tokenizer_.emplace(text::Tokenizer::from_folder(folder_));
  }
  void convert() {
    to_gguf({.folder = folder_, .output = scratch_ / "m.gguf", .tokenizer = &*tokenizer_});
    to_folder({.file = scratch_ / "m.gguf", .output = scratch_ / "back"});
    const auto back = text::Tokenizer::from_folder(scratch_ / "back");
    const std::vector<int32_t> ids = tokenizer_->encode(hard_text());
    EXPECT_EQ(back.encode(hard_text()), ids);
    EXPECT_EQ(back.decode(ids), tokenizer_->decode(ids));
    EXPECT_EQ(back.bos_id(), tokenizer_->bos_id());
    to_gguf({.folder = scratch_ / "back", .output = scratch_ / "n.gguf", .tokenizer = &back});
    EXPECT_EQ(read_file(scratch_ / "m.gguf"), read_file(scratch_ / "n.gguf"));
  }
  void refuse(std::initializer_list<std::string_view> parts) {
    expect_error(
        [&] {
          to_gguf({.folder = folder_, .output = scratch_ / "m.gguf", .tokenizer = &*tokenizer_});
        },
        parts);
    EXPECT_FALSE(fs::exists(scratch_ / "m.gguf"));
    fs::remove_all(folder_);
  }
  TempFolder scratch_{TempFolder::memory()};
  fs::path folder_ = scratch_ / "in";
  std::optional<text::Tokenizer> tokenizer_;
};

TEST_F(ConvertTokenizer, OfMergesKeepsIds) {
  make(1100, {{"tokenizer.json", read_file(data("text/byte_level_1k.json"))},
              {"tokenizer_config.json",
               R"({"eos_token": "</s>", "chat_template": "{{ messages[0].content }}"})"}});
  convert();
  const auto model = checkpoint::ModelFiles::open(scratch_ / "m.gguf");
  const Json settings = parse_json(model.small_file("tokenizer_config.json", 1 << 20).value());
  EXPECT_EQ(settings.at("chat_template"), "{{ messages[0].content }}");
}

TEST_F(ConvertTokenizer, OfPiecesKeepsIds) {
  make(420, {{"tokenizer.model", read_file(data("text/kinds/llama.model"))},
             {"tokenizer_config.json",
              R"({"bos_token": "<s>", "eos_token": "</s>",
                   "added_tokens_decoder": {"400": {"content": "<|user|>", "special": true}}})"}});
  convert();
  const checkpoint::GgufFile file(scratch_ / "m.gguf");
  EXPECT_EQ(file.texts("tokenizer.ggml.tokens")->size(), 420U);
  EXPECT_EQ(file.integer("tokenizer.ggml.bos_token_id"), 1);
  EXPECT_EQ(file.integer("tokenizer.ggml.eos_token_id"), 2);
}

TEST_F(ConvertTokenizer, WithoutAFormIsRefused) {
  make(4000, {{"tokenizer.model", read_file(data("text/kinds/t5.model"))}});
  refuse({"tokenizer.model", "unigram"});
  Json json = parse_json(read_file(data("text/byte_level_1k.json")));
  json["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "x+";
  make(1100, {{"tokenizer.json", json.dump()}});
  refuse({"tokenizer.json", "tokenizer.ggml.pre"});
}

}  // namespace
}  // namespace atom::convert
