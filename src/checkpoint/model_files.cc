#include "checkpoint/model_files.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "checkpoint/file_name.h"
#include "checkpoint/gguf_model.h"
#include "checkpoint/packed_model.h"

namespace atom::checkpoint {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxConfigBytes = uint64_t{16} << 20;
constexpr uint64_t kMaxIndexBytes = uint64_t{100} << 20;

Json read_json_object(const fs::path& path, uint64_t max_bytes,
                      const std::vector<JsonStream>& streams = {}) {
  const std::string source = path.string();
  Json json = parse_json(read_file(path, max_bytes), {.source = source}, streams);
  if (!json.is_object())
    fail("{}: must hold a JSON object, but holds {}", source, shown_json(json));
  return json;
}

// A symbolic link to nothing counts as present: opening it then names the reason.
bool is_present(const fs::path& path) {
  std::error_code code;
  return fs::exists(fs::symlink_status(path, code));
}

std::optional<Json> read_json_if_present(const fs::path& path) {
  if (!is_present(path)) return std::nullopt;
  return read_json_object(path, kMaxConfigBytes);
}

// Not used, and programs count differently; but a size that none can have comes from a damaged
// file. Old files have whole numbers with a fraction of zero.
void check_total_size(const Json& index, const std::string& source) {
  const auto metadata = index.find("metadata");
  if (metadata == index.end() || metadata->is_null()) return;
  if (!metadata->is_object())
    fail("{}: the field \"metadata\" must be a JSON object, but is {}", source,
         shown_json(*metadata));
  const auto size = metadata->find("total_size");
  if (size == metadata->end() || size->is_null()) return;
  const double value = size->is_number() ? size->get<double>() : -1;
  if (value < 0 || value != std::floor(value))
    fail("{}: the field \"total_size\" of \"metadata\" must be a whole number of bytes, but is {}",
         source, shown_json(*size));
}

[[noreturn]] void refuse_without_weights(const fs::path& folder) {
  std::string pickle, other;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    std::string* kind = is_pickle_name(name) ? &pickle : is_weight_name(name) ? &other : nullptr;
    if (kind != nullptr && (kind->empty() || name < *kind)) *kind = name;
  }
  if (!other.empty())
    fail("{}: has neither model.safetensors nor model.safetensors.index.json, only {}",
         folder.string(), other);
  if (!pickle.empty())
    fail(
        "{}: has only pickle weights ({}), which can run code when loaded: convert them to "
        "safetensors",
        folder.string(), pickle);
  fail("{}: has no weights: neither model.safetensors nor model.safetensors.index.json exists",
       folder.string());
}

}  // namespace

ModelFiles::ModelFiles() = default;
ModelFiles::~ModelFiles() = default;
ModelFiles::ModelFiles(ModelFiles&& other) noexcept = default;
ModelFiles& ModelFiles::operator=(ModelFiles&& other) noexcept = default;

ModelFiles ModelFiles::open_gguf(const fs::path& path) {
  ModelFiles model;
  model.folder_ = path;
  model.gguf_ = std::make_unique<const GgufModel>(path);
  model.config_ = model.gguf_->config();
  model.names_ = model.gguf_->names();
  model.total_bytes_ = model.gguf_->total_bytes();
  return model;
}

ModelFiles ModelFiles::open(const fs::path& folder) {
  std::error_code code;
  if (fs::is_regular_file(folder, code) && folder.extension() == ".gguf") return open_gguf(folder);
  if (!fs::is_directory(folder, code))
    fail("{}: not a model folder: {}", folder.string(),
         fs::exists(folder, code) ? "it is a file, and its name does not end in .gguf"
                                  : "it does not exist");
  ModelFiles model;
  model.folder_ = folder;
  model.config_ = read_json_object(folder / "config.json", kMaxConfigBytes);
  model.generation_config_ = read_json_if_present(folder / "generation_config.json");
  model.tokenizer_config_ = read_json_if_present(folder / "tokenizer_config.json");
  if (fs::path tokenizer = folder / "tokenizer.json"; is_present(tokenizer))
    model.tokenizer_path_ = std::move(tokenizer);
  const fs::path single = folder / "model.safetensors";
  const fs::path index = folder / "model.safetensors.index.json";
  if (is_present(single))
    model.open_single(single);
  else if (is_present(index))
    model.open_shards(index);
  else
    refuse_without_weights(folder);
  model.finish();
  return model;
}

