// The main path through the program: quantize, verify, inspect, measure, generate.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "apps/model_copy.h"
#include "apps/run_program.h"
#include "testing/sanitized.h"
#include "testing/temp_folder.h"

namespace atom::testing {
namespace {

const char* const kText = "examples/text/wiki_eval.txt";
std::string text_path() { return (std::filesystem::path(ATOM_SOURCE_DIR) / kText).string(); }

Json json_of(const Result& result) {
  EXPECT_EQ(result.code, 0) << result.err;
  return parse_json(result.out, {.source = "stdout"});
}

// One quantized model for all tests of the file; the settings are small, not good.
class ProgramTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new TempFolder;
    quantized_ = (*folder_ / "w4a4").string();
    made_ = new Result(quantize(quantized_, {"--threads", "2"}));
  }
  static void TearDownTestSuite() {
    delete made_;
    delete folder_;
  }

  static Result quantize(const std::string& output, std::vector<std::string> options,
                         const std::string& model = shipped_model().string()) {
    std::vector<std::string> arguments = {"quantize", model,        output, "--samples",
                                          "2",        "--sequence", "64"};
    arguments.insert(arguments.end(), options.begin(), options.end());
    return run_program(arguments);
  }

  static TempFolder* folder_;
  static std::string quantized_;
  static Result* made_;
};
TempFolder* ProgramTest::folder_ = nullptr;
std::string ProgramTest::quantized_;
Result* ProgramTest::made_ = nullptr;

TEST_F(ProgramTest, QuantizeSumsUp) {
  ASSERT_EQ(made_->code, 0) << made_->err;
  for (const char* part : {"size", "bits/weight", "embedded", "peak memory", "worst"})
    EXPECT_NE(made_->out.find(part), std::string::npos) << part << "\n" << made_->out;
  EXPECT_EQ((made_->out + made_->err).find('\x1b'), std::string::npos);  // no terminal, no escapes
}

TEST_F(ProgramTest, VerifyFindsOneChangedByte) {
  const Json good = json_of(run_program({"verify", quantized_, "--json"}));
  EXPECT_TRUE(good["ok"].get<bool>());
  EXPECT_GE(good["files"].size(), 3u);

  const std::filesystem::path copy = *folder_ / "damaged";
  std::filesystem::copy(quantized_, copy);
  std::string bytes = read_file(copy / "tokenizer.json");
  bytes[bytes.size() / 2] ^= 1;
  write_text(copy / "tokenizer.json", bytes);
  const Result result = run_program({"verify", copy.string()});
  EXPECT_EQ(result.code, 1);
  EXPECT_NE(result.err.find("atom: error: "), std::string::npos);
  EXPECT_NE(result.out.find("tokenizer.json"), std::string::npos);
}

TEST_F(ProgramTest, InspectKnowsFormatsAndSize) {
  const Json plain = json_of(run_program({"inspect", shipped_model().string(), "--json"}));
  EXPECT_EQ(plain["architecture"], "LlamaForCausalLM");
  EXPECT_EQ(plain["bits_per_weight"].get<double>(), 16);
  EXPECT_FALSE(plain["quantized"].get<bool>());
  // Embedding 4096 x 384, six layers, thirteen norms.
  const int64_t layer = 384 * (384 + 128 + 128 + 384) + 3 * 384 * 1024;
  EXPECT_EQ(plain["parameters"].get<int64_t>(), 4096 * 384 + 6 * layer + 13 * 384);

  const Json small = json_of(run_program({"inspect", quantized_, "--json"}));
  EXPECT_EQ(small["parameters"], plain["parameters"]);  // the head stays tied to the embedding
  EXPECT_TRUE(small["quantized"].get<bool>());
  EXPECT_GT(small["bits_per_weight"].get<double>(), 4);
  EXPECT_LT(small["bits_per_weight"].get<double>(), 6.5);
  // int4: 64 bytes of codes and 4 of parameters for K and for V, one head of 128, six layers.
  EXPECT_EQ(small["kv_bytes_per_token"].get<int64_t>(), 6 * 2 * (64 + 4));
  EXPECT_EQ(small["layer_formats"].size(), 1u);
  EXPECT_EQ(plain["provenance"], nullptr);
  EXPECT_EQ(small["provenance"],
            parse_json(read_file(std::filesystem::path(quantized_) / "atom_provenance.json")));
  const Result text = run_program({"inspect", quantized_});
  EXPECT_EQ(text.code, 0);
  for (const std::string& part :
       {"atom " + small["provenance"]["version"].get<std::string>(), std::string("key offsets f32"),
        std::string("stream basis f32"), std::string("w4a4, method best"),
        std::string("2 windows of 64, seed 0"),
        small["provenance"]["calibration"]["sha256"].get<std::string>()})
    EXPECT_NE(text.out.find(part), std::string::npos) << part << "\n" << text.out;
}

