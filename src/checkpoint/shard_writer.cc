#include "checkpoint/shard_writer.h"

#include <fmt/format.h>

#include <utility>

#include "base/error.h"
#include "base/json.h"

namespace atom::checkpoint {

ShardWriter::ShardWriter(std::filesystem::path folder, std::vector<TensorInfo> tensors,
                         uint64_t shard_bytes)
    : folder_(std::move(folder)) {
  uint64_t filled = 0;
  for (TensorInfo& info : tensors) {
    const uint64_t size = tensor::byte_size(info.dtype, info.shape);
    if (shards_.empty() || (filled + size > shard_bytes && filled > 0)) {
      shards_.emplace_back();
      filled = 0;
    }
    filled += size;
    bytes_ += size;
    shards_.back().tensors.push_back(std::move(info));
  }
  for (size_t i = 0; i < shards_.size(); ++i)
    shards_[i].name = shards_.size() == 1
                          ? "model.safetensors"
                          : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards_.size());
}

void ShardWriter::write(std::string_view name, std::span<const std::byte> bytes) {
  check(shard_ < shards_.size(), "no more tensors written than planned");
  const Shard& shard = shards_[shard_];
  if (!file_) file_.emplace(folder_ / shard.name, shard.tensors, Metadata{{"format", "pt"}});
  file_->write(name, bytes);
  if (++in_shard_ == shard.tensors.size()) close();
}

void ShardWriter::close() {
  file_->commit();
  entries_.push_back({shards_[shard_].name, file_->size(), file_->sha256()});
  file_.reset();
  ++shard_;
  in_shard_ = 0;
}

std::vector<ManifestEntry> ShardWriter::finish() {
  check(!file_ && shard_ == shards_.size(), "every tensor is written");
  if (shards_.size() < 2) return entries_;
  constexpr const char* kIndex = "model.safetensors.index.json";
  Json index;
  index["metadata"]["total_size"] = bytes_;
  index["weight_map"] = Json::object();
  for (const Shard& shard : shards_)
    for (const TensorInfo& info : shard.tensors) index["weight_map"][info.name] = shard.name;
  write_file_atomically(folder_ / kIndex, index.dump(2) + "\n");
  entries_.push_back(make_manifest_entry(folder_, kIndex));
  return entries_;
}

}  // namespace atom::checkpoint
