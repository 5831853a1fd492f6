// A model folder as Hugging Face lays it out: config.json, tokenizer files, and weights in
// model.safetensors or in shards listed by model.safetensors.index.json; or a GGUF file, which is seen
// as the folder that it was made from (gguf_model.h). Linears that other programs quantized can be seen as
// plain ones (packed_model.h).
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
class PackedModel;

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
  // Drops its pages, whose bytes stay readable. What is stored otherwise (Q8_0 and LLaMA's q and k of a GGUF file, packed
  // weights) is converted by tensor() and freed here: such views end.
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

  // Linears quantized by GPTQ, AWQ or compressed-tensors, whose tensors `packed` names; read with read_packed(). From now on
  // its tensors are seen instead, and `config` is what config.json says. `note` says in words what became of them.
  std::unique_ptr<PackedModel> read_packed() const;  // null: there are none. Error: as PackedModel
  void see_packed(std::unique_ptr<const PackedModel> packed, Json config, std::string note);
  const std::string& packed_note() const { return packed_note_; }  // empty: nothing is packed
  // tensor() may allocate what release() frees.
  bool converts() const { return gguf_ != nullptr || packed_ != nullptr; }

  uint64_t total_bytes() const { return total_bytes_; }  // of all weight files' tensors
  std::vector<std::filesystem::path> weight_paths() const;

 private:
  ModelFiles();
  static ModelFiles open_gguf(const std::filesystem::path& path);
  void open_single(const std::filesystem::path& path);
  void open_shards(const std::filesystem::path& index_path);
  void finish();
  void list_names();
  tensor::TensorView stored(std::string_view name, size_t shard) const;
  void release_pages(std::string_view name) const;

  std::filesystem::path folder_;
  Json config_;
  std::optional<Json> generation_config_;
  std::optional<Json> tokenizer_config_;
  std::optional<std::filesystem::path> tokenizer_path_;
  std::unique_ptr<const GgufModel> gguf_;  // null: a folder
  std::vector<SafetensorsFile> files_;
  std::unique_ptr<const PackedModel> packed_;  // or null; its bytes are those of files_
  std::string packed_note_;
  static constexpr size_t kPacked = SIZE_MAX;            // instead of a shard: a tensor of packed_
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