TEST_F(ProgramTest, InspectSurvivesAnyProvenance) {
  const TempFolder folder;
  const ModelCopy copy(folder / "model", quantized_);
  for (const char* bytes : {"", "[]", "{}", "{\"recipe\": 1, \"calibration\": [2]}",
                            "{\"error\": {\"a\": 1}}", "{\"version\": null"}) {
    copy.replace("atom_provenance.json", bytes);
    EXPECT_EQ(run_program({"inspect", copy.path()}).code, 0) << bytes;
    EXPECT_EQ(run_program({"inspect", copy.path(), "--json"}).code, 0) << bytes;
  }
}

// The first words of the list after "JSON keys: " in a help: its keys outside of brackets.
std::vector<std::string> documented_keys(const std::vector<std::string>& verb) {
  std::vector<std::string> arguments = verb;
  arguments.push_back("--help");
  const std::string help = run_program(arguments).out;
  const std::string_view mark = "JSON keys: ";
  const size_t begin = help.find(mark);
  EXPECT_NE(begin, std::string::npos) << help;
  std::vector<std::string> keys = {""};
  int depth = 0;
  bool word = true;  // still in the key, not in what explains it
  for (size_t i = begin + mark.size(); i < help.size() && help.substr(i, 2) != "\n\n"; ++i) {
    const char c = help[i];
    depth += (c == '{' || c == '[' || c == '(') - (c == '}' || c == ']' || c == ')');
    if (depth == 0 && c == ',') {
      keys.emplace_back();
      word = true;
    } else if (std::isalpha(static_cast<unsigned char>(c)) || c == '_') {
      if (depth == 0 && word) keys.back() += c;
    } else if (!keys.back().empty()) {
      word = false;
    }
  }
  return keys;
}

void expect_documented_keys(const std::vector<std::string>& verb, const Json& json) {
  const std::vector<std::string> keys = documented_keys(verb);
  for (const std::string& key : keys)
    EXPECT_TRUE(json.contains(key)) << verb.back() << ": '" << key << "'";
  for (const auto& [key, value] : json.items())
    EXPECT_NE(std::find(keys.begin(), keys.end(), key), keys.end())
        << verb.back() << " does not document " << key;
}

TEST_F(ProgramTest, DocumentedKeysAreThoseOfTheJson) {
  expect_documented_keys({"inspect"}, json_of(run_program({"inspect", quantized_, "--json"})));
  expect_documented_keys({"verify"}, json_of(run_program({"verify", quantized_, "--json"})));
  expect_documented_keys({"doctor"}, json_of(run_program({"doctor", "--json"})));
  expect_documented_keys({"generate"}, json_of(run_program({"generate", quantized_, "--prompt", "A",
                                                            "--max-tokens", "2", "--json"})));
  expect_documented_keys({"eval", "ppl"},
                         json_of(run_program({"eval", "ppl", quantized_, "--text", text_path(),
                                              "--context", "16", "--windows", "1", "--json"})));
  expect_documented_keys(
      {"eval", "kld"},
      json_of(run_program({"eval", "kld", shipped_model().string(), quantized_, "--text",
                           text_path(), "--context", "16", "--windows", "1", "--json"})));
  const Json report = parse_json(read_file(std::filesystem::path(quantized_) / "report.json"));
  expect_documented_keys({"quantize"}, report);
  for (const char* key : {"name", "format", "kept", "rounding", "error", "weight_error", "tokens"})
    EXPECT_TRUE(report["modules"][0].contains(key)) << key;
  for (const char* key : {"name", "tokens", "samples", "sequence", "seed"})
    EXPECT_TRUE(report["calibration"].contains(key)) << key;
}

