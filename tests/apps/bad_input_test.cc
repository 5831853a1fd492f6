// What a user sees when something is wrong: the exit code, one sentence, nothing left behind.
#include <gtest/gtest.h>

#include <algorithm>

#include "apps/model_copy.h"
#include "apps/run_program.h"
#include "testing/temp_folder.h"

namespace atom::testing {
namespace {

int count(const std::string& text, const std::string& part) {
  int found = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
  return found;
}

// Exactly one error line, with all the parts; the exit code; nothing on stdout.
void expect_refusal(const Result& result, int code, std::initializer_list<const char*> parts) {
  EXPECT_EQ(result.code, code) << result.err;
  EXPECT_EQ(count(result.err, "atom: error: "), 1) << result.err;
  const size_t begin = result.err.find("atom: error: ");
  const std::string line = result.err.substr(begin, result.err.find('\n', begin) - begin);
  for (const char* part : parts)
    EXPECT_NE(line.find(part), std::string::npos) << part << ": " << line;
  EXPECT_EQ(result.out, "");
}

class BadInputTest : public ::testing::Test {
 protected:
  BadInputTest() : model_(shipped_model().string()), out_((folder_ / "out").string()) {
    write_text(folder_ / "text.txt", "The river rises in the hills.\n");
  }

  // Only what the test itself made is in its folder.
  void expect_nothing_left(std::initializer_list<const char*> made = {}) {
    std::vector<std::string> names = folder_.names();
    std::sort(names.begin(), names.end());
    std::vector<std::string> expected = {"text.txt"};
    expected.insert(expected.end(), made.begin(), made.end());
    std::sort(expected.begin(), expected.end());
    EXPECT_EQ(names, expected);
  }

  std::string text() const { return (folder_ / "text.txt").string(); }

