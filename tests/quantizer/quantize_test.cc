#include "quantizer/quantize.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <map>

#include "backend/open.h"
#include "base/file.h"
#include "checkpoint/manifest.h"
#include "model/weights.h"
#include "quantizer/quantize_job.h"
#include "quantizer/random_checkpoint.h"
#include "quantizer/write.h"
#include "testing/expect_error.h"
#include "testing/temp_folder.h"

namespace atom::quantizer {
namespace {

namespace fs = std::filesystem;
using atom::testing::contents;
using atom::testing::Job;
using atom::testing::random_ids;
using atom::testing::RandomModel;
using atom::testing::TempFolder;
using atom::testing::write_random_checkpoint;

void expect_same_bytes_for_any_thread_count(const RandomModel& shape) {
  const TempFolder folder;
  write_random_checkpoint(folder / "in", shape);
  std::map<std::string, std::string> first;
  for (const int threads : {1, 2, 3}) {
    Job job;
    job.threads = threads;
    const fs::path out = folder / ("out" + std::to_string(threads));
    job.run(folder / "in", out);
    if (first.empty())
      first = contents(out);
    else
      EXPECT_EQ(contents(out), first) << threads << " threads";
  }
  Job other;
  other.seed = 2;
  other.run(folder / "in", folder / "other");
  EXPECT_NE(contents(folder / "other")["model.safetensors"], first["model.safetensors"]);
}

TEST(Quantize, SameBytesForAnyThreadCount) { expect_same_bytes_for_any_thread_count({}); }
TEST(Quantize, SameBytesForAnyThreadCountOfAMixture) {
  expect_same_bytes_for_any_thread_count({.experts = 4});
}

TEST(Quantize, ChecksOutAndLeavesTheInputAlone) {
  const TempFolder folder;
  write_random_checkpoint(folder / "in", {.layers = 3});
  const auto before = contents(folder / "in");
  const QuantizeReport report = Job().run(folder / "in", folder / "out");
  EXPECT_EQ(contents(folder / "in"), before);
  EXPECT_TRUE(checkpoint::verify_manifest(folder / "out").ok());
  EXPECT_EQ(folder.names().size(), 2u);  // no work folder is left

  const auto out = contents(folder / "out");
  for (const char* name :
       {"config.json", "model.safetensors", "tokenizer_config.json", "atom_provenance.json"})
    EXPECT_TRUE(out.contains(name)) << name;
  EXPECT_EQ(out.at("tokenizer_config.json"), before.at("tokenizer_config.json"));
  const Json report_json = parse_json(read_file(folder / "out" / "report.json"));
  EXPECT_EQ(report_json.at("modules").size(), 3u * 7u);
  for (const Json& module : report_json.at("modules")) {
    EXPECT_GT(module.at("error").get<double>(), 0.0) << module.dump();
    EXPECT_LT(module.at("error").get<double>(), 0.2) << module.dump();
  }
  EXPECT_LT(report.output_bytes, report.input_bytes);
  EXPECT_GT(report.bits_per_weight, 4.0);
  EXPECT_GT(report.forward_seconds, 0.0);
  const Json provenance = parse_json(out.at("atom_provenance.json"));
  EXPECT_EQ(provenance.at("recipe"), to_json(Job::small_recipe()));
  EXPECT_EQ(out.at("atom_provenance.json").find(folder.path().string()), std::string::npos);
}

// Reads one tensor of the output as T.
template <typename T>
std::vector<T> values(const checkpoint::ModelFiles& files, const std::string& name,
                      tensor::DType dtype, const tensor::Shape& shape) {
  const tensor::TensorView view = files.tensor(name);
  EXPECT_EQ(view.dtype, dtype) << name;
  EXPECT_EQ(view.shape, shape) << name << " " << view.shape.to_string();
  std::vector<T> out(view.bytes.size() / sizeof(T));
  std::memcpy(out.data(), view.bytes.data(), view.bytes.size());
  return out;
}

TEST(Quantize, LoadsBackWithEveryBit) {
  const TempFolder folder;
  write_random_checkpoint(folder / "in", {.bias = true});
  Job().run(folder / "in", folder / "out");
  const auto in = checkpoint::ModelFiles::open(folder / "in");
  const auto out = checkpoint::ModelFiles::open(folder / "out");
  using tensor::DType;
  const std::string q = "model.layers.1.self_attn.q_proj";
  const auto packed = values<uint32_t>(out, q + ".weight_packed", DType::I32, {64, 6});
  const auto scales = values<uint16_t>(out, q + ".weight_scale", DType::F16, {64, 2});
  const auto kept = values<int8_t>(out, q + ".kept_weight", DType::I8, {64, 16});
  const auto kept_scale = values<float>(out, q + ".kept_scale", DType::F32, {64});
  const auto order =
      values<int32_t>(out, "model.layers.1.self_attn.qkv_input.order", DType::I32, {64});
  EXPECT_FALSE(out.has(q + ".weight"));
  EXPECT_FALSE(out.has("model.layers.1.mlp.down_proj_input.order"));  // folded

  const model::ModelConfig config = model::parse_config(out.config(), "config.json");
  const model::Scheme scheme =
      model::parse_scheme(out.config(), config, format::KvKind::kF16, "config.json");
  EXPECT_EQ(scheme.kv, (std::vector{format::KvKind::kInt4, format::KvKind::kInt4}));
  const model::LayerTensors layer = model::read_layer(out, config, scheme, 1);
  EXPECT_EQ(layer.qkv_input.order, order);
  EXPECT_EQ(std::memcmp(layer.q.part[0].codes.data(), packed.data(), packed.size() * 4), 0);
  EXPECT_EQ(std::memcmp(layer.q.part[0].scales.data(), scales.data(), scales.size() * 2), 0);
  EXPECT_EQ(std::memcmp(layer.q.part[1].codes.data(), kept.data(), kept.size()), 0);
  EXPECT_EQ(std::memcmp(layer.q.part[1].scales.data(), kept_scale.data(), kept_scale.size() * 4),
            0);

  // Near the source, column by column in its order. q's error per row is a few percent.
  const std::vector<float> source = tensor::widen(in.tensor(q + ".weight"));
  const std::vector<float> got = model::to_f32(layer.q);
  double error = 0, size = 0;
  for (int r = 0; r < 64; ++r)
    for (int i = 0; i < 64; ++i) {
      const double want = source[r * 64 + order[static_cast<size_t>(i)]];
      error += (got[r * 64 + i] - want) * (got[r * 64 + i] - want);
      size += want * want;
    }
  EXPECT_LT(error / size, 0.1);

  // gate's bias moved with its rows: the same values in another order.
  std::vector<float> bias = tensor::widen(in.tensor("model.layers.1.mlp.gate_proj.bias"));
  std::vector<float> moved = layer.experts[0].gate.bias;
  EXPECT_NE(moved, bias);
  std::sort(bias.begin(), bias.end());
  std::sort(moved.begin(), moved.end());
  EXPECT_EQ(moved, bias);

  // The rest is the source's, bit for bit.
  for (const char* name : {"model.embed_tokens.weight", "model.norm.weight",
                           "model.layers.0.input_layernorm.weight"}) {
    const auto a = in.tensor(name).bytes, b = out.tensor(name).bytes;
    EXPECT_TRUE(std::equal(a.begin(), a.end(), b.begin(), b.end())) << name;
  }
}

TEST(Quantize, CompressedTensorsNames) {
  const TempFolder folder;
  write_random_checkpoint(folder / "in", {});
  Job job;
  using tensor::DType;
  job.recipe = preset("w4a16");
  job.recipe.group = 32;
  job.run(folder / "in", folder / "w4a16");
  const auto w4a16 = checkpoint::ModelFiles::open(folder / "w4a16");
  const std::string down = "model.layers.0.mlp.down_proj";
  values<uint32_t>(w4a16, down + ".weight_packed", DType::I32, {64, 12});
  values<uint16_t>(w4a16, down + ".weight_scale", DType::F16, {64, 3});
  EXPECT_EQ(values<int64_t>(w4a16, down + ".weight_shape", DType::I64, {2}),
            (std::vector<int64_t>{64, 96}));
  EXPECT_EQ(w4a16.config().at("quantization_config").at("quant_method"), "compressed-tensors");

  job.recipe = preset("w8a8");
  job.ids.clear();  // no text is needed
  const QuantizeReport report = job.run(folder / "in", folder / "w8a8");
  const auto w8a8 = checkpoint::ModelFiles::open(folder / "w8a8");
  const auto codes = values<int8_t>(w8a8, down + ".weight", DType::I8, {64, 96});
  const auto scales = values<float>(w8a8, down + ".weight_scale", DType::F32, {64, 1});
  const auto in = checkpoint::ModelFiles::open(folder / "in");
  const std::vector<float> source = tensor::widen(in.tensor(down + ".weight"));
  for (int i = 0; i < 64 * 96; ++i)  // half a step
    ASSERT_NEAR(scales[static_cast<size_t>(i / 96)] * codes[static_cast<size_t>(i)],
                source[static_cast<size_t>(i)], 0.5001 * scales[static_cast<size_t>(i / 96)]);
  EXPECT_NEAR(report.bits_per_weight, 8 + 32.0 / 70, 0.1);
}

TEST(Quantize, KeptFloatChannelsStayInTheSourcesType) {
  const TempFolder folder;
  write_random_checkpoint(folder / "in", {});
  Job job;
  job.recipe.kept_format = format::kF16;
  job.recipe.rounding = Rounding::kNearest;
  job.run(folder / "in", folder / "out");
  const auto in = checkpoint::ModelFiles::open(folder / "in");
  const auto out = checkpoint::ModelFiles::open(folder / "out");
  const std::string q = "model.layers.0.self_attn.q_proj";
  const auto kept = values<uint16_t>(out, q + ".kept_weight", tensor::DType::BF16, {64, 16});
  const auto order =
      values<int32_t>(out, "model.layers.0.self_attn.qkv_input.order", tensor::DType::I32, {64});
  const auto source = values<uint16_t>(in, q + ".weight", tensor::DType::BF16, {64, 64});
  for (int r = 0; r < 64; ++r)
    for (int i = 0; i < 16; ++i)
      ASSERT_EQ(kept[static_cast<size_t>(r * 16 + i)],
                source[static_cast<size_t>(r * 64 + order[static_cast<size_t>(48 + i)])]);
  Executor executor({.threads = 1});
  EXPECT_NO_THROW(
      model::load_model(out, *backend::make_cpu_backend({.executor = &executor, .isa = ""}), {}));
}

TEST(Quantize, HeadsAndKvOfA16BitModel) {
  const TempFolder folder;
  write_random_checkpoint(folder / "in", {});
  const auto in = checkpoint::ModelFiles::open(folder / "in");
  Job job;
  job.recipe = preset("w16a16");
  job.run(folder / "in", folder / "same");
  const auto same = checkpoint::ModelFiles::open(folder / "same");
  EXPECT_EQ(same.config(), in.config());
  EXPECT_EQ(same.tensor_names(), in.tensor_names());

  for (const format::Format head : {format::kInt8, format::int4(128)}) {
    job.recipe = head == format::kInt8 ? preset("w16a16") : Job::small_recipe();
    job.recipe.head = head;
    const fs::path path = folder / ("head." + format::name(head));
    job.run(folder / "in", path);
    const auto out = checkpoint::ModelFiles::open(path);
    EXPECT_TRUE(out.has(head == format::kInt8 ? "lm_head.weight" : "lm_head.weight_packed"));
    EXPECT_TRUE(out.has("model.embed_tokens.weight"));
    EXPECT_FALSE(out.config().at("tie_word_embeddings").get<bool>());
    const model::ModelConfig config = model::parse_config(out.config(), "config.json");
    const model::Scheme scheme =
        model::parse_scheme(out.config(), config, format::KvKind::kF16, "config.json");
    const std::vector<float> got = model::to_f32(model::read_head(out, config, scheme));
    const std::vector<float> want = tensor::widen(in.tensor("model.embed_tokens.weight"));
    double error = 0, size = 0;
    for (size_t i = 0; i < want.size(); ++i) {
      error += (got[i] - want[i]) * (got[i] - want[i]);
      size += want[i] * want[i];
    }
    EXPECT_LT(error / size, head == format::kInt8 ? 1e-3 : 0.1);
  }
}

TEST(Quantize, GptqMovesWeightsFurtherThanRoundingToNearest) {
  const TempFolder folder;
  write_random_checkpoint(folder / "in", {.layers = 1});
  Job job;
  job.samples = 40;
  const auto total = [&](Rounding rounding, const std::string& name, const char* key) {
    job.recipe.rounding = rounding;
    const Json report = job.run(folder / "in", folder / name).json;
    double sum = 0;
    for (const Json& module : report.at("modules")) sum += module.at(key).get<double>();
    return sum;
  };
  // GPTQ moves weights further than rounding to nearest does. That the outputs come closer is tested on
  // matrices (gptq_test.cc): a run that rounds to nearest observes no outputs to compare with.
  const double nearest_weights = total(Rounding::kNearest, "rtn", "weight_error");
  const double gptq_weights = total(Rounding::kGptq, "gptq", "weight_error");
  EXPECT_GT(gptq_weights, nearest_weights);
}

TEST(Quantize, ExpertsThatFewTokensReachAreRoundedToNearest) {
  const TempFolder folder;
  write_random_checkpoint(folder / "in", {.layers = 1, .experts = 4});
  Job job;
  job.samples = 2;
  job.sequence =
      20;  // 40 tokens, 80 routed rows over 4 experts: at least two experts get fewer than 32
  const QuantizeReport report = job.run(folder / "in", folder / "out");
  bool told = false;
  for (const std::string& notice : report.notices)
    told = told || notice.find("fewer than 32") != std::string::npos;
  EXPECT_TRUE(told);
  EXPECT_EQ(report.json.at("modules").at(0).at("rounding"), "gptq");  // q_proj sees all tokens
  EXPECT_EQ(report.json.at("modules").at(0).at("tokens"), 40);
  int64_t routed = 0;
  for (const Json& module : report.json.at("modules"))
    if (module.at("name").get<std::string>().ends_with("w2")) {
      const int64_t tokens = module.at("tokens").get<int64_t>();
      EXPECT_EQ(module.at("rounding"), tokens < 32 ? "rtn" : "gptq");
      routed += tokens;
    }
  EXPECT_EQ(routed, 80);
}

TEST(Quantize, ManyKeptChannelsAreClampedWithANotice) {
  const TempFolder folder;
  write_random_checkpoint(folder / "in", {.layers = 1});
  Job job;
  job.recipe.kept = 1 << 20;
  const QuantizeReport report = job.run(folder / "in", folder / "out");
  ASSERT_FALSE(report.notices.empty());
  EXPECT_NE(report.notices[0].find("clamped"), std::string::npos);
}

TEST(Quantize, ShardsWithAnIndex) {
  const TempFolder folder;
  write_random_checkpoint(folder / "in", {});
  const auto in = checkpoint::ModelFiles::open(folder / "in");
  const model::ModelConfig config = model::parse_config(in.config(), "config.json");
  std::vector<std::string> notices;
  const model::Scheme scheme = to_scheme(preset("w16a16"), config, notices);
  const checkpoint::OutputFolder out(folder / "out", folder / "in");
  CheckpointWriter writer(
      {.files = &in, .config = &config, .scheme = &scheme, .orders = {}, .shard_bytes = 40000},
      out);
  for (int i = 0; i < config.layers; ++i) writer.write_layer(i, nullptr);
  writer.write_ends(nullptr);
  writer.finish(Json::object());
  EXPECT_TRUE(fs::exists(out.path() / "model.safetensors.index.json"));
  EXPECT_TRUE(checkpoint::verify_manifest(out.path()).ok());
  const auto back = checkpoint::ModelFiles::open(out.path());
  EXPECT_GT(back.weight_paths().size(), 2u);
  EXPECT_EQ(back.tensor_names(), in.tensor_names());
  for (const std::string& name : in.tensor_names()) {
    const auto a = in.tensor(name).bytes, b = back.tensor(name).bytes;
    EXPECT_TRUE(std::equal(a.begin(), a.end(), b.begin(), b.end())) << name;
  }
}

}  // namespace
}  // namespace atom::quantizer
