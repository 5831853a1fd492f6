#include "checkpoint/manifest.h"

#include <algorithm>
#include <set>
#include <system_error>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/sha256.h"
#include "checkpoint/file_name.h"

namespace atom::checkpoint {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxManifestBytes = uint64_t{16} << 20;
constexpr size_t kHashPieceBytes = size_t{8} << 20;  // bounds the resident pages while hashing

bool is_digest(std::string_view text) {
  return text.size() == 64 && std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

void check_entries(const std::string& source, const std::vector<ManifestEntry>& entries) {
  std::set<std::string_view> names;
  for (const ManifestEntry& entry : entries) {
    if (!is_plain_file_name(entry.name) || entry.name == kManifestName)
      fail("{}: \"name\" must be the plain name of another file of the folder, but is {}", source,
           Json(entry.name).dump(-1, ' ', true, Json::error_handler_t::replace).substr(0, 60));
    if (!names.insert(entry.name).second) fail("{}: lists \"{}\" twice", source, entry.name);
    if (!is_digest(entry.sha256))
      fail("{}: the \"sha256\" of \"{}\" must be 64 lower-case hexadecimal digits, but is \"{}\"",
           source, entry.name, entry.sha256.substr(0, 70));
    if (entry.size > static_cast<uint64_t>(INT64_MAX))
      fail("{}: the \"size\" of \"{}\" must be at most {}, but is {}", source, entry.name,
           INT64_MAX, entry.size);
  }
}

std::string hash_file(const MappedFile& file) {
  Sha256 hash;
  const auto bytes = file.bytes();
  for (size_t begin = 0; begin < bytes.size(); begin += kHashPieceBytes) {
    const size_t length = std::min(kHashPieceBytes, bytes.size() - begin);
    hash.update(bytes.subspan(begin, length));
    file.release(begin, length);
  }
  return hash.finish();
}

FileResult verify_file(const fs::path& folder, const ManifestEntry& entry) {
  const fs::path path = folder / entry.name;
  std::error_code code;
  if (!fs::exists(path, code)) return {entry.name, FileState::kMissing, "the file does not exist"};
  try {
    const MappedFile file(path);
    if (file.bytes().size() != entry.size)
      return {entry.name, FileState::kSizeDiffers,
              fmt::format("{} bytes instead of {}", file.bytes().size(), entry.size)};
    if (const std::string digest = hash_file(file); digest != entry.sha256)
      return {entry.name, FileState::kHashDiffers,
              fmt::format("SHA-256 {} instead of {}", digest, entry.sha256)};
  } catch (const Error& error) {
    return {entry.name, FileState::kUnreadable, error.what()};
  }
  return {entry.name, FileState::kOk, {}};
}

}  // namespace

ManifestEntry make_manifest_entry(const fs::path& folder, const std::string& name) {
  const MappedFile file(folder / name);
  return {name, file.bytes().size(), hash_file(file)};
}

void write_manifest(const fs::path& folder, const std::vector<ManifestEntry>& entries) {
  const fs::path path = folder / kManifestName;
  check_entries(path.string(), entries);
  Json files = Json::array();
  for (const ManifestEntry& entry : entries)
    files.push_back(Json({{"name", entry.name}, {"size", entry.size}, {"sha256", entry.sha256}}));
  const Json manifest = {{"version", 1}, {"files", std::move(files)}};
  write_file_atomically(path, manifest.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

std::vector<ManifestEntry> read_manifest(const fs::path& folder) {
  const fs::path path = folder / kManifestName;
  const std::string source = path.string();
  const Json manifest = parse_json(read_file(path, kMaxManifestBytes), {.source = source});
  get_int(manifest, "version", {.source = source, .min = 1, .max = 1});
  const auto files = manifest.find("files");
  if (files == manifest.end() || !files->is_array())
    fail("{}: the field \"files\" must be an array, but {}", source,
         shown_field(manifest, "files"));
  std::vector<ManifestEntry> entries;
  for (const Json& file : *files)
    entries.push_back({get_string(file, "name", source),
                       static_cast<uint64_t>(get_int(file, "size", {.source = source, .min = 0})),
                       get_string(file, "sha256", source)});
  check_entries(source, entries);
  return entries;
}

std::string_view file_state_text(FileState state) {
  switch (state) {
    case FileState::kOk:
      return "ok";
    case FileState::kMissing:
      return "missing";
    case FileState::kSizeDiffers:
      return "size differs";
    case FileState::kHashDiffers:
      return "hash differs";
    case FileState::kUnreadable:
      return "unreadable";
  }
  invariant_failed("unknown file state", std::source_location::current());
}

bool ManifestReport::ok() const {
  return unlisted_weights.empty() &&
         std::all_of(files.begin(), files.end(),
                     [](const FileResult& file) { return file.state == FileState::kOk; });
}

ManifestReport verify_manifest(const fs::path& folder) {
  ManifestReport report;
  std::set<std::string> listed;
  for (const ManifestEntry& entry : read_manifest(folder)) {
    report.files.push_back(verify_file(folder, entry));
    listed.insert(entry.name);
  }
  std::error_code code;
  for (auto entry = fs::directory_iterator(folder, code); !code && entry != fs::end(entry);
       entry.increment(code)) {
    const std::string name = entry->path().filename().string();
    if (is_weight_name(name) && !listed.contains(name)) report.unlisted_weights.push_back(name);
  }
  if (code) fail("{}: cannot list the folder: {}", folder.string(), code.message());
  std::sort(report.unlisted_weights.begin(), report.unlisted_weights.end());
  return report;
}

}  // namespace atom::checkpoint