  TempFolder folder_;
  std::string model_;
  std::string out_;
};

TEST_F(BadInputTest, NumbersOutsideTheirRange) {
  const std::vector<std::vector<std::string>> cases = {
      {"--context", "0"},       {"--context", "1e3"}, {"--context", "99999999999999999999"},
      {"--windows", "-1"},      {"--windows", "0"},   {"--threads", "100000"},
      {"--threads", "-1"},      {"--threads", ""},    {"--kv", "int5"},
      {"--backend", "quantum"}, {"--isa", "mmx"}};
  for (const auto& option : cases) {
    std::vector<std::string> arguments = {"eval", "ppl", model_, "--text", text()};
    arguments.insert(arguments.end(), option.begin(), option.end());
    SCOPED_TRACE(option[0] + " " + option[1]);
    expect_refusal(run_program(arguments), 2, {option[0].c_str(), option[1].c_str()});
  }
  const std::vector<std::vector<std::string>> sampling = {
      {"--temperature", "nan"}, {"--temperature", "inf"}, {"--temperature", "-0.1"},
      {"--top-p", "0"},         {"--top-p", "1.5"},       {"--top-k", "-3"},
      {"--max-tokens", "0"},    {"--seed", "-1"},         {"--seed", "99999999999999999999"}};
  for (const auto& option : sampling) {
    SCOPED_TRACE(option[0] + " " + option[1]);
    expect_refusal(run_program({"generate", model_, "--prompt", "A", option[0], option[1]}), 2,
                   {option[0].c_str(), option[1].c_str()});
  }
}

TEST_F(BadInputTest, QuantizeOptionsOutsideTheirRange) {
  const std::vector<std::vector<std::string>> cases = {
      {"--samples", "0"},   {"--samples", "1000000000"}, {"--sequence", "1"}, {"--kept", "-16"},
      {"--kept", "8"},      {"--kept", "99999999999"},   {"--group", "17"},   {"--head", "f64"},
      {"--preset", "w3a3"}, {"--method", "magic"},       {"--kv", "int2"}};
  for (const auto& option : cases) {
    SCOPED_TRACE(option[0] + " " + option[1]);
    expect_refusal(run_program({"quantize", model_, out_, option[0], option[1]}), 2,
                   {option[0].c_str()});
  }
  expect_refusal(run_program({"quantize", model_, out_, "--preset", "w8a8", "--kept", "64"}), 2,
                 {"--kept", "w8a8"});
  expect_refusal(run_program({"quantize", model_, out_, "--preset", "w8a8", "--search-kept"}), 2,
                 {"--search-kept", "no kept channels"});
  expect_refusal(run_program({"quantize", model_, out_, "--search-kept", "--kept", "0"}), 2,
                 {"--search-kept", "no kept channels"});
  expect_refusal(run_program({"quantize", model_, out_, "--preset", "w4a8", "--group", "row"}), 2,
                 {"--group", "w4a8", "row"});
  expect_refusal(run_program({"quantize", model_, out_, "--compatible"}), 2,
                 {"--compatible", "preset w4a4"});
  expect_refusal(
      run_program({"quantize", model_, out_, "--preset", "w8a8", "--kv", "int8", "--compatible"}),
      2, {"--compatible", "the KV-cache"});
  expect_refusal(run_program({"quantize", model_, out_, "--own-format"}), 2,
                 {"--own-format", "preset w4a4"});
  expect_refusal(run_program({"quantize", model_, out_, "--preset", "w8a8", "--method", "published",
                              "--own-format"}),
                 2, {"--own-format", "published"});
  expect_refusal(
      run_program({"quantize", model_, out_, "--preset", "w8a8", "--compatible", "--own-format"}),
      2, {"--own-format", "--compatible"});
  expect_nothing_left();
}

TEST_F(BadInputTest, CommandLinesThatMakeNoSense) {
  expect_refusal(run_program(std::vector<std::string>{}), 2, {"atom --help"});
  expect_refusal(run_program({"fry"}), 2, {"fry"});
  expect_refusal(run_program({"quantize", model_}), 2, {"OUT"});
  expect_refusal(run_program({"inspect", model_, "--frobnicate"}), 2, {"--frobnicate"});
  expect_refusal(run_program({"eval", "ppl", model_}), 2, {"--text"});
  expect_refusal(run_program({"generate", model_}), 2, {"--prompt"});
}

TEST_F(BadInputTest, MissingFilesAndFolders) {
  const std::string nowhere = (folder_ / "nowhere").string();
  for (const char* verb : {"inspect", "verify"})
    expect_refusal(run_program({verb, nowhere}), 1, {"nowhere"});
  expect_refusal(run_program({"quantize", nowhere, out_}), 1, {"nowhere"});
  expect_refusal(run_program({"generate", nowhere, "--prompt", "A"}), 1, {"nowhere"});
  expect_refusal(run_program({"eval", "ppl", model_, "--text", nowhere}), 1, {"nowhere"});
  expect_refusal(run_program({"quantize", model_, out_, "--calibration", nowhere}), 1, {"nowhere"});
  expect_refusal(run_program({"verify", model_}), 1, {"atom_manifest.json"});
  expect_nothing_left();
}

TEST_F(BadInputTest, FolderWithoutConfig) {
  const ModelCopy copy(folder_ / "model", model_);
  std::filesystem::remove(copy / "config.json");
  expect_refusal(run_program({"inspect", copy.path()}), 1, {"config.json"});
}

TEST_F(BadInputTest, UnknownArchitecture) {
  const ModelCopy copy(folder_ / "model", model_);
  copy.edit_config([](Json& config) { config["architectures"] = {"ParrotForCausalLM"}; });
  expect_refusal(run_program({"inspect", copy.path()}), 1,
                 {"ParrotForCausalLM", "LlamaForCausalLM"});
  expect_refusal(run_program({"quantize", copy.path(), out_}), 1, {"ParrotForCausalLM"});
  expect_nothing_left({"model"});
}

TEST_F(BadInputTest, TruncatedShard) {
  const std::filesystem::path sharded =
      std::filesystem::path(ATOM_SOURCE_DIR) / "tests/data/model/llama-sharded";
  const ModelCopy copy(folder_ / "model", sharded);
  const std::string name = "model-00002-of-00003.safetensors";
  const std::string bytes = read_file(sharded / name);
  copy.replace(name, std::string_view(bytes).substr(0, bytes.size() - 100));
  expect_refusal(run_program({"inspect", copy.path()}), 1, {name.c_str()});
  expect_refusal(run_program({"quantize", copy.path(), out_}), 1, {name.c_str()});
  expect_nothing_left({"model"});
}

// What serve would refuse of the output is refused before there is one.
TEST_F(BadInputTest, GenerationConfigThatWouldBeCarriedAlong) {
  const ModelCopy copy(folder_ / "model", model_);
  for (const auto& [bytes, part] : {std::pair{R"({"top_k": -5})", "top_k"},
                                    {R"({"temperature": "warm"})", "temperature"},
                                    {R"({"eos_token_id": [4000000000]})", "eos_token_id"},
                                    {R"([1, 2])", "object"},
                                    {"{\"top_p\": 0.5", "generation_config.json"}}) {
    SCOPED_TRACE(bytes);
    copy.replace("generation_config.json", bytes);
    expect_refusal(run_program({"quantize", copy.path(), out_, "--samples", "1", "--sequence", "8",
                                "--preset", "w8a8"}),
                   1, {"generation_config.json", part});
    expect_nothing_left({"model"});
  }
}

TEST_F(BadInputTest, WeightsThatAreNotFinite) {
  const ModelCopy copy(folder_ / "model", model_);
  std::string bytes = read_file(shipped_model() / "model.safetensors");
  bytes[bytes.size() - 1] = '\x7f';  // the last bf16 becomes a NaN
  bytes[bytes.size() - 2] = '\xc0';
  copy.replace("model.safetensors", bytes);
  expect_refusal(run_program({"eval", "ppl", copy.path(), "--text", text(), "--context", "4"}), 1,
                 {"tensor", "nan"});
  expect_refusal(run_program({"quantize", copy.path(), out_, "--samples", "1", "--sequence", "16"}),
                 1, {"tensor", "nan"});
  expect_nothing_left({"model", ".out.journal"});  // whose calibration came to its end
}

TEST_F(BadInputTest, TextsShorterThanOneWindow) {
  expect_refusal(run_program({"eval", "ppl", model_, "--text", text(), "--context", "512"}), 1,
                 {"text.txt", "tokens", "512"});
  expect_refusal(
      run_program({"quantize", model_, out_, "--calibration", text(), "--sequence", "512"}), 1,
      {"text.txt", "tokens", "512"});
  expect_refusal(run_program({"eval", "ppl", model_, "--text", text(), "--context", "4096"}), 1,
                 {"4096", "max_position_embeddings", "2048"});
  expect_refusal(run_program({"quantize", model_, out_, "--sequence", "4096"}), 1,
                 {"4096", "max_position_embeddings", "2048"});
  expect_nothing_left();
}

TEST_F(BadInputTest, OutputThatExistsOrIsTheInput) {
  const ModelCopy copy(folder_ / "model", model_);
  const auto quantize = [&](const std::string& output) {
    return run_program({"quantize", copy.path(), output, "--samples", "1", "--sequence", "16"});
  };
  expect_refusal(quantize(text()), 1, {"text.txt"});
  expect_refusal(quantize(copy.path()), 1, {"model"});
  expect_refusal(quantize((copy / "inside").string()), 1, {"inside"});
  expect_refusal(quantize((folder_ / "no/such/parent").string()), 1, {"parent"});
  std::filesystem::create_directory(folder_ / "out");
  write_text(folder_ / "out/precious.txt", "mine");
  expect_refusal(quantize(out_), 1, {"out"});
  EXPECT_EQ(read_file(folder_ / "out/precious.txt"), "mine");
  expect_nothing_left({"model", "out"});
}

// No error: transformers does so, too. But nobody shall quantize half a model without a word.
TEST_F(BadInputTest, LayersThatTheConfigLeavesOutAreNamed) {
  const ModelCopy copy = two_layers(folder_ / "model");
  const Result result = run_program({"inspect", copy.path()});
  EXPECT_EQ(result.code, 0);
  EXPECT_NE(result.err.find("36 tensors of layers 2 to 5 are left out: config.json has "
                            "num_hidden_layers 2"),
            std::string::npos)
      << result.err;
  EXPECT_EQ(run_program({"inspect", model_}).err, "");
}

TEST_F(BadInputTest, Recipes) {
  const auto quantize = [&](const std::string& recipe) {
    return run_program({"quantize", model_, out_, "--recipe", recipe});
  };
  const std::string path = (folder_ / "recipe.json").string();
  expect_refusal(quantize((folder_ / "none.json").string()), 1, {"none.json"});
  expect_refusal(quantize(folder_.path().string()), 1, {"atom-test-"});
  write_text(path, "{\"kept\": 64");
  expect_refusal(quantize(path), 1, {"recipe.json"});
  write_text(path, "[1, 2]");
  expect_refusal(quantize(path), 1, {"recipe.json", "object"});
  write_text(path, "{\"kept\": " + std::string(50'000, '['));
  expect_refusal(quantize(path), 1, {"recipe.json", "nested deeper"});
  write_text(path, "{\"ketp\": 64}");
  expect_refusal(quantize(path), 1, {"recipe.json", "ketp"});
  write_text(path, "{\"clip_weights\": 1e99}");
  expect_refusal(quantize(path), 1, {"recipe.json", "clip_weights"});
  write_text(path, "{\"preset\": \"w3a3\"}");
  expect_refusal(quantize(path), 1, {"recipe.json", "preset", "w3a3"});
  write_text(path, "{\"preset\": \"w8a8\"}");
  expect_refusal(run_program({"quantize", model_, out_, "--recipe", path, "--preset", "w4a4"}), 2,
                 {"--preset", "w8a8"});
  expect_nothing_left({"recipe.json"});
}

TEST_F(BadInputTest, TokenizerLargerThanTheModel) {
  const ModelCopy copy(folder_ / "model",
                       std::filesystem::path(ATOM_SOURCE_DIR) / "tests/data/model/llama-gqa");
  std::filesystem::create_symlink(shipped_model() / "tokenizer.json", copy / "tokenizer.json");
  expect_refusal(run_program({"generate", copy.path(), "--prompt", "A"}), 1, {"4096", "101"});
  expect_refusal(run_program({"eval", "ppl", copy.path(), "--text", text()}), 1, {"4096", "101"});
  expect_refusal(run_program({"quantize", copy.path(), out_}), 1, {"4096", "101"});
  EXPECT_EQ(run_program({"inspect", copy.path()}).code, 0);
}

TEST_F(BadInputTest, ModelWithoutTokenizer) {
  const ModelCopy copy(folder_ / "model", model_);
  std::filesystem::remove(copy / "tokenizer.json");  // tokenizer.model is left
  const std::vector<std::string> generate = {"generate", copy.path(), "--prompt", "A", "-n", "2"};
  EXPECT_EQ(run_program(generate).code, 0);
  std::filesystem::remove(copy / "tokenizer.model");
  expect_refusal(run_program({"generate", copy.path(), "--prompt", "A"}), 1, {"tokenizer.json"});
}

TEST_F(BadInputTest, BytesThatAreNoText) {
  expect_refusal(run_program({"generate", model_, "--prompt", "caf\xe9 au lait"}), 2,
                 {"--prompt", "UTF-8"});
  write_text(folder_ / "text.txt", "caf\xe9 au lait");
  expect_refusal(run_program({"generate", model_, "--prompt-file", text()}), 1,
                 {"text.txt", "UTF-8"});
  expect_refusal(run_program({"eval", "ppl", model_, "--text", text(), "--context", "4"}), 1,
                 {"text.txt", "UTF-8", "byte 3"});
  expect_refusal(run_program({"generate", model_, "--prompt", ""}), 2, {"--prompt", "empty"});
}

TEST_F(BadInputTest, NamesWithControlCharactersStayOnOneLine) {
  const Result result = run_program({"inspect", "a\nb\x1b[31m"});
  expect_refusal(result, 1, {"a\\x0ab\\x1b[31m"});
}

TEST_F(BadInputTest, PromptsOfGibibytesAreNotRead) {
  std::filesystem::resize_file(folder_ / "text.txt",
                               uint64_t{1} << 31);  // hardly any of it is on the disk
  expect_refusal(run_program({"generate", model_, "--prompt-file", text()}), 1,
                 {"text.txt", "2147483648 bytes", "limit"});
}

TEST_F(BadInputTest, MoreTokensThanPositions) {
  expect_refusal(run_program({"generate", model_, "--prompt", "A", "--max-tokens", "2048"}), 1,
                 {"2048", "max_position_embeddings"});
}

// 60 words, about as many tokens, on a model of 64 positions: rope_scaling lets it reach farther where it is asked to.
TEST_F(BadInputTest, ScaledPositionsReachAsFarAsTheFactor) {
  std::string prompt;
  for (int i = 0; i < 60; ++i) prompt += " the";
  const auto generate = [&](const char* name, const Json& scaling, const char* tokens) {
    const ModelCopy copy(folder_ / name, shipped_model());
    copy.edit_config([&](Json& config) {
      config["num_hidden_layers"] = 1;
      config["max_position_embeddings"] = 64;
      config["rope_scaling"] = scaling;
    });
    return run_program({"generate", copy.path(), "--prompt", prompt, "--max-tokens", tokens});
  };
  const Json dynamic = {{"type", "dynamic"}, {"factor", 2.0}};
  const Json linear = {{"type", "linear"}, {"factor", 2.0}};
  expect_refusal(generate("plain", nullptr, "40"), 1, {"64"});
  for (const auto& [name, scaling] : {std::pair("dynamic", dynamic), std::pair("linear", linear)}) {
    const Result longer = generate(name, scaling, "40");
    EXPECT_EQ(longer.code, 0) << longer.err;
    EXPECT_NE(longer.err.find("the rope_scaling of config.json allows up to 128"),
              std::string::npos)
        << longer.err;
    EXPECT_EQ(longer.err.find("frequencies that rope_scaling has") != std::string::npos,
              scaling == dynamic)
        << longer.err;
    expect_refusal(generate((std::string(name) + "2").c_str(), scaling, "400"), 1, {"128"});
  }
}

TEST_F(BadInputTest, MoreCalibrationThanMemory) {
  // 100000 windows x 2048 tokens x 384 channels x 4 bytes = 293.0 GiB.
  constexpr double kNeeded = 100000.0 * 2048 * 384 * 4;
  if (static_cast<double>(::sysconf(_SC_PHYS_PAGES)) * ::sysconf(_SC_PAGESIZE) > kNeeded)
    GTEST_SKIP() << "this machine has that much";
  expect_refusal(run_program({"quantize", model_, out_, "--samples", "100000"}), 1,
                 {"--samples", "100000", "2048", "293.0 GiB", "available"});
  expect_refusal(run_program({"eval", "ablation", model_, "--text", text(), "--samples", "100000"}),
                 1, {"--samples", "293.0 GiB"});
  expect_nothing_left();
}

TEST_F(BadInputTest, StandardOutputThatIsFull) {
  const std::vector<std::vector<std::string>> cases = {
      {"--help"},
      {"inspect", model_, "--json"},
      {"doctor"},
      {"generate", model_, "--prompt", "A", "--max-tokens", "4", "--quiet"}};
  for (const auto& arguments : cases) {
    SCOPED_TRACE(arguments[0]);
    expect_refusal(run_program(Invocation{.arguments = arguments, .out_path = "/dev/full"}), 1,
                   {"standard output"});
  }
}

TEST_F(BadInputTest, OptionsThatContradictEachOther) {
  expect_refusal(run_program({"generate", model_, "--prompt", "A", "--prompt-file", text()}), 2,
                 {"--prompt", "--prompt-file"});
  expect_refusal(
      run_program(Invocation{.arguments = {"generate", model_},
                             .environment = {{"ATOM_PROMPT", "A"}, {"ATOM_PROMPT_FILE", text()}}}),
      2, {"--prompt", "--prompt-file"});
  expect_refusal(run_program({"doctor", "--backend", "reference", "--isa", "baseline"}), 2,
                 {"--isa", "reference"});
}

TEST_F(BadInputTest, DiskFull) {
  const Result result =
      run_program(Invocation{.arguments = {"quantize", model_, out_, "--preset", "w8a8",
                                           "--samples", "1", "--sequence", "16", "--quiet"},
                             .file_bytes = 1 << 20});
  expect_refusal(result, 1, {"out"});
  expect_nothing_left();
}

}  // namespace
}  // namespace atom::testing
