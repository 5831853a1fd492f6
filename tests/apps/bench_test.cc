// atom bench: rows appear, JSON has its keys, wrong words are refused. Times are not asserted.
#include <gtest/gtest.h>

#include "apps/model_copy.h"
#include "apps/run_program.h"
#include "base/file.h"
#include "testing/temp_folder.h"

namespace atom::testing {
namespace {

Json json_of(std::vector<std::string> arguments) {
  arguments.push_back("--json");
  const Result result = run_program(std::move(arguments));
  EXPECT_EQ(result.code, 0) << result.err;
  return parse_json(result.out, {.source = "stdout"});
}

std::vector<std::string> step(std::vector<std::string> options) {
  std::vector<std::string> arguments = {"bench", "step",      "--shapes", "128x256",  "--layers",
                                        "2",     "--context", "70",       "--rounds", "1"};
  arguments.insert(arguments.end(), options.begin(), options.end());
  return arguments;
}

TEST(BenchTest, StepsOfEveryPreset) {
  for (const char* preset : {"fp", "w4a8", "w4a4", "nvfp4"}) {
    SCOPED_TRACE(preset);
    const Json json = json_of(step({"--preset", preset, "--batch", "1,3", "--threads", "2"}));
    EXPECT_EQ(json["preset"], preset);
    EXPECT_GT(json["ceilings"]["read_bytes_per_second"].get<double>(), 0);
    ASSERT_EQ(json["steps"].size(), 2u);
    for (const Json& row : json["steps"]) {
      EXPECT_EQ(row["shape"], "128x256");
      EXPECT_EQ(row["layers"], 2);
      for (const char* key : {"ms", "median_ms", "tokens_per_second", "time_over_floors"})
        EXPECT_GT(row[key].get<double>(), 0) << key;
      for (const char* key : {"linears", "attention", "producers", "head", "sample"})
        EXPECT_GT(row["breakdown_ms"][key].get<double>(), 0) << key;
      EXPECT_EQ(row["breakdown_ms"]["routing"].get<double>(), 0);
      EXPECT_GT(row["floor_ms"]["sum"].get<double>(), 0);
    }
    EXPECT_EQ(json["steps"][1]["batch"], 3);
  }
}

TEST(BenchTest, StepTableOfTheReference) {
  const Result result =
      run_program(step({"--backend", "reference", "--batch", "2", "--kv", "int8"}));
  ASSERT_EQ(result.code, 0) << result.err;
  for (const char* part :
       {"decoding steps", "reference", "w4a8", "int8", "tokens/s", "128x256", "time/floors"})
    EXPECT_NE(result.out.find(part), std::string::npos) << part << "\n" << result.out;
}

std::vector<std::string> ops(std::vector<std::string> options) {
  std::vector<std::string> arguments = {
      "bench",     "ops", "--shapes", "128x192", "--rows",   "1,3", "--batch",  "2",
      "--context", "70",  "--prompt", "80",      "--rounds", "1",   "--rotate", "0"};
  arguments.insert(arguments.end(), options.begin(), options.end());
  return arguments;
}

TEST(BenchTest, EveryOperationHasARow) {
  const Json json =
      json_of(ops({"--ops", "linear,chain,chain+producers,norm,gate,quantize,attention,prefill",
                   "--presets", "w4a8,fp", "--kv", "int4.open,f16", "--threads", "2"}));
  EXPECT_EQ(json["library"], "OpenBLAS sgemm");
  // Two presets and row counts of four linears, two chains, three producers; two caches.
  ASSERT_EQ(json["rows"].size(), 2u * 2 * (4 + 2 + 3) + 2 * 2);
  for (const Json& row : json["rows"]) {
    const std::string operation = row["operation"];
    SCOPED_TRACE(operation);
    EXPECT_GT(row["us"].get<double>(), 0);
    EXPECT_GT(row["bytes_per_second"].get<double>(), 0);
    EXPECT_GT(row["roofline"].get<double>(), 0);
    const bool attention = operation == "attention" || operation == "prefill";
    EXPECT_EQ(row["context"].is_null(), !attention);
    EXPECT_EQ(row["times_baseline"].is_null(), attention);  // no library has it
    if (!operation.starts_with("linear")) continue;
    EXPECT_GT(row["baselines_us"]["f32"].get<double>(), 0);
  }
}

TEST(BenchTest, TimesOfOthersStandBeside) {
  const TempFolder folder;
  const std::filesystem::path file = folder / "times.csv";
  write_text(file, "1,1,2,70,cudnn,50000\n384,128,3,f16,70000\n");
  const Json json = json_of(ops({"--ops", "linear,attention", "--presets", "w4a8", "--kv", "f16",
                                 "--backend", "reference", "--baseline", file.string()}));
  EXPECT_EQ(json["rows"].size(), 2u * 4 + 1);
  const Json& linear = json["rows"][4];  // qkv of three rows
  EXPECT_EQ(linear["operation"], "linear qkv");
  EXPECT_EQ(linear["baselines_us"]["file f16"], 70000);
  EXPECT_GT(linear["times_baseline"].get<double>(), 0);
  EXPECT_TRUE(linear["roofline"].is_null());
  EXPECT_EQ(json["rows"][8]["baselines_us"]["file cudnn"], 50000);

  write_text(file, "1,2\n");
  const Result result = run_program(ops({"--baseline", file.string()}));
  EXPECT_EQ(result.code, 1);
  EXPECT_NE(result.err.find("times.csv: line 1 must be numbers"), std::string::npos) << result.err;
}

TEST(BenchTest, OperationTable) {
  const Result result = run_program(ops({"--ops", "attention", "--kv", "int4", "--ragged"}));
  ASSERT_EQ(result.code, 0) << result.err;
  for (const char* part : {"operations", "OpenBLAS", "GB/s", "roofline", "U(1..70)"})
    EXPECT_NE(result.out.find(part), std::string::npos) << part << "\n" << result.out;
}

std::vector<std::string> throughput(std::vector<std::string> options) {
  std::vector<std::string> arguments = {
      "bench",         "throughput", "--random-weights", "128x256", "--layers",  "2",
      "--trace",       "30:20",      "--seconds",        "0.01",    "--threads", "2",
      "--temperature", "0"};
  arguments.insert(arguments.end(), options.begin(), options.end());
  return arguments;
}

TEST(BenchTest, ThroughputOfEveryFormat) {
  const Json json = json_of(throughput({"--batch", "published", "--memory", "25MB"}));
  EXPECT_EQ(json["trace"], "30:20");
  EXPECT_EQ(json["memory_bytes"], 25000000);
  ASSERT_EQ(json["runs"].size(), 5u);
  for (const Json& run : json["runs"]) {
    SCOPED_TRACE(run.dump());
    EXPECT_LE(run["bytes"].get<int64_t>(), 25000000);
    for (const char* key :
         {"tokens_per_second", "ms_per_token", "times_f16", "times_w8a8", "running"})
      EXPECT_GT(run[key].get<double>(), 0) << key;
    EXPECT_TRUE(run["void"].is_boolean());
    const std::string format = run["format"];
    EXPECT_EQ(run["batch"], format == "f16" ? 2 : format == "w4a16" || format == "w8a8" ? 4 : 8);
    if (run["format"] == "f16") {
      EXPECT_EQ(run["times_f16"], 1);
    }
  }
}

// Without reservations more fit; where not even one does, nothing runs.
TEST(BenchTest, ThroughputUnrestricted) {
  const Json json = json_of(throughput({"--memory", "17MB", "--formats", "w8a8,w4a8"}));
  ASSERT_EQ(json["runs"].size(), 4u);
  EXPECT_EQ(json["runs"][0]["batch"], 0);
  EXPECT_FALSE(json["runs"][0].contains("tokens_per_second"));
  EXPECT_EQ(json["runs"][1]["batch_rule"], "unrestricted");
  for (const int i : {1, 3}) EXPECT_GT(json["runs"][i]["batch"].get<int>(), 4) << i;
}

TEST(BenchTest, ThroughputWithoutRoomForAnything) {
  const Result result = run_program(throughput({"--memory", "1KiB", "--formats", "f16,w4a8"}));
  EXPECT_EQ(result.code, 1);
  EXPECT_NE(result.err.find("--memory 1KiB: not one sequence of any format fits"),
            std::string::npos)
      << result.err;
  EXPECT_EQ(result.err.find("void"), std::string::npos) << result.err;
}

TEST(BenchTest, ThroughputOfAModel) {
  const std::string model = shipped_model().string();
  const Result result =
      run_program({"bench", "throughput", model, "--memory", "64MiB", "--requests", "4", "--trace",
                   "20:4", "--batch", "published", "--threads", "2"});
  ASSERT_EQ(result.code, 0) << result.err;
  for (const char* part : {"throughput", "64MiB", "20:4", "4 requests", "tokens/s", "x f16"})
    EXPECT_NE(result.out.find(part), std::string::npos) << part << "\n" << result.out;
}

TEST(BenchTest, WrongWordsAreRefused) {
  struct Case {
    std::vector<std::string> options;
    const char* part;
    const char* verb = "step";
  };
  const Case cases[] = {
      {{"--ops", "linear,conv"}, "--ops: 'conv' is not one of linear", "ops"},
      {{"--presets", "w4a8,w5"}, "--presets: 'w5' is not one of fp", "ops"},
      {{"--rows", "0"}, "--rows: '0' is not a whole number", "ops"},
      {{"--kv", "int8.open"}, "--kv: 'int8.open' is not one of f32", "ops"},
      {{"--prompt", "1"}, "--prompt: '1' is not a whole number", "ops"},
      {{"--rotate", "-1"}, "--rotate: '-1' is not a whole number", "ops"},
      {{"--shapes", "llama-8b"}, "--shapes: 'llama-8b' is not one of llama-7b"},
      {{"--shapes", "100x256"}, "--shapes: 100 is not a multiple of 64"},
      {{"--shapes", "128x256,"}, "--shapes: '128x256,' has an empty word"},
      {{"--batch", "0"}, "--batch: '0' is not a whole number"},
      {{"--batch", "1,,2"}, "--batch: '1,,2' has an empty word"},
      {{"--context", "many"}, "--context: 'many' is not a whole number"},
      {{"--preset", "w3a3"}, "--preset: 'w3a3' is not one of fp"},
      {{"--kv", "int5"}, "--kv: 'int5' is not one of"},
      {{"--rounds", "0"}, "--rounds: '0' is not a whole number"},
      {{"--sustained", "-1"}, "--sustained: '-1' is not a number"},
      {{}, "MODEL or --random-weights is required", "throughput"},
      {{"m", "--random-weights", "llama-7b"}, "MODEL and --random-weights exclude", "throughput"},
      {{"m", "--formats", "f16"}, "--formats: a model has its own", "throughput"},
      {{"--random-weights", "128x256,128x192"},
       "--random-weights: '128x256,128x192' is not one shape",
       "throughput"},
      {{"--random-weights", "128x256", "--memory", "24"},
       "--memory: '24' is not a size",
       "throughput"},
      {{"--random-weights", "128x256", "--memory", "-1GiB"},
       "--memory: '-1GiB' is not a size",
       "throughput"},
      {{"--random-weights", "128x256", "--formats", "f16,w2"},
       "--formats: 'w2' is not one of f16",
       "throughput"},
      {{"--random-weights", "128x256", "--batch", "all"},
       "--batch: 'all' is not one of published",
       "throughput"},
      {{"--random-weights", "128x256", "--trace", "long"},
       "--trace: 'long' is neither published nor IN:OUT",
       "throughput"},
      {{"--random-weights", "128x256", "--trace", "0:5"},
       "--trace: '0' is not a whole number",
       "throughput"},
      {{"--random-weights", "128x256", "--requests", "0"},
       "--requests: '0' is not a whole number",
       "throughput"}};
  for (const Case& c : cases) {
    std::vector<std::string> arguments = {"bench", c.verb};
    arguments.insert(arguments.end(), c.options.begin(), c.options.end());
    const Result result = run_program(arguments);
    EXPECT_EQ(result.code, 2) << c.part;
    EXPECT_NE(result.err.find(std::string("atom: error: ") + c.part), std::string::npos)
        << result.err;
    EXPECT_EQ(result.out, "");
  }
}

TEST(BenchTest, TooMuchMemoryIsRefusedAtOnce) {
  struct Case {
    std::vector<std::string> arguments;
    std::vector<const char*> parts;
  };
  const Case cases[] = {
      {{"bench", "step", "--shapes", "llama2-70b", "--batch", "1,4096", "--context", "1048576"},
       {"--shapes: llama2-70b with 80 layers, batch 4096 and context 1048576 needs at least ",
        "TiB of memory, but ", "fewer --layers, --batch and --context, and fewer bits by"}},
      {{"bench", "ops", "--ops", "chain", "--presets", "w4a8", "--shapes", "131072x131072",
        "--rotate", "1048576"},
       {"--shapes: 131072x131072 in w4a8 with 16 rows needs", "fewer --rows and --rotate"}},
      {{"bench", "ops", "--ops", "attention", "--kv", "f32", "--batch", "4096", "--context",
        "1048576"},
       {"--shapes: llama-7b with 4096 times 1048576 positions in f32 needs", "fewer --batch"}}};
  for (const Case& c : cases) {
    const Result result = run_program(c.arguments);
    EXPECT_EQ(result.code, 1);
    EXPECT_EQ(result.out, "");
    for (const char* part : c.parts)
      EXPECT_NE(result.err.find(part), std::string::npos) << part << "\n" << result.err;
  }
}

TEST(BenchTest, TuningNeedsABackendWithChoices) {
  const TempFolder folder;
  const std::filesystem::path file = folder / "tuned.json";
  for (const char* backend : {"cpu", "reference"}) {
    const Result result = run_program(ops({"--backend", backend, "--tune", file.string()}));
    EXPECT_EQ(result.code, 2);
    EXPECT_NE(result.err.find(std::string("atom: error: --tune: ") + backend), std::string::npos)
        << result.err;
    EXPECT_NE(result.err.find(" has nothing to tune\n"), std::string::npos) << result.err;
    EXPECT_FALSE(std::filesystem::exists(file));
    const Result step = run_program(
        {"bench", "step", "--shapes", "256x512", "--backend", backend, "--tune", file.string()});
    EXPECT_EQ(step.code, 2);
    EXPECT_NE(step.err.find(std::string("atom: error: --tune: ") + backend), std::string::npos)
        << step.err;
    EXPECT_FALSE(std::filesystem::exists(file));
  }
}

TEST(BenchTest, TuningStepsNeedsPlansThatMeasurementsDecide) {
  const TempFolder folder;
  const std::filesystem::path file = folder / "tuned.json";
  const Result result = run_program(
      {"bench", "step", "--shapes", "256x512", "--batch-invariant", "--tune", file.string()});
  EXPECT_EQ(result.code, 2);
  EXPECT_NE(result.err.find("--tune: steps have no choice of plans with --batch-invariant"),
            std::string::npos)
      << result.err;
  EXPECT_FALSE(std::filesystem::exists(file));
}

TEST(BenchTest, PlansThatNobodyReadsAreNamed) {
  for (const char* backend : {"cpu", "reference"}) {
    const Result result = run_program({"doctor", "--backend", backend, "--tuned", "plans.json"});
    EXPECT_EQ(result.code, 0) << result.err;
    EXPECT_NE(result.err.find(std::string("--tuned: plans.json is not read, the ") + backend),
              std::string::npos)
        << result.err;
  }
}

// What --tune writes, --tuned reads; a file of another device is refused.
TEST(BenchTest, TuningOnTheGpu) {
  const Json cuda = json_of({"doctor"})["cuda"];
  const std::string device = cuda["device"];
  if (device.find("Hopper kernels") == std::string::npos)
    GTEST_SKIP() << "no Hopper GPU: " << device << cuda["problem"].get<std::string>();
  const TempFolder folder;
  const std::filesystem::path file = folder / "tuned.json";
  const Json tuned = json_of({"bench", "ops", "--backend", "cuda", "--shapes", "512x1024",
                              "--presets", "w4a8,w4a4,w4a16", "--rows", "4", "--rounds", "1",
                              "--rotate", "0", "--tune", file.string()});
  EXPECT_EQ(tuned["file"], file.string());
  ASSERT_EQ(tuned["linears"].size(), 3u * 4 + 1);
  for (const Json& row : tuned["linears"]) {
    EXPECT_GT(row["choices"].get<int>(), 1);
    EXPECT_GT(row["before_us"].get<double>(), 0);
    EXPECT_GT(row["after_us"].get<double>(), 0);
  }
  const std::filesystem::path of_steps = folder / "steps.json";
  const Json steps = json_of({"bench", "step", "--backend", "cuda", "--shapes", "512x1024",
                              "--layers", "2", "--preset", "w4a8", "--batch", "4", "--context",
                              "64", "--rounds", "1", "--tune", of_steps.string()});
  EXPECT_EQ(steps["file"], of_steps.string());
  ASSERT_EQ(steps["linears"].size(), 5u);
  for (const Json& row : steps["linears"]) EXPECT_GE(row["before_us"], row["after_us"]);
  EXPECT_EQ(parse_json(read_file(of_steps), {.source = "steps.json"})["plans"].size(), 5u);
  const auto described = [&](const std::string& tuned_file) {
    return run_program({"doctor", "--backend", "cuda", "--tuned", tuned_file});
  };
  const Result accepted = described(file.string());
  EXPECT_EQ(accepted.code, 0) << accepted.err;
  EXPECT_NE(accepted.out.find("13 plans of " + file.string() + ", else"), std::string::npos)
      << accepted.out;
  Json other = parse_json(read_file(file), {.source = "tuned.json"});
  ASSERT_EQ(other["plans"].size(), 13u);
  other["device"] = "another device";
  write_text(file, other.dump());
  const Result refused = described(file.string());
  EXPECT_EQ(refused.code, 1);
  EXPECT_NE(refused.err.find("\"another device\""), std::string::npos) << refused.err;
}

TEST(BenchTest, InterruptEndsIt) {
  const Result result = run_program(Invocation{
      .arguments = {"bench", "step", "--shapes", "256x512", "--rounds", "1000", "--sustained", "1"},
      .interrupt_after = "time "});
  EXPECT_EQ(result.code, 130) << result.err;
}

}  // namespace
}  // namespace atom::testing