TEST_F(ProgramTest, ColoursOnATerminalOnly) {
  if (!has_terminals()) GTEST_SKIP() << "this system gives no pseudo-terminal";
  const auto inspect = [&](bool terminal, std::vector<std::pair<std::string, std::string>> more) {
    return run_program(Invocation{.arguments = {"inspect", shipped_model().string()},
                                  .environment = std::move(more),
                                  .terminal = terminal})
        .out;
  };
  EXPECT_NE(inspect(true, {{"NO_COLOR", ""}}).find("\x1b[1m"), std::string::npos);
  EXPECT_EQ(inspect(true, {{"NO_COLOR", "1"}}).find('\x1b'), std::string::npos);
  EXPECT_EQ(inspect(false, {{"NO_COLOR", ""}}).find('\x1b'), std::string::npos);
}

TEST_F(ProgramTest, ControlsOfTheTextReachPipesButNoTerminal) {
  if (!has_terminals()) GTEST_SKIP() << "this system gives no pseudo-terminal";
  const std::vector<std::string> arguments = {"generate",    shipped_model().string(), "--prompt",
                                              "A\x1b[2J\tB", "--max-tokens",           "1"};
  const std::string shown =
      run_program(
          Invocation{.arguments = arguments, .environment = {{"NO_COLOR", "1"}}, .terminal = true})
          .out;
  EXPECT_NE(shown.find("A\\x1b[2J"), std::string::npos) << shown;
  EXPECT_EQ(shown.find('\x1b'), std::string::npos);
}

TEST_F(ProgramTest, PerplexityJsonHasTheDocumentedKeys) {
  const auto score = [&](const std::string& model) {
    return json_of(run_program({"eval", "ppl", model, "--text", text_path(), "--context", "128",
                                "--windows", "3", "--json"}));
  };
  const Json plain = score(shipped_model().string());
  for (const char* key : {"perplexity", "nll", "window_nll", "tokens", "windows", "context",
                          "seconds", "tokens_per_second", "model", "formats"})
    EXPECT_TRUE(plain.contains(key)) << key;
  EXPECT_EQ(plain["tokens"], 3 * 127);
  EXPECT_EQ(plain["window_nll"].size(), 3u);
  EXPECT_EQ(plain["formats"]["weights"], "bf16");
  EXPECT_NEAR(plain["perplexity"].get<double>(), std::exp(plain["nll"].get<double>()), 1e-9);

  const Json small = score(quantized_);
  EXPECT_EQ(small["formats"]["kv"], "int4");
  EXPECT_GT(small["perplexity"].get<double>(), plain["perplexity"].get<double>());
  // Two windows of 64 tokens calibrate badly, yet far from the collapse of plain 4-bit rounding (4x
  // and more).
  EXPECT_LT(small["perplexity"].get<double>(), 2 * plain["perplexity"].get<double>());
}

TEST_F(ProgramTest, GenerateStreamsTextAndTellsItsSpeed) {
  const std::vector<std::string> arguments = {"generate",     quantized_, "--prompt", "The city",
                                              "--max-tokens", "12",       "--seed",   "3"};
  const Result first = run_program(arguments);
  ASSERT_EQ(first.code, 0) << first.err;
  EXPECT_GT(first.out.size(), 12u);
  EXPECT_EQ(first.out.back(), '\n');
  EXPECT_NE(first.err.find("tok/s"), std::string::npos);
  EXPECT_EQ(run_program(arguments).out, first.out);

  std::vector<std::string> with_json = arguments;
  with_json.insert(with_json.end(), {"--json", "--quiet"});
  const Result document = run_program(with_json);
  EXPECT_EQ(json_of(document)["text"].get<std::string>() + "\n", first.out);
  EXPECT_EQ(document.err, "");
  // generation_config.json of the model says so.
  EXPECT_NEAR(json_of(document)["temperature"].get<double>(), 0.8, 1e-6);
  EXPECT_NEAR(json_of(document)["top_p"].get<double>(), 0.95, 1e-6);
}

TEST_F(ProgramTest, ThreadsAndRunsGiveTheSameBytes) {
  if (kSanitized) GTEST_SKIP() << "quantizes again: minutes there, and nothing new to a sanitizer";
  const std::string other = (*folder_ / "again").string();
  ASSERT_EQ(quantize(other, {"--threads", "1"}).code, 0);
  EXPECT_EQ(read_file(*folder_ / "again" / "model.safetensors"),
            read_file(*folder_ / "w4a4" / "model.safetensors"));
  EXPECT_EQ(read_file(*folder_ / "again" / "config.json"),
            read_file(*folder_ / "w4a4" / "config.json"));
}

