// A model folder as Hugging Face lays it out: config.json, tokenizer files, and weights in
// model.safetensors or in shards listed by model.safetensors.index.json; or a GGUF file, which is seen
// as the folder that it was made from (gguf_model.h).
//
//   const ModelFiles model = ModelFiles::open("models/llama");          // checks every header
//   const int64_t layers = get_int(model.config(), "num_hidden_layers", {.source = ...});
//   const TensorView view = model.tensor("model.embed_tokens.weight");  // valid while `model` lives
//   model.release("model.embed_tokens.weight");                         // it is done with
//
// Const members may be called from several threads.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/tensor_header.h"
#include "tensor/tensor.h"

namespace atom::checkpoint {

class GgufModel;

class ModelFiles {
 public:
  ~ModelFiles();
  ModelFiles(ModelFiles&& other) noexcept;
  ModelFiles& operator=(ModelFiles&& other) noexcept;

  // `folder` may be a GGUF file (error: as GgufModel). Error: no such folder, no config.json or one
  // that is no JSON object, no weights, only pickle files (never opened: they run code), a defective
  // or truncated weight file, an index that names anything but safetensors files of the folder,
  // misses or doubles a tensor.
  static ModelFiles open(const std::filesystem::path& folder);

  const std::filesystem::path& folder() const { return folder_; }  // or the GGUF file
  bool is_gguf() const { return gguf_ != nullptr; }
  // What messages about a small file name: its path, or the GGUF file that says the same.
  std::string source_of(std::string_view name) const;
  // Bytes of config.json, tokenizer.json and others, which lie in the folder or which the GGUF file
  // stands for; nothing when there is no such file. Error: unreadable, larger than max_bytes.
  std::optional<std::string> small_file(std::string_view name, uint64_t max_bytes) const;
  const Json& config() const { return config_; }
  // Contents of generation_config.json and tokenizer_config.json, when they exist.
  const std::optional<Json>& generation_config() const { return generation_config_; }
  const std::optional<Json>& tokenizer_config() const { return tokenizer_config_; }
  // Path of tokenizer.json, when it exists.
  const std::optional<std::filesystem::path>& tokenizer_path() const { return tokenizer_path_; }

  const std::vector<std::string>& tensor_names() const { return names_; }  // ascending
  bool has(std::string_view name) const;
  // Error: no such tensor (names tensor and folder), or a dtype that Atom does not read.
  TensorHeader header(std::string_view name) const;
  tensor::TensorView tensor(std::string_view name) const;
  // Drops its pages, whose bytes stay readable. What a GGUF file stores otherwise (Q8_0, LLaMA's q and k)
  // is converted by tensor() and freed here: such views end.
  void release(std::string_view name) const;
  void release_below(std::string_view prefix) const;  // tensors whose names begin with it

  // From now on the matrix `name` is not seen, but its rows under other names, from the first on: several linears that were
  // stored as one. Nothing is copied. Error naming the tensor: it is no matrix, its rows are not as many as the parts have, a
  // part's name is taken.
  struct RowPart {
    std::string name;
    int64_t rows = 0;
  };
  void split_rows(const std::string& name, const std::vector<RowPart>& parts);

  uint64_t total_bytes() const { return total_bytes_; }  // of all weight files' tensors
  std::vector<std::filesystem::path> weight_paths() const;

 private:
  ModelFiles();
  static ModelFiles open_gguf(const std::filesystem::path& path);
  void open_single(const std::filesystem::path& path);
  void open_shards(const std::filesystem::path& index_path);
  void finish();

  std::filesystem::path folder_;
  Json config_;
  std::optional<Json> generation_config_;
  std::optional<Json> tokenizer_config_;
  std::optional<std::filesystem::path> tokenizer_path_;
  std::unique_ptr<const GgufModel> gguf_;  // null: a folder
  std::vector<SafetensorsFile> files_;
  std::map<std::string, size_t, std::less<>> shard_of_;  // tensor -> index into files_
  struct Rows {
    std::string of;  // the stored matrix
    int64_t first = 0, count = 0;
  };
  std::map<std::string, Rows, std::less<>> rows_of_;  // part -> rows of a matrix (split_rows)
  std::vector<std::string> names_;
  uint64_t total_bytes_ = 0;
};

}  // namespace atom::checkpoint
