// atom eval kld as a user runs it.
#include <gtest/gtest.h>

#include <cmath>

#include "apps/model_copy.h"
#include "apps/run_program.h"
#include "testing/temp_folder.h"

namespace atom::testing {
namespace {

class KldTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new TempFolder;
    quantized_ = (*folder_ / "w8a8").string();
    made_ =
        new Result(run_program({"quantize", shipped_model().string(), quantized_, "--preset",
                                "w8a8", "--samples", "1", "--sequence", "16", "--threads", "2"}));
  }
  static void TearDownTestSuite() {
    delete made_;
    delete folder_;
  }
  void SetUp() override { ASSERT_EQ(made_->code, 0) << made_->err; }

  static std::string text_path() {
    return (std::filesystem::path(ATOM_SOURCE_DIR) / "examples/text/wiki_eval.txt").string();
  }
  static Result compare(const std::string& a, const std::string& b,
                        std::vector<std::string> options = {}) {
    std::vector<std::string> arguments = {"eval", "kld", a, b, "--text", text_path()};
    arguments.insert(arguments.end(), options.begin(), options.end());
    return run_program(arguments);
  }
  static Json json_of(const Result& result) {
    EXPECT_EQ(result.code, 0) << result.err;
    return parse_json(result.out, {.source = "stdout"});
  }
  // One error with all the parts, exit code 1, nothing on stdout.
  static void expect_refusal(const Result& result, std::initializer_list<std::string> parts) {
    EXPECT_EQ(result.code, 1) << result.err;
    EXPECT_EQ(result.out, "");
    const size_t begin = result.err.find("atom: error: ");
    ASSERT_NE(begin, std::string::npos) << result.err;
    for (const std::string& part : parts)
      EXPECT_NE(result.err.find(part, begin), std::string::npos) << part << ": " << result.err;
  }

  static TempFolder* folder_;
  static std::string quantized_;
  static Result* made_;
  const std::string plain_ = shipped_model().string();
};
TempFolder* KldTest::folder_ = nullptr;
std::string KldTest::quantized_;
Result* KldTest::made_ = nullptr;

TEST_F(KldTest, MeasuresAQuantizedModel) {
  const std::vector<std::string> options = {"--context", "64", "--windows", "2", "--json"};
  const Json json = json_of(compare(plain_, quantized_, options));
  EXPECT_EQ(json["model_a"], plain_);
  EXPECT_EQ(json["model_b"], quantized_);
  EXPECT_EQ(json["formats_a"]["weights"], "bf16");
  EXPECT_EQ(json["formats_b"]["inputs"], "int8");
  EXPECT_EQ(json["tokens"], 2 * 63);
  EXPECT_EQ(json["window_kld"].size(), 2u);
  EXPECT_GT(json["mean_kld"].get<double>(), 0);
  EXPECT_LT(json["mean_kld"].get<double>(), 0.1);  // eight bits change little
  EXPECT_GT(json["same_top"].get<double>(), 0.8);
  EXPECT_GT(json["mean_kld_error"].get<double>(), 0);
  double before = json["min_kld"].get<double>();
  for (const char* percent : {"50", "90", "95", "99", "99.9"}) {
    ASSERT_TRUE(json["percentiles"].contains(percent)) << percent;
    EXPECT_GE(json["percentiles"][percent].get<double>(), before);
    before = json["percentiles"][percent].get<double>();
  }
  EXPECT_GE(json["max_kld"].get<double>(), before);
  EXPECT_NEAR(std::log(json["perplexity_b"].get<double>() / json["perplexity_a"].get<double>()),
              json["ln_ppl_ratio"].get<double>(), 1e-12);
  const Json alone = json_of(run_program({"eval", "ppl", plain_, "--text", text_path(), "--context",
                                          "64", "--windows", "2", "--json"}));
  EXPECT_NEAR(json["perplexity_a"].get<double>() / alone["perplexity"].get<double>(), 1, 1e-6);

  std::vector<std::string> one_thread = options;
  one_thread.insert(one_thread.end(), {"--threads", "1"});
  const Json again = json_of(compare(plain_, quantized_, one_thread));
  for (const char* key : {"mean_kld", "percentiles", "rms_dp", "window_kld", "ln_ppl_ratio_error"})
    EXPECT_EQ(again[key], json[key]) << key;
}

TEST_F(KldTest, PrintsATable) {
  const Result result = compare(plain_, plain_, {"--context", "32", "--windows", "1"});
  EXPECT_EQ(result.code, 0) << result.err;
  for (const char* part : {"mean KL divergence 0.000000", "median", "99.9 %", "largest",
                           "same top token", "100.000 %", "ln(PPL B / PPL A)", "31 tokens"})
    EXPECT_NE(result.out.find(part), std::string::npos) << part << "\n" << result.out;
}

TEST_F(KldTest, OneWindowHasNoErrors) {
  const Json json =
      json_of(compare(plain_, plain_, {"--context", "32", "--windows", "1", "--json", "--quiet"}));
  EXPECT_EQ(json["mean_kld"], 0);
  EXPECT_EQ(json["same_top"], 1);
  for (const char* key :
       {"mean_kld_error", "same_top_error", "rms_dp_error", "mean_dp_error", "ln_ppl_ratio_error"})
    EXPECT_TRUE(json[key].is_null()) << key;
}

TEST_F(KldTest, RefusesModelsThatDoNotCompare) {
  const TempFolder folder;
  const ModelCopy copy(folder / "model", plain_);
  copy.edit_config([](Json& config) { config["vocab_size"] = 4000; });
  expect_refusal(compare(plain_, copy.path()), {copy.path(), "vocab_size", "4000", "4096"});
  copy.edit_config([](Json& config) {
    config["vocab_size"] = 4096;
    config["max_position_embeddings"] = 128;
  });
  expect_refusal(compare(plain_, copy.path(), {"--context", "129"}),
                 {"--context", "129", copy.path(), "128"});
  write_text(folder / "text.txt", "The river rises in the hills.\n");
  expect_refusal(run_program({"eval", "kld", plain_, copy.path(), "--text",
                              (folder / "text.txt").string(), "--context", "100"}),
                 {"text.txt", "tokens", "100"});
}

TEST_F(KldTest, RefusesTokenizersThatDiffer) {
  const TempFolder folder;
  const ModelCopy copy(folder / "model", plain_);
  Json tokenizer = parse_json(read_file(shipped_model() / "tokenizer.json"));
  ASSERT_GT(tokenizer["model"]["merges"].size(), 10u);
  tokenizer["model"]["merges"].erase(0);  // the first merge: its token is spelled otherwise
  copy.replace("tokenizer.json", tokenizer.dump());
  expect_refusal(compare(plain_, copy.path()),
                 {copy.path(), "tokenizer", "token ", " is id ", "instead of id"});
}

}  // namespace
}  // namespace atom::testing
