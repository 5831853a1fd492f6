#include "checkpoint/model_files.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "base/error.h"
#include "base/log.h"
#include "checkpoint/chat_template_file.h"
#include "checkpoint/file_name.h"
#include "checkpoint/manifest.h"
#include "checkpoint/raw_safetensors.h"
#include "testing/expect_error.h"
#include "testing/memory_limit.h"
#include "testing/temp_folder.h"

namespace atom::checkpoint {
namespace {

namespace fs = std::filesystem;
using atom::testing::expect_error;
using atom::testing::TempFolder;

class ModelFilesTest : public ::testing::Test {
 protected:
  ModelFilesTest() { put("config.json", R"({"hidden_size":64})"); }
  void put(std::string_view name, std::string_view bytes) {
    write_file_atomically(folder_ / name, bytes);
  }
  void put_index(std::string_view weight_map) {
    put("model.safetensors.index.json", fmt::format(R"({{"weight_map":{}}})", weight_map));
  }
  void put_shards() {
    put("s1.safetensors", one_element_tensors({"a", "b"}));
    put("s2.safetensors", one_element_tensors({"c"}));
    put_index(R"({"a":"s1.safetensors","b":"s1.safetensors","c":"s2.safetensors"})");
  }
  void expect_refused(std::initializer_list<std::string_view> parts) {
    expect_error([&] { ModelFiles::open(folder_.path()); }, parts);
    expect_error([&] { ModelFiles::open(folder_.path()); }, {folder_.path().string()});
  }
  TempFolder folder_;
};

TEST_F(ModelFilesTest, OpensASingleFile) {
  put("model.safetensors", one_element_tensors({"y", "x"}));
  put("generation_config.json", R"({"top_k":5})");
  const ModelFiles model = ModelFiles::open(folder_.path());
  EXPECT_EQ(model.config().at("hidden_size"), 64);
  EXPECT_EQ(model.generation_config()->at("top_k"), 5);
  EXPECT_FALSE(model.tokenizer_config().has_value());
  EXPECT_FALSE(model.tokenizer_path().has_value());
  EXPECT_EQ(model.tensor_names(), (std::vector<std::string>{"x", "y"}));
  EXPECT_EQ(model.total_bytes(), 8u);
  EXPECT_EQ(model.tensor("x").as<float>()[0], 1.0f);
  model.release("x");
  EXPECT_EQ(model.tensor("x").as<float>()[0], 1.0f);
  EXPECT_FALSE(model.has("z"));
  expect_error([&] { model.tensor("z"); }, {folder_.path().string(), "no tensor \"z\""});
}

TEST_F(ModelFilesTest, OpensAThousandShards) {
  std::string map = "{";
  for (int i = 0; i < 1000; ++i) {
    const std::string tensor = fmt::format("t{}", i), file = fmt::format("s{}.safetensors", i);
    std::ofstream(folder_ / file) << one_element_tensors({tensor});
    map += fmt::format("{}\"{}\":\"{}\"", i > 0 ? "," : "", tensor, file);
  }
  put_index(map + "}");
  const ModelFiles model = ModelFiles::open(folder_.path());
  EXPECT_EQ(model.weight_paths().size(), 1000U);
  EXPECT_EQ(model.tensor("t999").as<float>()[0], 1.0f);
  EXPECT_EQ(model.total_bytes(), 4000U);
}

// More than 2 and 4 GiB, of which hardly any is on the disk.
TEST_F(ModelFilesTest, OpensALargeFile) {
  constexpr uint64_t kBytes = uint64_t{5} << 30;
  std::string header = fmt::format(
      R"({{"a":{{"dtype":"F16","shape":[{}],"data_offsets":[0,{}]}},"b":{{"dtype":"F32","shape":[1],"data_offsets":[{},{}]}}}})",
      kBytes / 2, kBytes, kBytes, kBytes + 4);
  header.resize((header.size() + 7) / 8 * 8, ' ');
  put("model.safetensors", raw_safetensors(header, ""));
  const fs::path path = folder_ / "model.safetensors";
  fs::resize_file(path, 8 + header.size() + kBytes);
  std::ofstream(path, std::ios::app) << std::string("\x00\x00\x80\x3f", 4);
  const ModelFiles model = ModelFiles::open(folder_.path());
  EXPECT_EQ(model.tensor("b").as<float>()[0], 1.0f);
  EXPECT_EQ(model.tensor("a").as<uint16_t>()[kBytes / 2 - 1], 0);
  fs::resize_file(path, 8 + header.size() + kBytes + 3);
  expect_refused({"model.safetensors"});
}

TEST_F(ModelFilesTest, SplitsAMatrixByRows) {
  const std::vector<float> values = {1, 2, 3, 4, 5, 6};
  {
    SafetensorsWriter writer(folder_ / "model.safetensors",
                             {{"a", tensor::DType::F32, {3, 2}}, {"b", tensor::DType::F32, {6}}});
    writer.write("a", std::as_bytes(std::span(values)));
    writer.write("b", std::as_bytes(std::span(values)));
    writer.commit();
  }
  ModelFiles model = ModelFiles::open(folder_.path());
  expect_error([&] { model.split_rows("a", {{"x", 1}, {"y", 1}}); }, {"\"a\"", "2 rows", "[3, 2]"});
  expect_error([&] { model.split_rows("a", {{"x", 1}, {"b", 2}}); }, {"\"b\" is there twice"});
  expect_error([&] { model.split_rows("b", {{"x", 6}}); }, {"\"b\"", "matrix"});
  expect_error([&] { model.split_rows("c", {{"x", 6}}); }, {"no tensor \"c\""});
  ModelFiles split = ModelFiles::open(folder_.path());
  split.split_rows("a", {{"y", 1}, {"x", 2}});
  EXPECT_EQ(split.tensor_names(), (std::vector<std::string>{"b", "x", "y"}));
  EXPECT_EQ(split.tensor("x").shape, (tensor::Shape{2, 2}));
  EXPECT_EQ(split.tensor("x").as<float>()[1], 4.0f);
  split.release("x");
  EXPECT_EQ(split.tensor("y").as<float>()[1], 2.0f);
}

TEST_F(ModelFilesTest, OpensShardsInAFolderWithBlanksAndNonAscii) {
  put_shards();
  put("tokenizer.json", "{}");
  const auto folder =
      folder_.path().parent_path() / (folder_.path().filename().string() + " \xc3\xa9");
  std::filesystem::rename(folder_.path(), folder);
  const ModelFiles model = ModelFiles::open(folder);
  EXPECT_EQ(model.tensor_names().size(), 3u);
  EXPECT_EQ(model.weight_paths().size(), 2u);
  EXPECT_EQ(model.total_bytes(), 12u);
  EXPECT_EQ(model.tokenizer_path(), folder / "tokenizer.json");
  EXPECT_EQ(model.tensor("c").as<float>()[0], 1.0f);
  std::filesystem::rename(folder, folder_.path());
}

TEST_F(ModelFilesTest, RefusesFoldersThatAreNoModel) {
  expect_error([&] { ModelFiles::open(folder_ / "absent"); }, {"absent", "does not exist"});
  expect_error([&] { ModelFiles::open(folder_ / "config.json"); }, {"config.json", "is a file"});
  expect_refused({"has no weights"});
  put("other.safetensors", one_element_tensors({"x"}));
  expect_refused({"neither model.safetensors", "only other.safetensors"});
}

TEST_F(ModelFilesTest, RefusesConfigsThatAreMissingOrDefective) {
  put("model.safetensors", one_element_tensors({"x"}));
  put("config.json", "[1]");
  expect_refused({"config.json", "must hold a JSON object"});
  put("config.json", "{");
  expect_refused({"config.json", "not valid JSON"});
  std::filesystem::remove(folder_ / "config.json");
  expect_refused({"config.json", "No such file"});
  put("config.json", "{}");
  put("generation_config.json", "{\"a\":1,\"a\":2}");
  expect_refused({"generation_config.json", "twice"});
}

// 50,000 levels in each JSON of a folder: a parser that calls itself for each would die of them.
TEST_F(ModelFilesTest, RefusesDeepJsonEverywhere) {
  const std::string good = "{}", single = one_element_tensors({"x"});
  for (const std::string& level : {std::string("["), std::string("{\"a\":")}) {
    std::string deep = "{\"a\":";
    for (int i = 0; i < 50'000; ++i) deep += level;
    put("model.safetensors", single);
    for (const char* name : {"config.json", "generation_config.json", "tokenizer_config.json"}) {
      put(name, deep);
      expect_refused({name, "nested deeper than the limit of 64 levels"});
      put(name, good);
    }
    put("model.safetensors", raw_safetensors(deep, ""));
    expect_refused({"model.safetensors (header)", "nested deeper than the limit of 8 levels"});
    std::filesystem::remove(folder_ / "model.safetensors");
    put("model.safetensors.index.json", deep);
    expect_refused({"index.json", "nested deeper"});
    put(kManifestName, deep);
    expect_error([&] { verify_manifest(folder_.path()); }, {kManifestName, "nested deeper"});
    put("special_tokens_map.json", deep);
    expect_error([&] { read_chat_template(folder_.path()); },
                 {"special_tokens_map.json", "nested"});
    std::filesystem::remove(folder_ / "special_tokens_map.json");
  }
}

// What a file only claims is not allocated.
TEST_F(ModelFilesTest, ClaimsTakeNoMemory) {
  const atom::testing::MemoryLimit limit(rlim_t{64} << 20);
  const auto tensor = [](std::string_view shape, std::string_view range) {
    return raw_safetensors(
        fmt::format(R"({{"a":{{"dtype":"F32","shape":{},"data_offsets":{}}}}})", shape, range), "");
  };
  put("model.safetensors", tensor("[1099511627776]", "[0,4398046511104]"));
  expect_refused({"\"a\"", "4398046511104", "truncated"});
  put("model.safetensors", tensor("[4611686018427387904]", "[0,4]"));
  expect_refused({"\"a\"", "64 bits"});
  put("model.safetensors", raw_safetensors("{}", "", 99'999'999));
  expect_refused({"header length of 99999999 bytes", "exceeds"});
}

// Names and descriptions of tensors are kept, not the JSON around them: less than six times the header of 5 MB, and
// four times the index beside it.
TEST_F(ModelFilesTest, ManyTensorsTakeMemoryInProportion) {
  constexpr int kTensors = 50'000;
  std::string header = "{", index = R"({"weight_map":{)";
  for (int i = 0; i < kTensors; ++i) {
    const char* comma = i == 0 ? "" : ",";
    const std::string name =
        fmt::format("model.layers.{}.mlp.experts.{}.down_proj.weight", i / 100, i % 100);
    header += fmt::format(R"({}"{}":{{"dtype":"F32","shape":[1,1],"data_offsets":[{},{}]}})", comma,
                          name, 4 * i, 4 * i + 4);
    index += fmt::format(R"({}"{}":"s1.safetensors")", comma, name);
  }
  put("s1.safetensors", raw_safetensors(header + "}", std::string(size_t{4} * kTensors, '\0')));
  put("model.safetensors.index.json", index + "}}");
  const size_t bytes = 6 * header.size() + 4 * index.size();
  const atom::testing::MemoryLimit limit(bytes);
  EXPECT_EQ(ModelFiles::open(folder_.path()).tensor_names().size(), size_t{kTensors});
}

TEST_F(ModelFilesTest, RefusesPickles) {
  for (const char* name : {"pytorch_model.bin", "consolidated.00.pth", "model.pt", "last.ckpt"}) {
    put(name, "pickle");
    expect_refused({"pickle", name, "safetensors"});
    std::filesystem::remove(folder_ / name);
  }
}

TEST_F(ModelFilesTest, FindsATruncatedShardAtOnce) {
  put_shards();
  const std::string whole = one_element_tensors({"c"});
  put("s2.safetensors", whole.substr(0, whole.size() - 1));
  expect_refused({"s2.safetensors", "\"c\"", "truncated"});
}

TEST_F(ModelFilesTest, RefusesIndexesThatLeadOutsideTheFolder) {
  put_shards();
  for (const char* name : {"../s1.safetensors", "/etc/s1.safetensors", "x/s1.safetensors", "..", "",
                           "s1.bin", "x\\\\s1.safetensors", "s1\\u0000.safetensors"}) {
    put_index(fmt::format(R"({{"a":"{}"}})", name));
    expect_refused({"model.safetensors.index.json", "tensor \"a\"", "file of the folder"});
  }
  put_index(R"({"a":7})");
  expect_refused({"tensor \"a\"", "not in 7"});
}

TEST_F(ModelFilesTest, RefusesIndexesThatDoNotFitTheirShards) {
  put_shards();
  put_index(R"({"a":"s1.safetensors","c":"s1.safetensors"})");
  expect_refused({"tensor \"c\" is not in the file s1.safetensors"});
  put_index(R"({"a":"s9.safetensors"})");
  expect_refused({"s9.safetensors", "No such file"});
  put_index("[]");
  expect_refused({"\"weight_map\""});
  put_index("{}");
  expect_refused({"\"weight_map\""});
  put("model.safetensors.index.json", "{}");
  expect_refused({"\"weight_map\"", "is missing"});
  put_index(R"(["s1.safetensors"])");
  expect_refused({"\"weight_map\"", "a list with \"s1.safetensors\""});
  put_index(R"({"a":"s1.safetensors","a":"s1.safetensors"})");
  expect_refused({"has the key \"a\" twice"});
  put("s2.safetensors", one_element_tensors({"c", "a"}));
  put_index(R"({"a":"s1.safetensors","b":"s1.safetensors","c":"s2.safetensors"})");
  expect_refused({"tensor \"a\" is in two files, s1.safetensors and s2.safetensors"});
}

TEST_F(ModelFilesTest, RefusesSizesThatNoModelHas) {
  put_shards();
  const auto put_metadata = [&](const std::string& metadata) {
    put("model.safetensors.index.json",
        R"({"metadata":)" + metadata +
            R"(,"weight_map":{"a":"s1.safetensors","b":"s1.safetensors"}})");
  };
  for (const char* size : {"-1", "1.5", "-8.0", "\"8\"", "true", "[8]"}) {
    put_metadata(fmt::format(R"({{"total_size":{}}})", size));
    expect_refused({"index.json", "\"total_size\"", size});
  }
  put_metadata("7");
  expect_refused({"index.json", "\"metadata\"", "7"});
  for (const char* metadata :
       {"null", "{}", R"({"total_size":null})", R"({"total_size":13476831232.0})",
        R"({"total_size":18446744073709551615})", R"({"format":"pt"})"}) {
    put_metadata(metadata);
    EXPECT_NO_THROW(ModelFiles::open(folder_.path())) << metadata;
  }
}

TEST_F(ModelFilesTest, LeavesOutUnlistedTensorsWithAWarning) {
  put_shards();
  put_index(R"({"a":"s1.safetensors"})");
  std::string line;
  set_log_sink([&](LogLevel, const std::string& text) { line = text; });
  const ModelFiles model = ModelFiles::open(folder_.path());
  set_log_sink({});
  EXPECT_FALSE(model.has("b"));
  EXPECT_NE(line.find("tensor \"b\" of s1.safetensors"), std::string::npos) << line;
}

TEST_F(ModelFilesTest, NamesTheReasonForALinkToNothing) {
  std::filesystem::create_symlink(folder_ / "blob", folder_ / "model.safetensors");
  expect_refused({"model.safetensors", "No such file"});
}

TEST_F(ModelFilesTest, IsReadBySeveralThreads) {
  put_shards();
  const ModelFiles model = ModelFiles::open(folder_.path());
  std::vector<std::jthread> readers;
  for (int reader = 0; reader < 4; ++reader)
    readers.emplace_back([&] {
      for (int i = 0; i < 100; ++i)
        for (const std::string& name : model.tensor_names()) {
          EXPECT_EQ(model.tensor(name).as<float>()[0], 1.0f);
          model.release(name);
        }
    });
}

TEST(FileName, PlainNames) {
  for (const char* name : {"a", "model-00001-of-00002.safetensors", "a b", "\xc3\xa9", "..a", ".x"})
    EXPECT_TRUE(is_plain_file_name(name)) << name;
  for (const std::string& name :
       {std::string(), std::string("."), std::string(".."), std::string("a/b"), std::string("/a"),
        std::string("a\\b"), std::string("a\0b", 3), std::string("a\n"), std::string(256, 'a')})
    EXPECT_FALSE(is_plain_file_name(name)) << name;
}

}  // namespace
}  // namespace atom::checkpoint
