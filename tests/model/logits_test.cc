// Logits of every supported family against transformers' FP32 logits
// (tools/make_model_fixtures.py), on every backend, in one step and in chunks.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "backend/open.h"
#include "base/executor.h"
#include "base/file.h"
#include "base/json.h"
#include "checkpoint/model_files.h"
#include "model/forward.h"
#include "model/gguf_of_folder.h"
#include "model/open_files.h"
#include "model/weights.h"
#include "testing/sanitized.h"
#include "testing/seeded_checkpoint.h"
#include "testing/temp_folder.h"

namespace atom::model {
namespace {

struct Expected {
  std::vector<int32_t> ids;
  std::vector<int> positions;  // rows of `logits`
  std::vector<float> logits;   // [positions, vocabulary]
};

Expected read_expected(const std::filesystem::path& json_path,
                       const std::filesystem::path& logits_path) {
  const Json json = parse_json(read_file(json_path), {.source = json_path.native()});
  Expected out;
  out.ids = json.at("ids").get<std::vector<int32_t>>();
  out.positions = json.at("positions").get<std::vector<int>>();
  const std::string bytes = read_file(logits_path);
  out.logits.resize(bytes.size() / sizeof(float));
  std::copy(bytes.begin(), bytes.end(), reinterpret_cast<char*>(out.logits.data()));
  return out;
}

// All logits of one sequence, `chunk` rows a step.
std::vector<float> run(const Model& model, const std::vector<int32_t>& ids, int chunk) {
  backend::Backend& backend = *model.backend;
  const int total = static_cast<int>(ids.size());
  const ModelConfig& config = model.config;
  Forward forward(config, backend, {.max_rows = chunk, .max_positions = total});
  std::vector<format::KvLayout> layouts;
  for (const format::KvKind kind : model.scheme.kv)
    layouts.push_back({.kind = kind, .kv_heads = config.kv_heads, .head_dim = config.head_dim});
  const int pages = kv::pages_for(total, layouts.front());
  kv::Pool pool(backend, layouts, pages);
  const std::vector<int32_t> table = consecutive_pages(0, pages);
  backend::Buffer h = backend.allocate(sizeof(float) * chunk * config.hidden);
  backend::Buffer logits = backend.allocate(sizeof(float) * chunk * config.vocabulary);
  std::vector<float> out(static_cast<size_t>(total) * config.vocabulary);
  for (int begin = 0; begin < total; begin += chunk) {
    const int rows = std::min(chunk, total - begin);
    const backend::SequenceStep step{
        .row_end = rows, .position = begin, .page_table = table.data()};
    forward.embed(*model.ends, std::span(ids).subspan(begin, rows), h.as<float>());
    for (int i = 0; i < config.layers; ++i)
      forward.layer(*model.layers[i], pool, i, {&step, 1}, rows, h.as<float>());
    forward.head(*model.ends, h.as<float>(), rows, logits.as<float>());
    backend.download(out.data() + static_cast<size_t>(begin) * config.vocabulary, logits.data(),
                     sizeof(float) * rows * config.vocabulary);
  }
  return out;
}

// max |a - b| over max |b|, at the expected positions.
double relative_difference(const std::vector<float>& logits, const Expected& expected,
                           int vocabulary) {
  double difference = 0, largest = 0;
  for (size_t row = 0; row < expected.positions.size(); ++row) {
    const float* got = logits.data() + static_cast<size_t>(expected.positions[row]) * vocabulary;
    const float* want = expected.logits.data() + row * vocabulary;
    for (int i = 0; i < vocabulary; ++i) {
      difference = std::max(difference, static_cast<double>(std::abs(got[i] - want[i])));
      largest = std::max(largest, static_cast<double>(std::abs(want[i])));
      if (std::isnan(got[i])) return 1e30;
    }
  }
  return difference / largest;
}

struct Case {
  std::string model;
  std::string backend;
};

class Logits : public ::testing::TestWithParam<Case> {
 protected:
  void compare(const std::filesystem::path& folder, const Expected& expected) {
    Executor executor({.threads = 2});
    const auto backend = backend::open_backend(GetParam().backend, {.executor = &executor});
    const auto files = open_files(folder);
    const int total = static_cast<int>(expected.ids.size());
    const auto model = load_model(files, *backend, {.kv = {}, .positions = total, .progress = {}});
    const std::vector<float> whole = run(*model, expected.ids, total);
    EXPECT_LT(relative_difference(whole, expected, model->config.vocabulary), 1e-4);
    if (atom::testing::kSanitized && total > 100 && GetParam().backend == "reference") return;
    // K and V are attended to as stored, and a row never depends on its neighbours: in chunks, and token by token.
    EXPECT_EQ(run(*model, expected.ids, 5), whole);
    EXPECT_EQ(run(*model, expected.ids, 1), whole);
  }
};

TEST_P(Logits, EqualTransformers) {
  const std::filesystem::path folder =
      std::filesystem::path(ATOM_TEST_DATA) / "model" / GetParam().model;
  const atom::testing::TempFolder scratch(atom::testing::TempFolder::memory());
  compare(atom::testing::fixture_checkpoint(folder, scratch.path()),
          read_expected(folder / "expected.json", folder / "logits.f32"));
}

// A GGUF file and the folder of the same weights (tools/make_gguf_fixtures.py) give the same bits.
TEST(GgufLogits, EqualThoseOfTheFolder) {
  Executor executor({.threads = 2});
  const std::filesystem::path data = std::filesystem::path(ATOM_TEST_DATA) / "gguf";
  const std::vector<int32_t> ids = {1, 7, 39, 12, 12, 3, 25, 0, 18};
  for (const char* name : {"reference", "cpu"}) {
    const auto backend = backend::open_backend(name, {.executor = &executor});
    const auto logits = [&](const char* model, int chunk) {
      return run(*load_model(checkpoint::ModelFiles::open(data / model), *backend, {}), ids, chunk);
    };
    const std::vector<float> want = logits("llama", 9);
    EXPECT_EQ(logits("llama-bf16.gguf", 9), want) << name;
    EXPECT_NE(logits("llama-q8_0.gguf", 9), want) << name;
  }
}

// The same fixtures as GGUF files.
class GgufFamilies : public Logits {};

TEST_P(GgufFamilies, EqualTransformers) {
  const std::filesystem::path folder =
      std::filesystem::path(ATOM_TEST_DATA) / "model" / GetParam().model;
  const atom::testing::TempFolder scratch(atom::testing::TempFolder::memory());
  const std::filesystem::path file = scratch / "model.gguf";
  write_file_atomically(file, atom::testing::gguf_of_folder(
                                  atom::testing::fixture_checkpoint(folder, scratch.path())));
  compare(file, read_expected(folder / "expected.json", folder / "logits.f32"));
}

std::vector<Case> cases() {
  std::vector<Case> out;
  for (const char* model :
       {"llama-mha",         "llama-gqa",     "llama-tied",     "llama-bias",
        "llama-sharded",     "mixtral-4of2",  "mixtral-6of3",   "llama3-rope",
        "llama-linear",      "llama-dynamic", "llama-yarn",     "llama-wide-bias",
        "mistral-window",    "mistral-pages", "mixtral-window", "qwen2",
        "qwen2-window",      "qwen3",         "qwen3-moe",      "phi3",
        "phi3-window",       "phi3-longrope", "phi3-long",      "llama-linear-long",
        "llama-dynamic-long"})
    for (const char* backend : {"reference", "cpu"}) out.push_back({model, backend});
  return out;
}

std::string case_name(const ::testing::TestParamInfo<Case>& info) {
  std::string name = info.param.model + "_" + info.param.backend;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(Fixtures, Logits, ::testing::ValuesIn(cases()), case_name);

std::vector<Case> gguf_cases() {
  std::vector<Case> out;
  for (const char* model :
       {"llama-gqa", "llama-tied", "llama-bias", "llama-wide-bias", "llama-sharded", "llama3-rope",
        "llama-linear", "llama-yarn", "mixtral-4of2", "mixtral-6of3", "qwen2", "qwen3", "qwen3-moe",
        "phi3", "phi3-longrope", "phi3-long", "llama-linear-long"})
    out.push_back({model, "cpu"});
  return out;
}

INSTANTIATE_TEST_SUITE_P(Fixtures, GgufFamilies, ::testing::ValuesIn(gguf_cases()), case_name);

// The trained reference models: the shipped one always, the others where ATOM_SHARED_DATA points at
// them.
class TrainedLogits : public Logits {};

TEST_P(TrainedLogits, EqualTransformers) {
  const std::string& name = GetParam().model;
  std::filesystem::path folder = std::filesystem::path(ATOM_SOURCE_DIR) / "models" / name;
  if (!std::filesystem::exists(folder)) {
    const char* shared = std::getenv("ATOM_SHARED_DATA");
    if (shared == nullptr) GTEST_SKIP() << "set ATOM_SHARED_DATA to the folder that holds " << name;
    folder = std::filesystem::path(shared) / name;
  }
  const std::filesystem::path data = std::filesystem::path(ATOM_TEST_DATA) / "model";
  compare(folder, read_expected(data / (name + ".json"), data / (name + ".f32")));
}

INSTANTIATE_TEST_SUITE_P(Models, TrainedLogits,
                         ::testing::Values(Case{"ref-dense-11m", "cpu"},
                                           Case{"ref-dense-28m", "cpu"},
                                           Case{"ref-moe-24m", "cpu"}),
                         case_name);

}  // namespace
}  // namespace atom::model
