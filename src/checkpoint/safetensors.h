// The safetensors container: eight bytes of header length, a JSON header, the bytes of the tensors.
//
//   const SafetensorsFile file("model.safetensors");             // validates the whole header
//   const TensorView norm = file.find("model.norm.weight").value();
//
//   SafetensorsWriter writer("out.safetensors", {{"codes", DType::U8, {4, 8}}}, {{"format", "pt"}});
//   writer.write("codes", bytes);
//   writer.commit();                                             // durable under its name from here
//
// Views borrow the map of the file and are valid while the SafetensorsFile lives (a move keeps
// them).
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "tensor/tensor.h"

namespace atom::checkpoint {

using Metadata = std::map<std::string, std::string>;

// A file mapped for reading; nothing in it is trusted. The constructor refuses, naming file,
// tensor, rule and value: a file below 8 bytes; a header length outside [2, 100 MB] or beyond the
// file; a header that is no JSON object or nests deeply; duplicate names; an unknown dtype; a
// dimension that is no non-negative integer; a shape whose bytes overflow or differ from the byte
// range; byte ranges that overlap, leave a hole, or do not end with the file; metadata that are not
// strings. Const members may be called from several threads.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(std::filesystem::path path);

  const std::filesystem::path& path() const { return path_; }
  const Metadata& metadata() const { return metadata_; }
  const std::vector<std::string>& names() const { return names_; }  // in the order of their bytes

  bool has(std::string_view name) const { return entry_of(name) != nullptr; }
  // No value: no such tensor. Error: a dtype of the container that Atom does not read (F64, ...).
  std::optional<tensor::TensorView> find(std::string_view name) const;

  // Tells the kernel that the tensor's pages are not needed soon; its bytes stay readable.
  void release(std::string_view name) const;

  uint64_t tensor_bytes() const { return data_.size(); }  // sum over all tensors

 private:
  struct Entry {
    std::string_view dtype_name;         // of a constant
    std::optional<tensor::DType> dtype;  // none: known to the container, but not to Atom
    tensor::Shape shape;
    uint64_t begin = 0, end = 0;  // bytes within data_
  };
  struct HeaderReader;
  const Entry* entry_of(std::string_view name) const;  // null: no such tensor

  std::filesystem::path path_;
  MappedFile file_;
  std::span<const std::byte> data_;  // what follows the header
  Metadata metadata_;
  std::vector<std::string> names_;
  std::vector<Entry> entries_;     // entries_[i] belongs to names_[i]
  std::vector<uint32_t> by_name_;  // indices of names_, by what they name
};

struct TensorInfo {
  std::string name;
  tensor::DType dtype = tensor::DType::F32;
  tensor::Shape shape;
};

// Streams a file whose tensors are known in advance. The header is padded with blanks so that the
// data begin at a multiple of 8; byte ranges follow each other without holes (the format wants it),
// so list wide dtypes before narrow ones of odd size to keep every tensor aligned.
class SafetensorsWriter {
 public:
  // Error: a name twice, "__metadata__" as a name, invalid UTF-8, a header above 100 MB, or the
  // file cannot be created.
  SafetensorsWriter(std::filesystem::path path, std::vector<TensorInfo> tensors,
                    const Metadata& metadata = {});

  // The next tensor of the list, whole. InvariantError: another name or another byte count.
  void write(std::string_view name, std::span<const std::byte> bytes);
  void commit();  // InvariantError: tensors are missing. Error: disk full, I/O error

  uint64_t planned_size() const { return planned_size_; }  // of the finished file
  uint64_t size() const { return file_.size(); }           // bytes written so far
  std::string sha256() const { return file_.sha256(); }    // after commit()

 private:
  std::vector<TensorInfo> tensors_;
  size_t next_ = 0;
  uint64_t planned_size_ = 0;
  AtomicFile file_;
};

}  // namespace atom::checkpoint
