// What `atom serve` and `atom chat` make of a model folder before an engine runs on it.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "checkpoint/chat_template_file.h"
#include "engine/engine.h"
#include "model/generation_config.h"
#include "serve_options.h"
#include "session.h"
#include "text/chat_template.h"

namespace atom::app {

struct EnginePlan {
  engine::EngineOptions options;
  std::string words;  // what became of the memory, one sentence
};
// Error: sizes that contradict each other or the model, memory too small for one sequence.
EnginePlan engine_plan(const ServeOptions& options, const model::Model& model);

// Nothing: the model has none. Error: one that cannot be read.
std::optional<text::ChatTemplate> load_chat_template(const checkpoint::ChatTemplateFile& file);

// --generation-config: what requests get that say nothing else, told as a notice, and the ids that end a text besides those of
// config.json. With "none" the folder's ids still end a text. Error: a wrong value in the file; no file in a named folder.
model::GenerationConfig load_generation_config(const ServeOptions& options,
                                               const checkpoint::ModelFiles& files,
                                               const model::ModelConfig& config);

// --kv-cache-dtype; nothing: the checkpoint's.
std::optional<format::KvKind> cache_kind(const ServeOptions& options);

// Names that requests may give; the folder's where none is given.
std::vector<std::string> model_names(const ServeOptions& options);

}  // namespace atom::app