void ModelFiles::open_single(const fs::path& path) {
  files_.emplace_back(path);
  for (const std::string& name : files_[0].names()) shard_of_.emplace(name, 0);
}

void ModelFiles::open_shards(const fs::path& index_path) {
  std::map<std::string, size_t> shards;  // file name -> index into files_
  const auto place = [&](const JsonEntry& entry) {
    if (!entry.in_object)
      fail("{}: the field \"weight_map\" must be a JSON object, but is a list with {}",
           index_path.string(), shown_json(entry.value));
    const std::string name(entry.key);
    const Json& value = entry.value;
    const std::string file = value.is_string() ? value.get<std::string>() : std::string();
    if (!is_plain_file_name(file) || !file.ends_with(".safetensors"))
      fail("{}: tensor \"{}\" must lie in a .safetensors file of the folder, not in {}",
           index_path.string(), name, value.dump(-1, ' ', true).substr(0, 60));
    const auto [shard, is_new] = shards.emplace(file, files_.size());
    if (is_new) files_.emplace_back(folder_ / file);
    if (!files_[shard->second].has(name))
      fail("{}: tensor \"{}\" is not in the file {} that the index names", index_path.string(),
           name, file);
    shard_of_.emplace(name, shard->second);
  };
  const Json index = read_json_object(index_path, kMaxIndexBytes, {{{"weight_map"}, place}});
  const auto weight_map = index.find("weight_map");
  if (weight_map == index.end() || !weight_map->is_object() || shard_of_.empty())
    fail("{}: the field \"weight_map\" must be a JSON object with an entry per tensor, but {}",
         index_path.string(), shown_field(index, "weight_map"));
  check_total_size(index, index_path.string());
  std::map<std::string_view, size_t> holders;
  for (size_t i = 0; i < files_.size(); ++i)
    for (const std::string& name : files_[i].names()) {
      const auto [holder, is_new] = holders.emplace(name, i);
      if (!is_new)
        fail("{}: tensor \"{}\" is in two files, {} and {}", index_path.string(), name,
             files_[holder->second].path().filename().string(),
             files_[i].path().filename().string());
      if (!shard_of_.contains(name))
        log_warning("{}: tensor \"{}\" of {} is not listed and is left out", index_path.string(),
                    name, files_[i].path().filename().string());
    }
}

void ModelFiles::list_names() {
  names_.clear();
  for (const auto& [name, shard] : shard_of_) names_.push_back(name);
}

void ModelFiles::finish() {
  list_names();
  for (const SafetensorsFile& file : files_) total_bytes_ += file.tensor_bytes();
}

void ModelFiles::split_rows(const std::string& name, const std::vector<RowPart>& parts) {
  const TensorHeader whole = header(name);
  int64_t rows = 0;
  for (const RowPart& part : parts) rows += part.rows;
  if (whole.shape.rank() != 2 || whole.shape[0] != rows)
    fail("{}: tensor \"{}\" must be a matrix of {} rows by config.json, but has the shape {}",
         folder_.string(), name, rows, whole.shape.to_string());
  for (const RowPart& part : parts)
    if (has(part.name))
      fail("{}: tensor \"{}\" is there twice: under its name, and as rows of \"{}\"",
           folder_.string(), part.name, name);
  const size_t shard = shard_of_.find(name)->second;
  int64_t first = 0;
  for (const RowPart& part : parts) {
    shard_of_.emplace(part.name, shard);
    rows_of_.emplace(part.name, Rows{.of = name, .first = first, .count = part.rows});
    first += part.rows;
  }
  shard_of_.erase(name);
  list_names();
}

std::unique_ptr<PackedModel> ModelFiles::read_packed() const {
  if (gguf_ != nullptr) return nullptr;
  Json quantization = config_.value("quantization_config", Json(nullptr));
  const char* name = "config.json";
  // Older programs wrote a file of their own, which says nothing of plain weights.
  const bool any_packed = std::any_of(names_.begin(), names_.end(), [](const std::string& part) {
    return part.ends_with(".qweight");
  });
  for (const auto& [file, method] :
       {std::pair("quantize_config.json", "gptq"), std::pair("quant_config.json", "awq")}) {
    if (!quantization.is_null() || !any_packed) break;
    const std::optional<Json> beside = read_json_if_present(folder_ / file);
    if (!beside) continue;
    name = file;
    quantization = *beside;
    if (!quantization.contains("quant_method")) quantization["quant_method"] = method;
  }
  if (quantization.is_null()) return nullptr;
  const auto find = [this](const std::string& part) -> std::optional<tensor::TensorView> {
    if (!has(part)) return std::nullopt;
    return tensor(part);
  };
  auto packed = PackedModel::read(names_, find, quantization, source_of(name), folder_.string());
  if (packed == nullptr) return packed;
  for (const std::string& part : packed->parts()) release_pages(part);
  return packed;
}

