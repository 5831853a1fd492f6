// The KV-cache of a scheme as text: what says it where K and V have different bits, and what is refused.
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "base/error.h"
#include "model/scheme.h"
#include "testing/expect_error.h"

namespace atom::model {
namespace {

using format::KvKind;

ModelConfig small_config() {
  return parse_config(
      parse_json(R"({"architectures": ["LlamaForCausalLM"], "vocab_size": 100, "hidden_size": 64,
    "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4})"),
      "config.json");
}

Scheme with_kv(std::vector<KvKind> kv) { return {.quantized = true, .kv = std::move(kv)}; }

Scheme parsed(const Json& q) {
  const Json json = {{"quantization_config", q}};
  return parse_scheme(parse_json(json.dump()), small_config(), KvKind::kF32, "config.json");
}

TEST(SchemeKv, EveryPairOfLayersSurvives) {
  constexpr KvKind kKinds[] = {KvKind::kF16, KvKind::kInt8, KvKind::kInt4, KvKind::kInt8Int4};
  for (const KvKind first : kKinds)
    for (const KvKind second : kKinds) {
      const Scheme scheme = with_kv({first, second});
      EXPECT_EQ(parsed(scheme_json(scheme, small_config())).kv, scheme.kv)
          << format::name(first) << " " << format::name(second);
    }
}

// A kv_cache_scheme has one num_bits: who knows only that must not take 8 or 4 for both sides.
TEST(SchemeKv, DifferentSidesAreNoKvCacheScheme) {
  Scheme scheme = with_kv({KvKind::kInt8Int4, KvKind::kInt8Int4});
  scheme.kv_clip = 0.95f;
  scheme.open_page = true;
  const Json q = scheme_json(scheme, small_config());
  EXPECT_EQ(q["quant_method"], "atom");
  EXPECT_TRUE(q["kv_cache_scheme"].is_null());
  EXPECT_EQ(q["kv_cache_layers"], Json({"k8v4", "k8v4"}));
  const Scheme back = parsed(q);
  EXPECT_EQ(back.kv, scheme.kv);
  EXPECT_EQ(back.kv_clip, 0.95f);
  EXPECT_TRUE(back.open_page);
  // What compressed-tensors can say for the linears it cannot for such a cache.
  for (const std::string& module : linear_modules(small_config()))
    scheme.linears[module] = {.weight = format::int4(128)};
  EXPECT_EQ(scheme_json(scheme, small_config())["quant_method"], "atom");

  const Json same = scheme_json(with_kv({KvKind::kInt4, KvKind::kInt4}), small_config());
  EXPECT_EQ(same["kv_cache_scheme"]["num_bits"], 4);
  EXPECT_FALSE(same.contains("kv_cache_layers"));
}

TEST(SchemeKv, OtherWordsAreRefused) {
  const Json q = scheme_json(with_kv({KvKind::kInt8Int4, KvKind::kInt8Int4}), small_config());
  const auto refuses = [&](const Json& layers, std::initializer_list<std::string_view> words) {
    Json bad = q;
    bad["kv_cache_layers"] = layers;
    atom::testing::expect_error([&] { parsed(bad); }, words);
  };
  refuses({"k8v4", "k4v8"}, {"k4v8", "f32, f16, int8, int4, k8v4"});
  refuses({"k8v4", ""}, {"KV-cache format ''"});
  refuses({"k8v4", 8}, {"config.json", "kv_cache_layers[1]"});
  refuses({"k8v4"}, {"config.json", "kv_cache_layers", "2 layers"});
  refuses("k8v4", {"config.json", "kv_cache_layers"});
  Json bits = q;
  bits["kv_cache_scheme"] = {{"num_bits", 6},
                             {"type", "int"},
                             {"symmetric", false},
                             {"strategy", "attn_head"},
                             {"dynamic", true}};
  atom::testing::expect_error([&] { parsed(bits); }, {"config.json", "kv_cache_scheme"});
}

}  // namespace
}  // namespace atom::model
