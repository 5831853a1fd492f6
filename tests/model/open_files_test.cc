// Linears that a family stores as one, seen apart.
#include "model/open_files.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "backend/open.h"
#include "base/file.h"
#include "base/json.h"
#include "model/weights.h"
#include "testing/expect_error.h"
#include "testing/seeded_checkpoint.h"
#include "testing/temp_folder.h"

namespace atom::model {
namespace {

namespace fs = std::filesystem;
using atom::testing::expect_error;
using atom::testing::TempFolder;

// The checkpoint of a fixture, written below `scratch`.
fs::path fixture(const char* name, const TempFolder& scratch) {
  return atom::testing::fixture_checkpoint(fs::path(ATOM_TEST_DATA) / "model" / name,
                                           scratch.path());
}

// The fixture with another config.json.
void copy_with(const TempFolder& folder, const char* name, const Json& changes) {
  const fs::path from = fixture(name, folder);
  fs::copy_file(from / "model.safetensors", folder / "model.safetensors");
  Json config = parse_json(read_file(from / "config.json"));
  config.update(changes);
  write_file_atomically(folder / "config.json", config.dump());
}

TEST(OpenFiles, SeesTheRowsOfFusedLinearsApart) {
  const TempFolder scratch;
  const fs::path folder = fixture("phi3", scratch);
  const auto stored = checkpoint::ModelFiles::open(folder);
  const auto files = open_files(folder);
  const std::string attention = "model.layers.1.self_attn.", mlp = "model.layers.1.mlp.";
  const auto expect_joined = [&](const std::string& fused,
                                 std::initializer_list<std::string> parts) {
    const std::span<const std::byte> whole = stored.tensor(fused).bytes;
    size_t at = 0;
    for (const std::string& part : parts) {
      const tensor::TensorView view = files.tensor(part);
      ASSERT_TRUE(std::ranges::equal(view.bytes, whole.subspan(at, view.bytes.size()))) << part;
      at += view.bytes.size();
      files.release(part);
    }
    EXPECT_EQ(at, whole.size());
    EXPECT_FALSE(files.has(fused));
  };
  expect_joined(
      attention + "qkv_proj.weight",
      {attention + "q_proj.weight", attention + "k_proj.weight", attention + "v_proj.weight"});
  expect_joined(mlp + "gate_up_proj.weight", {mlp + "gate_proj.weight", mlp + "up_proj.weight"});
  const auto& names = files.tensor_names();
  EXPECT_TRUE(std::ranges::is_sorted(names));
  EXPECT_EQ(names.size(), stored.tensor_names().size() + size_t{2 * 3});
}

TEST(OpenFiles, RefusesOtherRowsThanConfigJsonAsksFor) {
  const TempFolder folder;
  copy_with(folder, "phi3", {{"intermediate_size", 56}});
  expect_error([&] { open_files(folder.path()); },
               {folder.path().string(), "gate_up_proj.weight", "112 rows", "[96, 64]"});
}

TEST(OpenFiles, OtherFamiliesStayAsTheyAre) {
  const TempFolder scratch;
  const fs::path folder = fixture("qwen2", scratch);
  EXPECT_EQ(open_files(folder).tensor_names(), checkpoint::ModelFiles::open(folder).tensor_names());
}

// What a family must have is missed by its name: the same tensors under another architecture.
TEST(OpenFiles, MissesWhatTheFamilyMustHave) {
  const auto backend = backend::open_backend("reference", {});
  const auto refused = [&](const char* name, const char* architecture, const char* tensor) {
    const TempFolder folder;
    copy_with(folder, name, {{"architectures", {architecture}}});
    expect_error([&] { load_model(open_files(folder.path()), *backend, {}); }, {tensor});
  };
  refused("llama3-rope", "Qwen2ForCausalLM", "self_attn.q_proj.bias");
  refused("llama3-rope", "Qwen3ForCausalLM", "self_attn.q_norm.weight");
}

}  // namespace
}  // namespace atom::model
