// A GGUF file seen as the model folder that it was made from: tensors under Hugging Face's names, in
// its order of rows, and the texts of config.json and of the tokenizer's files (docs/formats.md).
//
//   const GgufModel model("model.gguf");
//   model.config()["hidden_size"];
//   model.tensor("model.layers.0.self_attn.q_proj.weight");      // rows as rotate-half wants them
//   model.small_file("tokenizer.json");
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "checkpoint/gguf.h"
#include "checkpoint/tensor_header.h"

namespace atom::checkpoint {

struct GgufArchitecture;
struct GgufName;  // gguf_names.h

class GgufModel {
 public:
  // Error: as GgufFile; an architecture without a row in gguf_names.cc; a key that is missing, out of
  // range or asks for what Atom does not do; one part of several; a tensor that the architecture does
  // not have, or of a type that Atom does not read; stacked tensors of other sizes than the keys say.
  explicit GgufModel(const std::filesystem::path& path);

  const Json& config() const { return config_; }                    // as config.json says it
  const std::vector<std::string>& names() const { return names_; }  // ascending
  bool has(std::string_view name) const { return parts_.contains(name); }
  uint64_t total_bytes() const { return file_.tensor_bytes(); }

  // `name` is one of names(). Tensors that are stored in other types or orders are converted once, and
  // their views end with release().
  TensorHeader header(std::string_view name) const;
  tensor::TensorView tensor(std::string_view name) const;
  void release(std::string_view name) const;

  // config.json, tokenizer.json or tokenizer.model, tokenizer_config.json; nothing when the model has
  // no such file. Error: a tokenizer of a kind without a reader (named), arrays that contradict each other.
  std::optional<std::string> small_file(std::string_view name) const;

 private:
  // Rows of a stored tensor.
  struct Part {
    const GgufTensor* stored = nullptr;
    tensor::Shape shape;
    int64_t first = 0;
    int heads = 0;  // whose rows are interleaved, as LLaMA's q and k are stored; 0: none are
  };
  void add(std::string name, const Part& part);
  void map_tensor(const GgufTensor& stored);
  void map_layer(const GgufTensor& stored, const GgufName& name);
  bool map_experts(const GgufTensor& stored, const GgufName& name);
  void map_stacked(const GgufTensor& stored, const std::vector<std::string>& names);
  void map_rows(const GgufTensor& stored,
                const std::vector<std::pair<std::string, int64_t>>& names);
  [[noreturn]] void refuse_name(const GgufTensor& stored) const;
  void read_config();
  void read_sizes(std::string_view prefix);
  void read_experts(std::string_view prefix);
  void read_rope(std::string_view prefix);
  void read_fixed_factors(double magnitude);
  Json scaled_rope(const std::string& prefix, const std::string& type,
                   const std::optional<double>& magnitude) const;
  int64_t need(const std::string& key) const;
  void read_eos();
  std::vector<std::byte> converted(const Part& part) const;
  std::vector<double> pair_factors(std::string_view name) const;

  GgufFile file_;
  const GgufArchitecture* architecture_ = nullptr;
  Json config_;
  std::map<std::string, Part, std::less<>> parts_;
  std::vector<std::string> names_;
  mutable std::mutex mutex_;
  mutable std::map<std::string, std::vector<std::byte>, std::less<>> converted_;
};

}  // namespace atom::checkpoint
