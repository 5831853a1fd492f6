// config.json: the model's dimensions and the formats of a quantized one, which are written and read back the same; and the
// same text as a generation_config.json.
#include "model/config.h"

#include "fuzz/fuzz.h"
#include "model/generation_config.h"
#include "model/scheme.h"

namespace atom::fuzz {

void run_config(std::string_view bytes) {
  accepts(
      [&] { model::parse_generation_config(parse_json(bytes, {.source = "fuzz"}), 100, "fuzz"); });
  accepts([&] {
    const Json json = parse_json(bytes, {.source = "fuzz"});
    const model::ModelConfig config = model::parse_config(json, "fuzz");
    check(config.heads % config.kv_heads == 0 && config.head_dim % 2 == 0, "heads");
    check(config.attention_size() <= 1 << 17 && config.qkv_size() <= 3 << 17, "sizes of attention");
    check(config.experts_per_token <= config.experts, "experts of a token");
    for (const int id : config.eos_ids) check(id >= 0 && id < config.vocabulary, "an end of text");
    if (config.layers > 8 || config.experts > 8) return;
    const model::Scheme scheme = model::parse_scheme(json, config, format::KvKind::kF16, "fuzz");
    check(static_cast<int>(scheme.kv.size()) == config.layers, "KV formats");
    if (!scheme.quantized) return;
    for (const auto& [module, linear] : scheme.linears) {
      model::weight_segments(linear, config.hidden);
      model::input_segments(linear, config.hidden);
    }
    const Json written = model::scheme_json(scheme, config);
    const model::Scheme again = model::parse_scheme({{"quantization_config", written}}, config,
                                                    format::KvKind::kF16, "what was written");
    check(again.linears == scheme.linears && again.kv == scheme.kv, "a scheme changes");
  });
}

}  // namespace atom::fuzz
