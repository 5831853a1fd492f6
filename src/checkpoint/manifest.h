// The manifest of an output folder: atom_manifest.json lists every file with its size and SHA-256
// (FIPS 180-4), so that a damaged or swapped file is found before it is used.
//
//   write_manifest(folder, {{"model.safetensors", writer.size(), writer.sha256()}});   // last
//   const ManifestReport report = verify_manifest(folder);
//   if (!report.ok()) ...
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace atom::checkpoint {

inline constexpr std::string_view kManifestName = "atom_manifest.json";

struct ManifestEntry {
  std::string name;    // a plain file name of the folder
  uint64_t size = 0;   // bytes
  std::string sha256;  // 64 lower-case hexadecimal digits
};

// Entry of a file that lies in `folder`: reads it once. Error: unreadable.
ManifestEntry make_manifest_entry(const std::filesystem::path& folder, const std::string& name);

// Writes atom_manifest.json atomically. Error: an entry that read_manifest would refuse, I/O
// errors.
void write_manifest(const std::filesystem::path& folder, const std::vector<ManifestEntry>& entries);

// Error: no manifest; no JSON; version not 1; names that are not plain file names, occur twice or
// name the manifest itself; sizes or digests that are none.
std::vector<ManifestEntry> read_manifest(const std::filesystem::path& folder);

enum class FileState { kOk, kMissing, kSizeDiffers, kHashDiffers, kUnreadable };
std::string_view file_state_text(FileState state);  // "ok", "missing", "size differs", ...

struct FileResult {
  std::string name;
  FileState state = FileState::kOk;
  std::string detail;  // expected and found values; empty when ok
};

struct ManifestReport {
  std::vector<FileResult> files;              // in the order of the manifest
  std::vector<std::string> unlisted_weights;  // weight files in the folder that it does not list
  bool ok() const;                            // every file ok and nothing unlisted
};

// Compares every listed file with the manifest (reads all bytes). Error: as read_manifest.
ManifestReport verify_manifest(const std::filesystem::path& folder);

}  // namespace atom::checkpoint
