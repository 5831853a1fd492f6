// A copy of a model folder that a test may damage. Files are linked, not copied, until they are
// replaced.
//
//   ModelCopy copy(folder / "model", shipped_model());
//   copy.edit_config([](Json& config) { config["vocab_size"] = 100; });
#pragma once

#include <filesystem>
#include <fstream>
#include <functional>
#include <string>

#include "base/file.h"
#include "base/json.h"

namespace atom::testing {

inline std::filesystem::path shipped_model() {
  return std::filesystem::path(ATOM_SOURCE_DIR) / "models" / "ref-dense-11m";
}

inline void write_text(const std::filesystem::path& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

class ModelCopy {
 public:
  ModelCopy(std::filesystem::path folder, const std::filesystem::path& source)
      : folder_(std::move(folder)) {
    std::filesystem::create_directory(folder_);
    for (const auto& entry : std::filesystem::directory_iterator(source))
      std::filesystem::create_symlink(entry.path(), folder_ / entry.path().filename());
  }

  std::string path() const { return folder_.string(); }
  std::filesystem::path operator/(std::string_view name) const { return folder_ / name; }

  void replace(std::string_view name, std::string_view bytes) const {
    std::filesystem::remove(folder_ / name);
    write_text(folder_ / name, bytes);
  }
  void edit_config(const std::function<void(Json&)>& edit) const {
    Json config = parse_json(read_file(folder_ / "config.json"));
    edit(config);
    replace("config.json", config.dump(2));
  }

 private:
  std::filesystem::path folder_;
};

// The shipped model without all but its first two layers, for what is done to one layer after the other: a third of the time.
inline ModelCopy two_layers(const std::filesystem::path& folder) {
  ModelCopy copy(folder, shipped_model());
  copy.edit_config([](Json& config) { config["num_hidden_layers"] = 2; });
  return copy;
}

}  // namespace atom::testing