void ModelFiles::see_packed(std::unique_ptr<const PackedModel> packed, Json config,
                            std::string note) {
  for (const std::string& part : packed->parts()) shard_of_.erase(part);
  for (const std::string& name : packed->names())
    if (!shard_of_.emplace(name, kPacked).second)
      fail("{}: tensor \"{}\" is there twice: under its name, and quantized", folder_.string(),
           name);
  packed_ = std::move(packed);
  config_ = std::move(config);
  packed_note_ = std::move(note);
  list_names();
}

bool ModelFiles::has(std::string_view name) const {
  return gguf_ != nullptr ? gguf_->has(name) : shard_of_.contains(name);
}

TensorHeader ModelFiles::header(std::string_view name) const {
  if (gguf_ != nullptr && gguf_->has(name)) return gguf_->header(name);
  const auto shard = shard_of_.find(name);
  if (shard == shard_of_.end() || shard->second != kPacked) {
    const tensor::TensorView view = tensor(name);  // nothing is read
    return {view.dtype, view.shape, tensor::dtype_name(view.dtype), view.bytes.size()};
  }
  const auto rows = rows_of_.find(name);
  if (rows == rows_of_.end()) return packed_->header(name);
  TensorHeader header = packed_->header(rows->second.of);
  const auto all = static_cast<uint64_t>(header.shape[0]);
  header.bytes = header.bytes / all * static_cast<uint64_t>(rows->second.count);
  header.shape = {rows->second.count, header.shape[1]};
  return header;
}

tensor::TensorView ModelFiles::stored(std::string_view name, size_t shard) const {
  return shard == kPacked ? packed_->tensor(name) : files_[shard].find(name).value();
}

tensor::TensorView ModelFiles::tensor(std::string_view name) const {
  if (!has(name)) fail("{}: the model has no tensor \"{}\"", folder_.string(), name);
  if (gguf_ != nullptr) return gguf_->tensor(name);
  const size_t shard = shard_of_.find(name)->second;
  const auto rows = rows_of_.find(name);
  if (rows == rows_of_.end()) return stored(name, shard);
  tensor::TensorView view = stored(rows->second.of, shard);
  const size_t row = view.bytes.size() / static_cast<size_t>(view.shape[0]);
  view.bytes = view.bytes.subspan(static_cast<size_t>(rows->second.first) * row,
                                  static_cast<size_t>(rows->second.count) * row);
  view.shape = {rows->second.count, view.shape[1]};
  return view;
}

void ModelFiles::release_pages(std::string_view name) const {
  for (const SafetensorsFile& file : files_)
    if (file.has(name)) file.release(name);
}

void ModelFiles::release(std::string_view name) const {
  if (!has(name)) return;
  if (gguf_ != nullptr) return gguf_->release(name);
  const auto rows = rows_of_.find(name);
  const std::string_view whole = rows == rows_of_.end() ? name : std::string_view(rows->second.of);
  const size_t shard = shard_of_.find(name)->second;
  if (shard != kPacked) return files_[shard].release(whole);
  packed_->release(whole);
  for (const std::string& part : packed_->weight_of(whole).parts()) release_pages(part);
}

void ModelFiles::release_below(std::string_view prefix) const {
  for (auto it = std::lower_bound(names_.begin(), names_.end(), prefix);
       it != names_.end() && it->starts_with(prefix); ++it)
    release(*it);
}

std::string ModelFiles::source_of(std::string_view name) const {
  return (gguf_ != nullptr ? folder_ : folder_ / name).string();
}

std::optional<std::string> ModelFiles::small_file(std::string_view name, uint64_t max_bytes) const {
  if (gguf_ != nullptr) return gguf_->small_file(name);
  if (packed_ != nullptr && name == "config.json") return config_.dump(2) + "\n";
  const fs::path path = folder_ / name;
  if (!is_present(path)) return std::nullopt;
  return read_file(path, max_bytes);
}

std::vector<fs::path> ModelFiles::weight_paths() const {
  if (gguf_ != nullptr) return {folder_};
  std::vector<fs::path> paths;
  for (const SafetensorsFile& file : files_) paths.push_back(file.path());
  return paths;
}

}  // namespace atom::checkpoint
