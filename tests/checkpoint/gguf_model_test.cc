// GGUF files as models: tensors and config equal those of the folder that they were made from, ids those of
// its tokenizer.
#include "checkpoint/gguf_model.h"

#include <gtest/gtest.h>

#include <cmath>
#include <initializer_list>

#include "base/file.h"
#include "checkpoint/chat_template_file.h"
#include "checkpoint/model_files.h"
#include "checkpoint/raw_gguf.h"
#include "testing/expect_error.h"
#include "testing/memory_limit.h"
#include "testing/temp_folder.h"
#include "text/tokenizer.h"
#include "text/tokenizer_files.h"

namespace atom::checkpoint {
namespace {

using atom::testing::expect_error;
using atom::testing::TempFolder;

std::string data(const std::string& name) { return std::string(ATOM_TEST_DATA) + "/" + name; }

TEST(GgufModel, TensorsEqualThoseOfTheFolder) {
  const ModelFiles folder = ModelFiles::open(data("gguf/llama"));
  for (const char* type : {"f32", "f16", "bf16"}) {
    const ModelFiles file = ModelFiles::open(data(std::string("gguf/llama-") + type + ".gguf"));
    EXPECT_TRUE(file.is_gguf());
    EXPECT_EQ(file.tensor_names(), folder.tensor_names());
    for (const std::string& name : folder.tensor_names()) {
      const TensorHeader header = file.header(name);
      const tensor::TensorView view = file.tensor(name);
      EXPECT_EQ(header.shape, folder.tensor(name).shape) << name;
      EXPECT_EQ(view.shape, header.shape) << name;
      EXPECT_EQ(view.dtype, header.dtype) << name;
      std::vector<float> want = tensor::widen(folder.tensor(name));
      if (header.dtype == tensor::DType::F16)  // rounds what is too small for it
        for (float& value : want)
          if (std::abs(value) < 0x1p-14F) value = tensor::widen(view)[&value - want.data()];
      EXPECT_EQ(tensor::widen(view), want) << type << " " << name;
      file.release(name);
      EXPECT_EQ(tensor::widen(file.tensor(name)), want) << type << " " << name;
    }
  }
}

TEST(GgufModel, ConfigEqualsThatOfTheFolder) {
  const Json want = ModelFiles::open(data("gguf/llama")).config();
  const Json got = ModelFiles::open(data("gguf/llama-q8_0.gguf")).config();
  for (const auto& [key, value] : want.items()) {
    EXPECT_EQ(got.value(key, Json()), value) << key;
  }
}

TEST(GgufModel, QuantizedTensorsAreReadInTheirRowsOrder) {
  // q's rows are permuted back after decoding: compare with the BF16 file, within half a step of a block.
  const ModelFiles exact = ModelFiles::open(data("gguf/llama-bf16.gguf"));
  const ModelFiles coarse = ModelFiles::open(data("gguf/llama-q8_0.gguf"));
  for (const char* name : {"model.layers.0.self_attn.q_proj.weight",
                           "model.layers.0.self_attn.k_proj.weight", "model.embed_tokens.weight"}) {
    EXPECT_EQ(coarse.header(name).stored, "Q8_0");
    const std::vector<float> a = tensor::widen(exact.tensor(name)),
                             b = tensor::widen(coarse.tensor(name));
    ASSERT_EQ(a.size(), b.size());
    for (size_t block = 0; block < a.size(); block += 32) {
      float largest = 0;
      for (size_t i = block; i < block + 32; ++i) largest = std::max(largest, std::abs(a[i]));
      // Half of largest / 127, and 127 times the rounding of the f16 scale (2^-11 of it).
      const float bound = largest / 127 * 0.5F + largest * 0x1p-11F + 1e-7F;
      for (size_t i = block; i < block + 32; ++i)
        ASSERT_NEAR(a[i], b[i], bound) << name << " " << i;
    }
  }
}

TEST(GgufModel, TheMagnitudeOfYarnMultiplies) {
  const TempFolder folder(TempFolder::memory());
  RawGguf raw = RawGguf::model("qwen2");
  raw.text("qwen2.rope.scaling.type", "yarn");
  raw.f32("qwen2.rope.scaling.factor", 4);
  raw.f32("qwen2.rope.scaling.attn_factor", 0.5F);
  raw.u32("qwen2.attention.sliding_window", 0);  // none
  write_file_atomically(folder / "m.gguf", raw.bytes());
  const Json config = ModelFiles::open(folder / "m.gguf").config();
  EXPECT_DOUBLE_EQ(config.at("rope_scaling").at("attention_factor").get<double>(),
                   0.5 * (0.1 * std::log(4.0) + 1));
  EXPECT_FALSE(config.contains("sliding_window"));
}

// A model whose second tensor, behind the table of 32 elements, holds 32, 33, ...
class GgufRows : public ::testing::Test {
 protected:
  void open(RawGguf raw, const RawGguf::Tensor& tensor) {
    RawGguf::Tensor behind = tensor;
    behind.offset = 128;
    raw.tensor(behind);
    raw.data_bytes = 2048;
    raw.counts = true;
    write_file_atomically(folder_ / "m.gguf", raw.bytes());
    model_.emplace(ModelFiles::open(folder_ / "m.gguf"));
  }
  // First value, how many rows.
  void expect(const std::string& below, float first, int64_t rows) {
    const tensor::TensorView view = model_->tensor("model.layers.0." + below + ".weight");
    EXPECT_EQ(view.shape, (tensor::Shape{rows, 8})) << below;
    EXPECT_EQ(tensor::widen(view).at(0), first) << below;
    EXPECT_EQ(tensor::widen(view).back(), first + static_cast<float>(rows * 8 - 1)) << below;
  }
  TempFolder folder_{TempFolder::memory()};
  std::optional<ModelFiles> model_;
};

TEST_F(GgufRows, OfStackedExperts) {
  RawGguf raw = RawGguf::model();
  raw.u32("llama.expert_count", 3);
  raw.u32("llama.expert_used_count", 2);
  open(raw, {.name = "blk.0.ffn_down_exps.weight", .dims = {8, 2, 3}});
  EXPECT_EQ(model_->config().at("architectures").at(0), "MixtralForCausalLM");
  for (int i = 0; i < 3; ++i)
    expect("block_sparse_moe.experts." + std::to_string(i) + ".w2",
           32.0F + 16.0F * static_cast<float>(i), 2);
  RawGguf older = RawGguf::model();
  older.u32("llama.expert_count", 3);
  older.u32("llama.expert_used_count", 2);
  open(older, {.name = "blk.0.ffn_up.2.weight", .dims = {8, 2}});
  expect("block_sparse_moe.experts.2.w3", 32, 2);
}

TEST_F(GgufRows, OfFusedLinears) {
  RawGguf raw = RawGguf::model("phi3");
  raw.u32("phi3.attention.head_count_kv", 1);
  open(raw, {.name = "blk.0.attn_qkv.weight", .dims = {8, 16}});
  expect("self_attn.q_proj", 32, 8);
  expect("self_attn.k_proj", 32 + 64, 4);
  expect("self_attn.v_proj", 32 + 96, 4);
  open(RawGguf::model("phi3"), {.name = "blk.0.ffn_up.weight", .dims = {8, 16}});
  expect("mlp.gate_proj", 32, 8);
  expect("mlp.up_proj", 32 + 64, 8);
}

TEST_F(GgufRows, OfQueriesAreInterleavedInLlamaOnly) {
  open(RawGguf::model("qwen2"), {.name = "blk.0.attn_q.weight", .dims = {8, 8}});
  expect("self_attn.q_proj", 32, 8);
  open(RawGguf::model(), {.name = "blk.0.attn_q.weight", .dims = {8, 8}});
  const std::vector<float> got =
      tensor::widen(model_->tensor("model.layers.0.self_attn.q_proj.weight"));
  const int stored[] = {0, 2, 1, 3, 4, 6, 5, 7};  // of two heads of four rows
  for (size_t row = 0; row < 8; ++row)
    EXPECT_EQ(got[row * 8], 32.0F + 8.0F * static_cast<float>(stored[row])) << row;
}

std::vector<std::string> texts() {
  return {"",
          "Hello world",
          "  Hello   world  ",
          "In 1984, 3.14159 were numbers; don't we'll THEY'RE 's.",
          "def f(x):\n\treturn [i**2 for i in x]\r\n\r\n",
          "na\xC3\xAFve \xE4\xBB\x8A\xE6\x97\xA5 \xF0\x9F\x98\x80",
          "<s>a</s> b<unk>"};
}

TEST(GgufModel, IdsEqualThoseOfTokenizerJson) {
  const ModelFiles file = ModelFiles::open(data("gguf/bpe.gguf"));
  EXPECT_EQ(file.small_file("tokenizer.model", 0), std::nullopt);
  const auto got = text::Tokenizer::from_json(file.small_file("tokenizer.json", 0).value(), "gguf");
  const auto want = text::Tokenizer::from_file(data("text/byte_level_1k.json"));
  EXPECT_EQ(got.vocab_size(), want.vocab_size());
  EXPECT_EQ(got.bos_id(), want.bos_id());
  for (const std::string& line : texts()) {
    EXPECT_EQ(got.encode(line), want.encode(line)) << line;
    EXPECT_EQ(got.decode(got.encode(line)), want.decode(want.encode(line))) << line;
  }
  const ChatTemplateFile chat = read_chat_template(file);
  EXPECT_EQ(chat.source, "{{ messages[0].content }}");
  EXPECT_EQ(chat.bos_token, want.id_to_token(1));
  EXPECT_EQ(chat.origin, data("gguf/bpe.gguf"));
}

TEST(GgufModel, IdsEqualThoseOfTokenizerModel) {
  const ModelFiles file = ModelFiles::open(data("gguf/spm.gguf"));
  EXPECT_EQ(file.small_file("tokenizer.json", 0), std::nullopt);
  const text::TokenizerSettings settings{
      parse_json(file.small_file("tokenizer_config.json", 0).value()), nullptr, nullptr};
  const auto got = text::tokenizer_from_sentencepiece(file.small_file("tokenizer.model", 0).value(),
                                                      "gguf", settings);
  const std::string path = data("text/kinds/llama.model");
  const auto want = text::tokenizer_from_sentencepiece(
      read_file(path), path,
      {{{"legacy", true}, {"bos_token", "<s>"}, {"eos_token", "</s>"}}, nullptr, nullptr});
  EXPECT_EQ(got.vocab_size(), want.vocab_size());
  EXPECT_EQ(got.bos_id(), want.bos_id());
  for (const std::string& line : texts()) {
    EXPECT_EQ(got.encode(line), want.encode(line)) << line;
    EXPECT_EQ(got.decode(got.encode(line)), want.decode(want.encode(line))) << line;
  }
}

class GgufModelRefuses : public ::testing::Test {
 protected:
  // All parts must stand in the message.
  void expect(const RawGguf& raw, std::initializer_list<std::string_view> parts) {
    write_file_atomically(folder_ / "m.gguf", raw.bytes());
    expect_error([&] { ModelFiles::open(folder_ / "m.gguf"); }, {"m.gguf: "});
    expect_error([&] { ModelFiles::open(folder_ / "m.gguf"); }, parts);
  }
  // A second tensor, behind the table.
  void expect_tensor(RawGguf::Tensor tensor, std::initializer_list<std::string_view> parts) {
    RawGguf raw = RawGguf::model();
    tensor.offset = 128;
    raw.tensor(tensor);
    raw.data_bytes = 256;
    expect(raw, parts);
  }
  void expect_u32(std::string_view key, uint32_t value,
                  std::initializer_list<std::string_view> parts) {
    RawGguf raw = RawGguf::model();
    raw.u32(key, value);
    expect(raw, parts);
  }
  void expect_text(std::string_view key, std::string_view value,
                   std::initializer_list<std::string_view> parts) {
    RawGguf raw = RawGguf::model();
    raw.text(key, value);
    expect(raw, parts);
  }
  // Both tokenizer files are asked for; the model itself opens.
  void expect_tokenizer(const RawGguf& raw, std::initializer_list<std::string_view> parts) {
    write_file_atomically(folder_ / "m.gguf", raw.bytes());
    const GgufModel model(folder_ / "m.gguf");
    expect_error(
        [&] {
          model.small_file("tokenizer.json");
          model.small_file("tokenizer.model");
        },
        parts);
  }
  static RawGguf tokenizer(std::string_view kind, const std::vector<std::string>& tokens) {
    RawGguf raw = RawGguf::model();
    raw.text("tokenizer.ggml.model", kind);
    if (!tokens.empty()) raw.texts("tokenizer.ggml.tokens", tokens);
    return raw;
  }
  TempFolder folder_{TempFolder::memory()};
};

TEST_F(GgufModelRefuses, KeysThatAskForMore) {
  expect_u32("split.count", 2, {"split.count", "2 files"});
  expect_u32("llama.logit_scale", 2, {"llama.logit_scale", "only 1", "is 2"});
  expect_u32("llama.rope.dimension_count", 2, {"size of a head, 4", "is 2"});
  expect_text("llama.rope.scaling.type", "su", {"scaling.type", "'su'"});
  expect_text("llama.rope.scaling.type", "linear", {"scaling.factor", "missing"});
  expect_u32("llama.expert_count", 4, {"expert_used_count", "missing"});
  expect_u32("tokenizer.ggml.eos_token_id", 4, {"eos_token_id", "[0, 3]", "is 4"});
  RawGguf raw;
  raw.text("general.architecture", "mamba");
  expect(raw, {"one of llama, qwen2", "'mamba'"});
  raw = {};
  expect(raw, {"general.architecture", "''"});
  expect_error([&] { ModelFiles::open(data("text/byte_level_1k.json")); }, {"is a file", ".gguf"});
}

TEST_F(GgufModelRefuses, RopeThatContradictsItself) {
  RawGguf raw = RawGguf::model();
  raw.f32("llama.rope.scaling.attn_factor", 2);
  expect(raw, {"attn_factor", "only 1", "is 2"});
  raw = RawGguf::model();
  raw.text("llama.rope.scaling.type", "linear");
  raw.tensor({.name = "rope_freqs.weight", .dims = {2}, .offset = 128});
  raw.data_bytes = 256;
  expect(raw, {"scaling.type", "none here", "'linear'"});
}

TEST_F(GgufModelRefuses, StacksOfOtherSizes) {
  RawGguf raw = RawGguf::model();
  raw.u32("llama.expert_count", 3);
  raw.u32("llama.expert_used_count", 2);
  raw.tensor({.name = "blk.0.ffn_up_exps.weight", .dims = {8, 1, 2}, .offset = 128});
  raw.data_bytes = 256;
  expect(raw, {"ffn_up_exps", "each of 3 experts", "[2, 1, 8]"});
  raw = RawGguf::model();
  raw.u32("llama.expert_count", 3);
  raw.u32("llama.expert_used_count", 2);
  raw.tensor({.name = "blk.0.ffn_up.3.weight", .dims = {8, 1}, .offset = 128});
  raw.data_bytes = 256;
  expect(raw, {"ffn_up.3", "only 3 experts"});
  raw = RawGguf::model("phi3");
  raw.tensor({.name = "blk.0.attn_qkv.weight", .dims = {8, 4}, .offset = 128});
  raw.data_bytes = 256;
  expect(raw, {"attn_qkv", "matrix of 24 rows", "[4, 8]"});
}

TEST_F(GgufModelRefuses, TensorsWithoutAPlace) {
  expect_tensor({.name = "blk.0.attn_sinks"}, {"attn_sinks", "llama has no such tensor"});
  expect_tensor({.name = "blk.0.odd.weight"}, {"odd", "llama has no such tensor"});
  expect_tensor({.name = "blk.00.attn_q.weight"}, {"blk.00", "llama has no such tensor"});
  expect_tensor({.name = "output.weight", .dims = {32, 4}, .type = 3},
                {"output.weight", "Q4_1 is not supported", "Q8_0"});
  expect_tensor({.name = "blk.0.attn_q.weight", .dims = {2, 2, 4}},
                {"attn_q", "a vector or a matrix", "[4, 2, 2]"});
  expect_tensor({.name = "blk.0.attn_q.weight", .dims = {8, 3}}, {"attn_q", "3 rows", "2 heads"});
  expect_tensor({.name = "rope_freqs.weight", .dims = {3}}, {"rope_freqs", "vector of 2", "[3]"});
}

TEST_F(GgufModelRefuses, TokenizersThatContradictThemselves) {
  expect_tokenizer(tokenizer("bert", {}), {"llama or gpt2", "'bert'"});
  expect_tokenizer(tokenizer("gpt2", {}), {"ggml.tokens", "array of strings"});
  expect_tokenizer(tokenizer("gpt2", {"a"}), {"ggml.merges", "array of strings"});
  expect_tokenizer(tokenizer("llama", {"a", "b"}), {"ggml.scores", "2 elements", "missing"});
  expect_tokenizer(tokenizer("llama", {"a", "a"}), {"token 1 is the text of another"});
  expect_tokenizer(tokenizer("llama", {""}), {"token 0 is empty"});
  RawGguf raw = tokenizer("gpt2", {"a"});
  raw.text("tokenizer.ggml.pre", "odd");
  expect_tokenizer(raw, {"llama-bpe, qwen2", "'odd'"});
  raw = tokenizer("llama", {"a", "b"});
  raw.array("tokenizer.ggml.token_type", 5, 1, RawGguf::number(1));
  expect_tokenizer(raw, {"token_type", "2 elements", "has 1"});
  raw = tokenizer("llama", {"a"});
  raw.array("tokenizer.ggml.token_type", 5, 1, RawGguf::number(9));
  expect_tokenizer(raw, {"token_type", "[1, 6]", "is 9"});
}

// JSON values for tokens and merges took ten times the file, for control tokens forty times.
TEST_F(GgufModelRefuses, TokenizersTakeMemoryInProportion) {
  constexpr size_t kTokens = 100'000;
  for (const int32_t type : {1, 3}) {  // normal, control
    std::vector<std::string> tokens, merges;
    std::string types;
    for (size_t i = 0; i < kTokens; ++i) {
      tokens.push_back(fmt::format("\"{}", i));
      merges.push_back(fmt::format("\"{} {}", i / 10, i % 10));
      types += RawGguf::number(type);
    }
    RawGguf raw = tokenizer("gpt2", tokens);
    raw.text("tokenizer.ggml.pre", "llama-bpe");
    raw.texts("tokenizer.ggml.merges", merges);
    raw.array("tokenizer.ggml.token_type", 5, kTokens, types);
    const std::string bytes = raw.bytes();
    write_file_atomically(folder_ / "m.gguf", bytes);
    const GgufModel model(folder_ / "m.gguf");
    std::optional<std::string> file;
    {
      const atom::testing::MemoryLimit limit((type == 1 ? 6 : 16) * bytes.size());
      file = model.small_file("tokenizer.json");
    }
    const Json json = parse_json(file.value(), {.source = "tokenizer.json"});
    EXPECT_EQ(json["model"]["vocab"].size(), type == 1 ? kTokens : 0u);
    EXPECT_EQ(json["added_tokens"].size(), type == 1 ? 0u : kTokens);
    EXPECT_EQ(json["model"]["merges"].size(), kTokens);
    EXPECT_EQ(json["model"]["merges"][12], "\"1 2");
    EXPECT_EQ(type == 1 ? json["model"]["vocab"]["\"77"] : json["added_tokens"][77]["id"], 77);
  }
}

}  // namespace
}  // namespace atom::checkpoint
