// Every number of config.json, generation_config.json and quantization_config with every kind of wrong value: a sentence
// that names file and field. What the cases call right must be accepted; so the tables know the ranges.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "base/error.h"
#include "model/config.h"
#include "model/generation_config.h"
#include "model/scheme.h"
#include "testing/expect_error.h"
#include "testing/memory_limit.h"

namespace atom::model {
namespace {

using testing::expect_error;

// JSON texts; NaN and infinities are none, so that the parser refuses them (tests/base/json_test.cc).
const std::vector<std::string> kHostileValues = {"-1",
                                                 "0",
                                                 "0.5",
                                                 "2.5",
                                                 "2147483648",
                                                 "-2147483649",
                                                 "9223372036854775807",
                                                 "9223372036854775808",
                                                 "18446744073709551616",
                                                 "-9223372036854775809",
                                                 "1e30",
                                                 "-1e30",
                                                 "1e-300",
                                                 "\"1\"",
                                                 "\"\"",
                                                 "true",
                                                 "false",
                                                 "[]",
                                                 "[1]",
                                                 "{}",
                                                 "{\"a\":1}"};

struct NumberCase {
  const char* path;  // JSON pointer of the field in the document
  std::vector<std::string> right = {};
  const char* named = nullptr;  // in the message; null: the pointer's last word
};

// Puts every value where the case says and expects `read` to refuse it or, where it is right, to accept it.
void expect_only_right(const Json& good, const std::vector<NumberCase>& cases,
                       const std::function<void(const Json&)>& read) {
  EXPECT_NO_THROW(read(good));
  for (const NumberCase& one : cases) {
    const std::string path = one.path;
    const std::string named = one.named ? one.named : path.substr(path.rfind('/') + 1);
    for (const std::string& value : kHostileValues) {
      SCOPED_TRACE(path + ": " + value);
      Json json = good;
      json[Json::json_pointer(path)] = parse_json(value);
      if (std::find(one.right.begin(), one.right.end(), value) != one.right.end())
        EXPECT_NO_THROW(read(json));
      else
        expect_error([&] { read(json); }, {"file.json", named});
    }
  }
}

Json mixture_json() {
  return parse_json(R"({"architectures": ["Qwen3MoeForCausalLM"], "vocab_size": 100,
    "hidden_size": 64, "intermediate_size": 96, "moe_intermediate_size": 32, "head_dim": 16,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "rope_theta": 50000.0,
    "num_experts": 4, "num_experts_per_tok": 2, "eos_token_id": 2})");
}

void read_config(const Json& json) { parse_config(json, "file.json"); }

TEST(HostileConfig, EveryNumberIsChecked) {
  const std::vector<NumberCase> cases = {
      {"/vocab_size", {}, ""},  // of 1e-300 and the like; eos_token_id does not fit a smaller one
      {"/hidden_size"},
      {"/moe_intermediate_size"},
      {"/num_hidden_layers"},
      {"/num_attention_heads"},
      {"/num_key_value_heads"},
      {"/head_dim"},
      {"/max_position_embeddings"},
      {"/rms_norm_eps", {"0", "0.5", "1e-300"}},
      {"/rope_theta", {"2.5", "2147483648"}},
      {"/num_experts"},
      {"/num_experts_per_tok"},
      {"/decoder_sparse_step"},
      {"/norm_topk_prob", {"true", "false"}},
      {"/tie_word_embeddings", {"true", "false"}},
      {"/use_sliding_window", {"true", "false"}, "sliding_window"},
      {"/partial_rotary_factor"},
      {"/eos_token_id", {"0", "[]", "[1]"}},
  };
  Json good = mixture_json();
  good["sliding_window"] = 4096;
  good["max_window_layers"] = 2;
  expect_only_right(good, cases, read_config);
  EXPECT_NO_THROW(read_config(mixture_json()));
}

TEST(HostileConfig, EveryNumberOfWindowsIsChecked) {
  Json good = mixture_json();
  good["architectures"] = {"Qwen2ForCausalLM"};
  good["use_sliding_window"] = true;
  good["sliding_window"] = 16;
  good["max_window_layers"] = 1;
  good["layer_types"] = nullptr;
  expect_only_right(good,
                    {{"/intermediate_size"},
                     {"/sliding_window"},
                     {"/max_window_layers", {"0"}},
                     {"/layer_types"},
                     {"/layer_types", {}, "layer"}},
                    read_config);
}

TEST(HostileConfig, EveryNumberOfRopeIsChecked) {
  Json good = mixture_json();
  good["rope_scaling"] = {{"rope_type", "llama3"},
                          {"factor", 8.0},
                          {"low_freq_factor", 1.0},
                          {"high_freq_factor", 4.0},
                          {"original_max_position_embeddings", 64}};
  expect_only_right(good,
                    {{"/rope_scaling/factor", {"2.5"}},
                     {"/rope_scaling/low_freq_factor", {"0.5", "2.5"}},
                     {"/rope_scaling/high_freq_factor", {"2.5"}},
                     {"/rope_scaling/original_max_position_embeddings"},
                     {"/rope_scaling/partial_rotary_factor"},
                     {"/rope_scaling/rope_theta"}},
                    read_config);
  good["rope_scaling"] = {
      {"rope_type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 64}};
  expect_only_right(good,
                    {{"/rope_scaling/beta_fast", {"2.5"}},
                     {"/rope_scaling/beta_slow", {"0.5", "2.5"}},
                     {"/rope_scaling/mscale", {"0", "0.5", "2.5", "1e-300"}},
                     {"/rope_scaling/mscale_all_dim", {"0", "0.5", "2.5", "1e-300"}},
                     {"/rope_scaling/truncate", {"true", "false"}},
                     {"/rope_scaling/attention_factor", {"0.5", "2.5"}}},
                    read_config);
  const std::vector<double> ones(8, 1.0);
  good["rope_scaling"] = {{"rope_type", "longrope"}, {"short_factor", ones}, {"long_factor", ones}};
  good["original_max_position_embeddings"] = 64;
  expect_only_right(good,
                    {{"/rope_scaling/short_factor/3", {"0.5", "2.5"}, "short_factor"},
                     {"/rope_scaling/long_factor/7", {"0.5", "2.5"}, "long_factor"},
                     {"/rope_scaling/short_factor"},
                     {"/rope_scaling/long_factor"},
                     {"/rope_scaling/factor", {"0.5", "2.5"}},
                     {"/rope_scaling/attention_factor", {"0.5", "2.5"}},
                     {"/original_max_position_embeddings"}},
                    read_config);
}

TEST(HostileConfig, EveryNumberOfGenerationIsChecked) {
  expect_only_right(Json::object(),
                    {{"/temperature", {"0", "0.5", "2.5", "1e-300"}},
                     {"/top_p", {"0.5"}},
                     {"/top_k", {"-1", "0"}},
                     {"/min_p", {"0", "0.5", "1e-300"}},
                     {"/repetition_penalty", {"0.5", "2.5"}},
                     {"/max_new_tokens"},
                     {"/eos_token_id", {"0", "[]", "[1]"}}},
                    [](const Json& json) { parse_generation_config(json, 100, "file.json"); });
}

// Each id that is sampled is looked for in the list, and two lists are joined.
TEST(HostileConfig, ListsOfEosIdsAreShort) {
  const auto read = [](size_t count) {
    return parse_generation_config({{"eos_token_id", std::vector<int>(count, 7)}}, 100,
                                   "file.json");
  };
  EXPECT_EQ(read(4096).eos_ids.size(), 4096U);
  expect_error([&] { read(4097); }, {"file.json", "eos_token_id", "at most 4096", "4097"});
}

Json scheme_document(int layers = 2) {
  Json json = mixture_json();
  json["architectures"] = {"LlamaForCausalLM"};
  json["num_hidden_layers"] = layers;
  const Json int8 = {{"num_bits", 8},
                     {"type", "int"},
                     {"symmetric", true},
                     {"strategy", "token"},
                     {"dynamic", true}};
  Json kept = int8, weights = int8, inputs = int8;
  kept["strategy"] = "channel";
  kept["dynamic"] = weights["dynamic"] = false;
  weights["num_bits"] = inputs["num_bits"] = 4;
  weights["strategy"] = inputs["strategy"] = "group";
  weights["group_size"] = inputs["group_size"] = 32;
  inputs["clip_ratio"] = 0.9;
  json["quantization_config"] = {{"quant_method", "atom"}, {"version", 1}, {"format", "atom"}};
  json["quantization_config"]["config_groups"]["g"] = {
      {"targets", {"Linear"}}, {"weights", weights},   {"input_activations", inputs},
      {"kept_channels", 32},   {"kept_weights", kept}, {"kept_input_activations", int8}};
  return json;
}

Scheme parsed_scheme(const Json& json) {
  return parse_scheme(json, parse_config(json, "file.json"), format::KvKind::kF16, "file.json");
}

TEST(HostileConfig, EveryNumberOfQuantizationIsChecked) {
  const auto read = [](const Json& json) { parsed_scheme(json); };
  const std::string group = "/quantization_config/config_groups/g";
  std::vector<std::string> paths;
  for (const char* side :
       {"weights", "input_activations", "kept_weights", "kept_input_activations"})
    paths.push_back(group + "/" + side + "/num_bits");
  std::vector<NumberCase> cases;
  for (const std::string& path : paths) cases.push_back({path.c_str()});
  const std::string size = group + "/weights/group_size",
                    clip = group + "/input_activations/clip_ratio";
  const std::string kept = group + "/kept_channels",
                    hadamard = group + "/input_activations/hadamard";
  const std::string signs = group + "/input_activations/signed_scales";
  const std::string targets = group + "/targets", weights = group + "/weights";
  cases.push_back({size.c_str()});
  cases.push_back({clip.c_str(), {"0.5"}});
  cases.push_back({kept.c_str(), {"0"}});
  cases.push_back({hadamard.c_str()});
  cases.push_back({signs.c_str(), {"true", "false"}});
  cases.push_back({targets.c_str(), {"[]"}, "target"});
  cases.push_back({weights.c_str(), {}, ""});
  cases.push_back({"/quantization_config/version"});
  cases.push_back({"/quantization_config/order_partitions"});
  cases.push_back({"/quantization_config/qk_hadamard"});
  cases.push_back({"/quantization_config/kv_clip", {"0.5"}});
  cases.push_back({"/quantization_config/kv_open_page", {"\"\""}});
  cases.push_back({"/quantization_config/key_offset", {"true", "false"}});
  cases.push_back({"/quantization_config/stream_basis", {"true", "false"}});
  cases.push_back({"/quantization_config/kv_cache_layers"});
  cases.push_back({"/quantization_config/kv_cache_scheme"});
  cases.push_back({"/quantization_config/config_groups", {"{}"}});
  cases.push_back({"/quantization_config", {}, ""});
  expect_only_right(scheme_document(), cases, read);
  Json json = scheme_document();
  json[Json::json_pointer(size)] = 48;
  expect_error([&] { parsed_scheme(json); }, {"file.json", "weights", "group_size 48"});
  json = scheme_document();
  json["quantization_config"]["kv_cache_layers"] = {"int4", "int3"};
  expect_error([&] { parsed_scheme(json); }, {"file.json", "kv_cache_layers", "int3"});
}

// The names of all linears were made anew for each group.
TEST(HostileConfig, ManyGroupsNeedTimeInProportion) {
  Json json = scheme_document(2000);
  Json& groups = json["quantization_config"]["config_groups"];
  Json empty = groups["g"];
  empty["targets"] = Json::array();
  // Appended at once: operator[] of ordered JSON looks through all keys.
  std::string text = groups.dump();
  text.pop_back();
  for (int i = 0; i < 1000; ++i) text += fmt::format(",\"{}\":{}", i, empty.dump());
  groups = parse_json(text + "}");
  EXPECT_EQ(parsed_scheme(json).linears.size(), 14000U);
  json = scheme_document();
  json["quantization_config"]["config_groups"]["g"]["targets"] = {"Linear", "Linear"};
  expect_error([&] { parsed_scheme(json); }, {"file.json", "'Linear' twice"});
}

// The largest model that a config may ask for, in a file of 1 KB.
TEST(HostileConfig, SmallFilesTakeLittleMemory) {
  const testing::MemoryLimit limit(rlim_t{192} << 20);
  EXPECT_EQ(parsed_scheme(scheme_document(37'449)).linears.size(), 262'143U);
  expect_error([] { parsed_scheme(scheme_document(37'450)); }, {"num_hidden_layers", "262150"});
  Json json = mixture_json();
  json["vocab_size"] = 1 << 24;
  json["max_position_embeddings"] = 1 << 27;
  EXPECT_NO_THROW(read_config(json));
  for (const char* key : {"num_hidden_layers", "vocab_size", "max_position_embeddings"}) {
    json[key] = 1'000'000'000;
    expect_error([&] { read_config(json); }, {key, "1000000000"});
    json[key] = 16;
  }
}

}  // namespace
}  // namespace atom::model