TEST_F(ProgramTest, FarTooManyKeptChannelsAreClampedWithANotice) {
  const std::string output = (*folder_ / "kept").string();
  const ModelCopy model = two_layers(*folder_ / "two");
  const Result result = quantize(output, {"--kept", "100000"}, model.path());
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_NE(result.out.find("100000"), std::string::npos) << result.out;
  EXPECT_NE(result.out.find("clamped"), std::string::npos) << result.out;
  EXPECT_EQ(run_program({"verify", output}).code, 0);
}

TEST_F(ProgramTest, EnvironmentSetsOptionsAndTheCommandLineWins) {
  const auto context = [&](std::vector<std::pair<std::string, std::string>> environment,
                           std::vector<std::string> options) {
    std::vector<std::string> arguments = {"eval", "ppl", shipped_model().string(), "--windows",
                                          "1"};
    arguments.insert(arguments.end(), options.begin(), options.end());
    environment.emplace_back("ATOM_TEXT", text_path());
    environment.emplace_back("ATOM_JSON", "1");
    return run_program(Invocation{.arguments = arguments, .environment = environment});
  };
  EXPECT_EQ(json_of(context({{"ATOM_CONTEXT", "32"}}, {}))["context"], 32);
  EXPECT_EQ(json_of(context({{"ATOM_CONTEXT", "32"}}, {"--context", "16"}))["context"], 16);

  const Result wrong = context({{"ATOM_CONTEXT", "many"}}, {});
  EXPECT_EQ(wrong.code, 2);
  EXPECT_NE(wrong.err.find("ATOM_CONTEXT"), std::string::npos) << wrong.err;
  // A variable of another verb is not looked at.
  EXPECT_EQ(run_program(Invocation{.arguments = {"inspect", shipped_model().string()},
                                   .environment = {{"ATOM_CONTEXT", "many"}}})
                .code,
            0);
}

TEST_F(ProgramTest, TheCommandLineBeatsContradictingVariables) {
  const TempFolder folder;
  write_text(folder / "prompt.txt", "The river");
  const Result file = run_program(
      Invocation{.arguments = {"generate", quantized_, "--prompt-file",
                               (folder / "prompt.txt").string(), "--max-tokens", "1", "--json"},
                 .environment = {{"ATOM_PROMPT", "The city"}}});
  EXPECT_EQ(json_of(file)["prompt"], "The river");
  const Result word = run_program(
      Invocation{.arguments = {"generate", quantized_, "-p", "The city", "-n", "1", "--json"},
                 .environment = {{"ATOM_PROMPT_FILE", (folder / "prompt.txt").string()}}});
  EXPECT_EQ(json_of(word)["prompt"], "The city");
  const auto backend = [](std::vector<std::string> options, const char* name, const char* value) {
    options.insert(options.begin(), {"doctor", "--json"});
    const Json json =
        json_of(run_program(Invocation{.arguments = options, .environment = {{name, value}}}));
    return json["backend"].get<std::string>().substr(0, 3);
  };
  EXPECT_EQ(backend({"--backend", "reference"}, "ATOM_ISA", "baseline"), "ref");
  EXPECT_EQ(backend({"--isa", "baseline"}, "ATOM_BACKEND", "reference"), "cpu");
}

TEST_F(ProgramTest, KilledQuantizationIsResumedToTheSameBytes) {
  if (kSanitized) GTEST_SKIP() << "quantizes again: minutes there, and nothing new to a sanitizer";
  const std::string output = (*folder_ / "resumed").string();
  const std::vector<std::string> arguments = {"quantize", shipped_model().string(),
                                              output,     "--samples",
                                              "2",        "--sequence",
                                              "64",       "--threads",
                                              "1"};  // slow enough to be killed
  const Result killed = run_program(
      Invocation{.arguments = arguments, .interrupt_after = "elapsed", .signal = SIGKILL});
  EXPECT_EQ(killed.code, 128 + SIGKILL) << killed.err;
  EXPECT_FALSE(std::filesystem::exists(output));
  const Result refused = run_program(Invocation{.arguments = arguments});
  EXPECT_EQ(refused.code, 1);
  EXPECT_NE(refused.err.find("--resume"), std::string::npos) << refused.err;
  EXPECT_EQ(quantize(output, {"--resume"}).code, 0);
  for (const char* name : {"model.safetensors", "config.json", "atom_provenance.json"})
    EXPECT_EQ(read_file(std::filesystem::path(output) / name),
              read_file(std::filesystem::path(quantized_) / name))
        << name;
  for (const std::string& name : folder_->names()) EXPECT_NE(name.rfind(".resumed", 0), 0u) << name;
}

