// Folders of models: the files that nobody vouches for, and which name each other. The bytes are sections that begin with a line
// `@NAME`, as in `@config.json`; in `@model-1.safetensors 12` the section is the header of a file with 12 bytes of data.
#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>

#include "checkpoint/chat_template_file.h"
#include "checkpoint/manifest.h"
#include "fuzz/fuzz.h"
#include "model/open_files.h"
#include "testing/temp_folder.h"

namespace atom::fuzz {
namespace {

constexpr std::string_view kFolderFiles[] = {
    "config.json",         "generation_config.json",       "tokenizer_config.json",
    "model.safetensors",   "model.safetensors.index.json", "model-1.safetensors",
    "model-2.safetensors", "special_tokens_map.json",      "quantize_config.json",
    "quant_config.json",   "atom_manifest.json",           "chat_template.jinja",
    "pytorch_model.bin"};

// A section without its @.
void write_section(const std::filesystem::path& folder, std::string_view section) {
  const size_t line = section.find('\n');
  if (line == std::string_view::npos) return;
  const std::string_view title = section.substr(0, line), content = section.substr(line + 1);
  const std::string_view name = title.substr(0, title.find(' '));
  if (std::find(std::begin(kFolderFiles), std::end(kFolderFiles), name) == std::end(kFolderFiles))
    return;
  uint8_t data_bytes = 0;
  if (name.size() < title.size())
    std::from_chars(title.data() + name.size() + 1, title.data() + title.size(), data_bytes);
  std::ofstream file(folder / name, std::ios::binary);
  file << (name.ends_with(".safetensors") ? safetensors_of(content, data_bytes)
                                          : std::string(content));
}

}  // namespace

void run_model_folder(std::string_view bytes) {
  static const testing::TempFolder parent;
  const std::filesystem::path folder = parent / "model";
  std::filesystem::create_directory(folder);
  while (!bytes.empty()) {
    const size_t end = std::min(bytes.find("\n@", 1), bytes.size());
    write_section(folder, bytes.substr(1, end - 1));
    bytes.remove_prefix(std::min(end + 1, bytes.size()));
  }
  for (const auto weights : {model::Weights::kAsStored, model::Weights::kFloats})
    accepts([&] {
      const auto files = model::open_files(folder, weights);
      for (const std::string& name : files.tensor_names()) accepts([&] { files.tensor(name); });
    });
  accepts([&] { checkpoint::read_chat_template(folder); });
  accepts([&] { checkpoint::verify_manifest(folder); });
  std::filesystem::remove_all(folder);
}

}  // namespace atom::fuzz
