// atom convert as a user runs it: both directions, exit codes and messages.
#include <gtest/gtest.h>

#include <filesystem>

#include "apps/run_program.h"
#include "base/json.h"
#include "testing/temp_folder.h"

namespace atom::testing {
namespace {

std::string gguf_data(const std::string& name) {
  return (std::filesystem::path(ATOM_SOURCE_DIR) / "tests/data/gguf" / name).string();
}

TEST(ConvertTest, ThereAndBack) {
  const TempFolder scratch(TempFolder::memory());
  const std::string file = (scratch / "m.gguf").string(), back = (scratch / "back").string();
  const Result there =
      run_program({"convert", gguf_data("llama"), file, "--type", "q8_0", "--json"});
  ASSERT_EQ(there.code, 0) << there.err;
  const Json report = parse_json(there.out, {.source = "stdout"});
  EXPECT_EQ(report.at("output"), file);
  EXPECT_EQ(report.at("as_f16"), Json::array());
  EXPECT_GT(report.at("output_bytes").get<int64_t>(), 1000);
  const Result again = run_program({"convert", gguf_data("llama"), file});
  EXPECT_EQ(again.code, 1);
  EXPECT_NE(again.err.find("m.gguf: the output exists"), std::string::npos) << again.err;
  const Result here = run_program({"convert", file, back, "--type", "f32"});
  ASSERT_EQ(here.code, 0) << here.err;
  EXPECT_EQ(run_program({"verify", back}).code, 0);
}

// A file with its tokenizer is a model like a folder: the same perplexity to the last digit, and the same text.
TEST(ConvertTest, AFileIsEvaluatedAndContinuedAsItsFolder) {
  const TempFolder scratch;
  const std::string file = (scratch / "m.gguf").string();
  const std::string folder = std::string(ATOM_SOURCE_DIR) + "/models/ref-dense-11m";
  ASSERT_EQ(run_program({"convert", folder, file, "--type", "bf16"}).code, 0);
  const auto perplexity = [](const std::string& model) {
    const Result result =
        run_program({"eval", "ppl", model, "--text", ATOM_SOURCE_DIR "/examples/text/wiki_eval.txt",
                     "--windows", "1", "--context", "128", "--json"});
    EXPECT_EQ(result.code, 0) << result.err;
    return parse_json(result.out, {.source = "stdout"}).at("perplexity").get<double>();
  };
  EXPECT_EQ(perplexity(file), perplexity(folder));
  const auto text = [](const std::string& model) {
    return run_program(
               {"generate", model, "--prompt", "The city", "-n", "8", "--temperature", "0", "-q"})
        .out;
  };
  EXPECT_EQ(text(file), text(folder));
  EXPECT_FALSE(text(file).empty());
}

TEST(ConvertTest, ContradictionsAreWrongCommandLines) {
  const TempFolder scratch(TempFolder::memory());
  const std::string folder = (scratch / "folder").string();
  const Result name = run_program({"convert", gguf_data("llama"), folder});
  EXPECT_EQ(name.code, 2);
  EXPECT_NE(name.err.find("must end in .gguf"), std::string::npos) << name.err;
  const Result type =
      run_program({"convert", gguf_data("llama-f16.gguf"), folder, "--type", "q8_0"});
  EXPECT_EQ(type.code, 2);
  EXPECT_NE(type.err.find("q8_0 is a type of GGUF files"), std::string::npos) << type.err;
  EXPECT_TRUE(scratch.names().empty());
}

}  // namespace
}  // namespace atom::testing