TEST(AblationTest, HasARowPerStepAndCleansUp) {
  const TempFolder temporary, models;
  const ModelCopy model = two_layers(models / "two");
  const auto ablate = [&](std::vector<std::string> options) {
    std::vector<std::string> arguments = {"eval",      "ablation",  model.path(), "--text",
                                          text_path(), "--context", "64",         "--windows",
                                          "1",         "--samples", "1",          "--sequence",
                                          "64",        "--json",    "--quiet"};
    arguments.insert(arguments.end(), options.begin(), options.end());
    Json json = json_of(run_program(Invocation{
        .arguments = arguments, .environment = {{"TMPDIR", temporary.path().string()}}}));
    EXPECT_TRUE(temporary.names().empty());
    for (const Json& row : json["rows"]) {
      EXPECT_EQ(row["perplexity"].size(), 1u);
      EXPECT_GT(row["perplexity"][0].get<double>(), 1);
    }
    return json;
  };
  const Json published = ablate({"--steps", "published"});
  ASSERT_EQ(published["rows"].size(), 8u);
  EXPECT_GT(published["rows"][1]["perplexity"][0].get<double>(),
            published["rows"][0]["perplexity"][0].get<double>());
  EXPECT_FALSE(published["rows"][1].contains("mean_kld"));
  if (kSanitized) return;  // the rest takes minutes there
  const Json best = ablate({"--steps", "best", "--kld"});
  expect_documented_keys({"eval", "ablation"}, best);
  ASSERT_EQ(best["rows"].size(), 17u);
  EXPECT_EQ(best["rows"][0]["mean_kld"][0], 0);
  // 64 tokens of calibration say nothing of most directions: no ingredient may make much of that.
  for (size_t i = 1; i < best["rows"].size(); ++i) {
    EXPECT_GT(best["rows"][i]["mean_kld"][0].get<double>(), 0) << i;
    EXPECT_LT(best["rows"][i]["mean_kld"][0].get<double>(), 1) << i;
  }
  // Both ways to the published method end at the same model; one is scored by ppl, the other by kld.
  EXPECT_NEAR(best["rows"][1]["perplexity"][0].get<double>(),
              published["rows"][7]["perplexity"][0].get<double>(),
              1e-9 * published["rows"][7]["perplexity"][0].get<double>());
}

TEST_F(ProgramTest, DoctorAndHelp) {
  const Json doctor = json_of(run_program({"doctor", "--json"}));
  EXPECT_GE(doctor["threads"].get<int>(), 1);
  EXPECT_EQ(doctor["isa_levels"][0]["name"], "baseline");
  EXPECT_TRUE(doctor["isa_levels"][0]["available"].get<bool>());
  EXPECT_EQ(run_program({"doctor"}).code, 0);

  for (const std::vector<std::string>& verb :
       std::vector<std::vector<std::string>>{{},
                                             {"quantize"},
                                             {"eval"},
                                             {"eval", "ppl"},
                                             {"eval", "kld"},
                                             {"eval", "ablation"},
                                             {"generate"},
                                             {"inspect"},
                                             {"verify"},
                                             {"doctor"}}) {
    std::vector<std::string> arguments = verb;
    arguments.push_back("--help");
    const Result help = run_program(arguments);
    EXPECT_EQ(help.code, 0);
    EXPECT_NE(help.out.find("Usage: atom"), std::string::npos) << help.out;
    EXPECT_EQ(help.err, "");
    size_t begin = 0;
    for (size_t end; (end = help.out.find('\n', begin)) != std::string::npos; begin = end + 1)
      EXPECT_LE(end - begin, 100u) << help.out.substr(begin, end - begin);
  }
  EXPECT_EQ(run_program({"--version"}).out.rfind("atom ", 0), 0u);
}

}  // namespace
}  // namespace atom::testing
