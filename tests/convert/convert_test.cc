// Folders as GGUF files and back: tensors, configs and logits stay; what has no form is refused.
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <initializer_list>

#include "backend/open.h"
#include "base/executor.h"
#include "base/file.h"
#include "checkpoint/gguf_writer.h"
#include "checkpoint/manifest.h"
#include "checkpoint/model_files.h"
#include "convert/to_folder.h"
#include "convert/to_gguf.h"
#include "model/forward.h"
#include "model/open_files.h"
#include "model/rope.h"
#include "model/weights.h"
#include "testing/expect_error.h"
#include "testing/seeded_checkpoint.h"
#include "testing/temp_folder.h"

namespace atom::convert {
namespace {

using atom::testing::expect_error;
using atom::testing::TempFolder;
namespace fs = std::filesystem;

fs::path data(std::string_view name) { return fs::path(ATOM_TEST_DATA) / name; }

// Logits of a few ids.
std::vector<float> logits_of(const fs::path& path) {
  const std::vector<int32_t> ids = {1, 7, 39, 12, 12, 3, 25, 0, 18};
  Executor executor({.threads = 2});
  const auto backend = backend::open_backend("cpu", {.executor = &executor});
  const auto model = model::load_model(model::open_files(path), *backend, {});
  const model::ModelConfig& config = model->config;
  const int rows = static_cast<int>(ids.size());
  model::Forward forward(config, *backend, {.max_rows = rows, .max_positions = rows});
  std::vector<format::KvLayout> layouts;
  for (const format::KvKind kind : model->scheme.kv)
    layouts.push_back({.kind = kind, .kv_heads = config.kv_heads, .head_dim = config.head_dim});
  const int pages = kv::pages_for(rows, layouts.front());
  kv::Pool pool(*backend, layouts, pages);
  const std::vector<int32_t> table = model::consecutive_pages(0, pages);
  backend::Buffer h = backend->allocate(sizeof(float) * rows * config.hidden);
  backend::Buffer logits = backend->allocate(sizeof(float) * rows * config.vocabulary);
  std::vector<float> out(static_cast<size_t>(rows) * config.vocabulary);
  const backend::SequenceStep step{.row_end = rows, .position = 0, .page_table = table.data()};
  forward.embed(*model->ends, std::span(ids), h.as<float>());
  for (int i = 0; i < config.layers; ++i)
    forward.layer(*model->layers[i], pool, i, {&step, 1}, rows, h.as<float>());
  forward.head(*model->ends, h.as<float>(), rows, logits.as<float>());
  backend->download(out.data(), logits.data(), sizeof(float) * out.size());
  return out;
}

class ConvertFixtures : public ::testing::TestWithParam<const char*> {
 protected:
  TempFolder scratch_{TempFolder::memory()};
  fs::path folder_ = atom::testing::fixture_checkpoint(data("model") / GetParam(), scratch_.path());
};

TEST_P(ConvertFixtures, KeepTensorsConfigAndLogits) {
  const fs::path file = scratch_ / "m.gguf", back = scratch_ / "back", again = scratch_ / "n.gguf";
  to_gguf({.folder = folder_, .output = file, .type = "F32"});
  const auto want = model::open_files(folder_), got = checkpoint::ModelFiles::open(file);
  for (const std::string& name : got.tensor_names())
    EXPECT_EQ(tensor::widen(got.tensor(name)), tensor::widen(want.tensor(name))) << name;
  const auto a = model::parse_config(want.config(), "a"),
             b = model::parse_config(got.config(), "b");
  EXPECT_EQ(b.windows, a.windows);
  EXPECT_EQ(b.norm_epsilon, a.norm_epsilon);
  EXPECT_FLOAT_EQ(static_cast<float>(b.rope_scaling.attention_factor),
                  static_cast<float>(a.rope_scaling.attention_factor));
  // Llama 3's factors are quotients of f32, so that some frequencies differ in their last bits.
  const std::vector<float> fa = model::rope_frequencies(a), fb = model::rope_frequencies(b);
  ASSERT_EQ(fa.size(), fb.size());
  for (size_t i = 0; i < fa.size(); ++i) EXPECT_NEAR(fb[i], fa[i], fa[i] * 0x1p-22F) << i;
  const std::vector<float> x = logits_of(folder_), y = logits_of(file);
  if (fa == fb) {
    EXPECT_EQ(x, y);
  } else {
    for (size_t i = 0; i < x.size(); ++i) ASSERT_NEAR(x[i], y[i], 1e-4F) << i;
  }
  to_folder({.file = file, .output = back});
  EXPECT_EQ(logits_of(back), y);
  EXPECT_TRUE(checkpoint::verify_manifest(back).ok());
  to_gguf({.folder = back, .output = again, .type = "F32"});
  EXPECT_EQ(read_file(file), read_file(again));
}

INSTANTIATE_TEST_SUITE_P(All, ConvertFixtures,
                         ::testing::Values("llama-gqa", "llama-tied", "llama-bias",
                                           "llama-wide-bias", "llama-sharded", "llama3-rope",
                                           "llama-linear", "llama-yarn", "mixtral-4of2",
                                           "mixtral-6of3", "qwen2", "qwen3", "qwen3-moe", "phi3",
                                           "phi3-longrope", "phi3-window"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(Convert, SixteenBitsAndBlocksComeBackTheSame) {
  const TempFolder scratch(TempFolder::memory());
  for (const auto& [type, through] :
       {std::pair("F16", ""), std::pair("BF16", ""), std::pair("Q8_0", "F32")}) {
    const std::string name = type;
    const fs::path file = scratch / (name + ".gguf"), back = scratch / (name + "-back"),
                   again = scratch / (name + "-again.gguf");
    const ConvertReport report =
        to_gguf({.folder = data("gguf/llama"), .output = file, .type = name});
    EXPECT_TRUE(report.as_f16.empty());
    to_folder({.file = file, .output = back, .type = through, .shard_bytes = 4096});
    EXPECT_TRUE(fs::exists(back / "model.safetensors.index.json"));
    to_gguf({.folder = back, .output = again, .type = name});
    EXPECT_EQ(read_file(file), read_file(again)) << name;
  }
}

// Of the file that PyPI gguf writes of the same folder (tools/make_gguf_fixtures.py).
TEST(Convert, TensorsEqualThoseOfTheirPackage) {
  const TempFolder scratch(TempFolder::memory());
  for (const char* type : {"F32", "F16", "BF16", "Q8_0"}) {
    std::string lower = type;
    for (char& c : lower) c = static_cast<char>(std::tolower(c));
    const fs::path file = scratch / (lower + ".gguf");
    to_gguf({.folder = data("gguf/llama"), .output = file, .type = type});
    const checkpoint::GgufFile got(file), want(data("gguf") / ("llama-" + lower + ".gguf"));
    EXPECT_EQ(got.tensors().size(), want.tensors().size());
    for (const checkpoint::GgufTensor& tensor : want.tensors()) {
      const checkpoint::GgufTensor* found = got.find(tensor.name);
      ASSERT_NE(found, nullptr) << tensor.name;
      EXPECT_EQ(found->type, tensor.type) << tensor.name;
      EXPECT_EQ(found->shape, tensor.shape) << tensor.name;
      EXPECT_TRUE(std::equal(found->bytes.begin(), found->bytes.end(), tensor.bytes.begin(),
                             tensor.bytes.end()))
          << type << " " << tensor.name;
    }
  }
}

TEST(Convert, RowsThatAreNoBlocksStayF16) {
  const TempFolder scratch(TempFolder::memory());
  const fs::path folder =
      atom::testing::fixture_checkpoint(data("model/llama-gqa"), scratch.path());
  const ConvertReport report =
      to_gguf({.folder = folder, .output = scratch / "m.gguf", .type = "Q8_0"});
  const checkpoint::GgufFile file(scratch / "m.gguf");
  ASSERT_FALSE(report.as_f16.empty());  // down_proj: 88 channels
  for (const std::string& name : report.as_f16) EXPECT_EQ(file.find(name)->type->name, "F16");
  EXPECT_EQ(file.find("blk.0.ffn_up.weight")->type->name, "Q8_0");
  EXPECT_EQ(file.find("blk.0.attn_norm.weight")->type->name, "F32");
}

// Beside the matrices of the test above, which no edge of the format meets.
TEST(EncodeGguf, RoundsAsTheReference) {
  std::vector<float> values(96, 0.0F);
  values[0] = 127;  // scale 1
  values[1] = 0.5F;
  values[2] = -0.5F;
  values[3] = 1.4999F;
  values[32] = 1e-40F;  // its scale is no normal number
  values[64] = -2;
  std::vector<std::byte> out(3 * 34);
  EXPECT_EQ(checkpoint::encode_gguf(checkpoint::gguf_type("Q8_0"), values, out), std::nullopt);
  const auto code = [&](size_t at) { return static_cast<int>(static_cast<int8_t>(out[at])); };
  EXPECT_EQ(code(2), 127);
  EXPECT_EQ(code(3), 1);  // half away from zero
  EXPECT_EQ(code(4), -1);
  EXPECT_EQ(code(5), 1);
  for (size_t at = 34; at < 68; ++at) EXPECT_EQ(code(at), 0) << at;
  EXPECT_EQ(code(70), -127);
  values[0] = 1e8F;
  EXPECT_EQ(checkpoint::encode_gguf(checkpoint::gguf_type("Q8_0"), values, out), 1e8F);
}

class ConvertRefuses : public ::testing::Test {
 protected:
  // The tiny LLaMA with other fields.
  fs::path changed(const Json& fields) {
    const fs::path folder = scratch_ / "in";
    fs::remove_all(folder);
    fs::copy(data("gguf/llama"), folder);
    Json config = parse_json(read_file(folder / "config.json"));
    config.update(fields);
    write_file_atomically(folder / "config.json", config.dump());
    return folder;
  }
  // And nothing lies there but what did before.
  void expect(const ToGguf& job, std::initializer_list<std::string_view> parts) {
    const size_t before = scratch_.names().size();
    expect_error([&] { to_gguf(job); }, parts);
    EXPECT_EQ(scratch_.names().size(), before);
  }
  TempFolder scratch_{TempFolder::memory()};
};

TEST_F(ConvertRefuses, WhatGgufCannotExpress) {
  const fs::path out = scratch_ / "m.gguf";
  expect({.folder = changed({{"quantization_config", {{"quant_method", "atom"}}}}), .output = out},
         {"in: ", "quantized"});
  expect({.folder = changed({{"architectures", {"MistralForCausalLM"}}, {"sliding_window", 8}}),
          .output = out},
         {"config.json: ", "sliding_window 8", "llama"});
  expect({.folder = data("gguf/llama-f16.gguf"), .output = out}, {"GGUF file already"});
}

TEST_F(ConvertRefuses, ValuesThatTheTypeCannotHold) {
  const fs::path folder = changed(Json::object());
  const auto files = checkpoint::ModelFiles::open(data("gguf/llama"));
  std::vector<checkpoint::TensorInfo> infos;
  for (const std::string& name : files.tensor_names())
    infos.push_back({name, tensor::DType::F32, files.tensor(name).shape});
  checkpoint::SafetensorsWriter writer(folder / "model.safetensors", infos);
  for (const checkpoint::TensorInfo& info : infos) {
    std::vector<float> values = tensor::widen(files.tensor(info.name));
    if (info.name == "model.layers.0.mlp.up_proj.weight") values[5] = -70000;
    writer.write(info.name, std::as_bytes(std::span(values)));
  }
  writer.commit();
  expect({.folder = folder, .output = scratch_ / "m.gguf"}, {"up_proj", "-70000", "F16"});
}

TEST_F(ConvertRefuses, AnOutputThatExists) {
  write_file_atomically(scratch_ / "m.gguf", "x");
  expect({.folder = data("gguf/llama"), .output = scratch_ / "m.gguf"},
         {"m.gguf: the output exists"});
  expect_error(
      [&] { to_folder({.file = data("gguf/llama-f16.gguf"), .output = scratch_ / "m.gguf"}); },
      {"m.gguf", "is a file"});
  EXPECT_EQ(read_file(scratch_ / "m.gguf"), "x");
}

TEST_F(ConvertRefuses, AnInterruptedRunLeavesNothing) {
  const auto stop = [](const ConvertProgress& state) {
    if (state.done > 0) fail("stopped");
  };
  expect({.folder = data("gguf/llama"), .output = scratch_ / "m.gguf", .progress = stop},
         {"stopped"});
  expect_error(
      [&] {
        to_folder(
            {.file = data("gguf/llama-f16.gguf"), .output = scratch_ / "m", .progress = stop});
      },
      {"stopped"});
  EXPECT_TRUE(scratch_.names().empty());
}

}  // namespace
}  // namespace atom::convert
