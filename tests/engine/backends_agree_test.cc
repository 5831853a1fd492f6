// Other backends generate the text of `cpu`; where they first do not, the two best logits there were closer to each other than
// the backends are. The shipped model, and the folders that ATOM_TEST_MODELS lists (separated by colons).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <sstream>
#include <string>

#include "backend/open.h"
#include "base/error.h"
#include "engine/generate.h"
#include "model/forward.h"
#include "text/tokenizer.h"

namespace atom::engine {
namespace {

namespace fs = std::filesystem;

std::vector<fs::path> model_folders() {
  std::vector<fs::path> folders = {fs::path(ATOM_SOURCE_DIR) / "models" / "ref-dense-11m"};
  const char* more = std::getenv("ATOM_TEST_MODELS");
  std::stringstream list(more == nullptr ? "" : more);
  for (std::string folder; std::getline(list, folder, ':');) folders.emplace_back(folder);
  return folders;
}

// Logits after `prompt` in one step and `ids` in steps of one row, as generate() makes them.
std::vector<float> logits_after(const model::Model& model, std::span<const int32_t> prompt,
                                std::span<const int32_t> ids) {
  backend::Backend& backend = *model.backend;
  const int rows = static_cast<int>(prompt.size());
  const int positions = rows + static_cast<int>(ids.size());
  const auto hidden = static_cast<size_t>(model.config.hidden);
  const auto vocabulary = static_cast<size_t>(model.config.vocabulary);
  model::Forward forward(model.config, backend, {.max_rows = rows, .max_positions = positions});
  kv::Pool pool = model::make_pool(model, positions);
  const std::vector<int32_t> pages = model::consecutive_pages(0, pool.pages());
  const backend::Buffer h = backend.allocate(static_cast<size_t>(rows) * hidden * sizeof(float));
  int position = 0;
  const auto step = [&](std::span<const int32_t> of) {
    const int count = static_cast<int>(of.size());
    const backend::SequenceStep sequence = {
        .row_end = count, .position = position, .page_table = pages.data()};
    forward.embed(*model.ends, of, h.as<float>());
    for (int layer = 0; layer < pool.layers(); ++layer)
      forward.layer(*model.layers[static_cast<size_t>(layer)], pool, layer, {&sequence, 1}, count,
                    h.as<float>());
    position += count;
    return static_cast<size_t>(count - 1);
  };
  size_t last = step(prompt);
  for (const int32_t& id : ids) last = step({&id, 1});
  const backend::Buffer on_device = backend.allocate(vocabulary * sizeof(float));
  forward.head(*model.ends, h.as<float>() + last * hidden, 1, on_device.as<float>());
  std::vector<float> logits(vocabulary);
  backend.download(logits.data(), on_device.data(), vocabulary * sizeof(float));
  return logits;
}

class BackendsAgree : public ::testing::TestWithParam<std::string> {
 protected:
  // Null, with the reason as a skip: the backend cannot be opened here.
  std::unique_ptr<backend::Backend> open_other() {
    const char* plugin = std::getenv("ATOM_CUDA_PLUGIN");
    try {
      return backend::open_backend(
          GetParam(), {.executor = &executor_, .cuda_plugin = plugin == nullptr ? "" : plugin});
    } catch (const Error& error) {
      reason_ = error.what();
      return nullptr;
    }
  }

  void check(const fs::path& folder, backend::Backend& other, int tokens) {
    SCOPED_TRACE(folder.string());
    const checkpoint::ModelFiles files = checkpoint::ModelFiles::open(folder);
    const auto cpu = backend::make_cpu_backend({.executor = &executor_});
    const auto here = model::load_model(files, *cpu, {});
    const auto there = model::load_model(files, other, {});
    const std::vector<int32_t> prompt =
        text::Tokenizer::from_file(*files.tokenizer_path()).encode("The history of the city");
    const GenerateOptions greedy = {.max_tokens = tokens, .temperature = 0, .ignore_eos = true};
    const std::vector<int32_t> expected = generate(*here, prompt, greedy).ids;
    const std::vector<int32_t> ids = generate(*there, prompt, greedy).ids;
    ASSERT_EQ(expected.size(), ids.size());
    const auto same = static_cast<size_t>(
        std::mismatch(expected.begin(), expected.end(), ids.begin()).first - expected.begin());
    if (same == ids.size()) return;
    const std::span<const int32_t> before(ids.data(), same);
    std::vector<float> a = logits_after(*here, prompt, before);
    const std::vector<float> b = logits_after(*there, prompt, before);
    float difference = 0;
    for (size_t i = 0; i < a.size(); ++i) difference = std::max(difference, std::abs(a[i] - b[i]));
    std::partial_sort(a.begin(), a.begin() + 2, a.end(), std::greater<>());
    EXPECT_LT(a[0] - a[1], difference) << "the two best logits after " << same << " tokens";
    std::printf("%s: other text after %zu tokens, gap %g, largest difference %g\n",
                folder.filename().c_str(), same, static_cast<double>(a[0] - a[1]),
                static_cast<double>(difference));
  }

  Executor executor_{{.threads = 2}};
  std::string reason_;
};

TEST_P(BackendsAgree, OnTheText) {
  const auto other = open_other();
  if (other == nullptr) GTEST_SKIP() << reason_;
  const int tokens = GetParam() == "reference" ? 12 : 64;
  for (const fs::path& folder : model_folders()) check(folder, *other, tokens);
}

INSTANTIATE_TEST_SUITE_P(All, BackendsAgree, ::testing::Values("reference", "cuda"),
                         [](const auto& backend) { return backend.param; });

}  // namespace
}  // namespace atom::engine
