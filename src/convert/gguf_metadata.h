// A model's config as the keys of a GGUF file, and RoPE's factors as its tensors: the inverse of checkpoint/gguf_config.cc.
//
//   const checkpoint::GgufArchitecture& row = architecture_of(config, source);
//   add_model_keys({&files.config(), &config, &row, source}, "F16", keys);
//   for (const RopeFactors& factors : rope_factors({&files.config(), &config, &row, source})) ...
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "checkpoint/gguf_names.h"
#include "checkpoint/gguf_writer.h"
#include "model/config.h"

namespace atom::convert {

struct GgufSource {
  const Json* json = nullptr;  // config.json
  const model::ModelConfig* config = nullptr;
  const checkpoint::GgufArchitecture* architecture = nullptr;
  std::string source;  // file that messages name
};

// Divisors of the frequency of each pair, as a tensor of F32.
struct RopeFactors {
  std::string name;
  std::vector<float> values;
};

// The row of the config's family. Error: GGUF has no architecture for it.
const checkpoint::GgufArchitecture& architecture_of(const model::ModelConfig& config,
                                                    std::string_view source);

// `type` is that of the matrices. Error naming file, field and value: a sliding window, or a RoPE type, for which the
// architecture has no key.
void add_model_keys(const GgufSource& source, std::string_view type, checkpoint::GgufKeys& keys);
std::vector<RopeFactors> rope_factors(const GgufSource& source);

}  // namespace atom::convert
