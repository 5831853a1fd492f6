// The weights of a model folder: tensors in the order of a list that is known in advance, in one file up to a size, else in
// shards with an index.
//
//   ShardWriter writer(folder.path(), infos);
//   for (const TensorInfo& info : infos) writer.write(info.name, bytes_of(info));
//   entries = writer.finish();            // the index is written; what the manifest says of the files
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/manifest.h"
#include "checkpoint/safetensors.h"

namespace atom::checkpoint {

inline constexpr uint64_t kShardBytes = uint64_t{4} << 30;

class ShardWriter {
 public:
  ShardWriter(std::filesystem::path folder, std::vector<TensorInfo> tensors,
              uint64_t shard_bytes = kShardBytes);

  uint64_t bytes() const { return bytes_; }  // of all tensors
  // The next tensor, whole. InvariantError: another one. Error: disk full, I/O error.
  void write(std::string_view name, std::span<const std::byte> bytes);
  // InvariantError: tensors are missing. Error: as for write.
  std::vector<ManifestEntry> finish();

 private:
  struct Shard {
    std::string name;
    std::vector<TensorInfo> tensors;
  };
  void close();

  std::filesystem::path folder_;
  std::vector<Shard> shards_;
  uint64_t bytes_ = 0;
  size_t shard_ = 0;     // being written
  size_t in_shard_ = 0;  // tensors of it already written
  std::optional<SafetensorsWriter> file_;
  std::vector<ManifestEntry> entries_;
};

}  // namespace atom::checkpoint
