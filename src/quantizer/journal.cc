#include "quantizer/journal.h"

#include <system_error>
#include <utility>

#include "base/file.h"
#include "base/sha256.h"
#include "checkpoint/safetensors.h"

namespace atom::quantizer {
namespace {

namespace fs = std::filesystem;

constexpr const char* kIndex = "journal.json";
constexpr const char* kJsonKey = "json";
constexpr uint64_t kMaxIndexBytes = uint64_t{64} << 20;

std::string sha256_of(const fs::path& path) {
  const MappedFile file(path);
  return sha256_hex(file.bytes());
}

// The first field that two runs do not share.
std::string difference(const Json& ours, const Json& theirs) {
  for (const auto& [key, value] : ours.items())
    if (!theirs.contains(key) || theirs[key] != value) return key;
  for (const auto& [key, value] : theirs.items())
    if (!ours.contains(key)) return key;
  return {};
}

}  // namespace

const std::vector<std::byte>& Record::array(const std::string& name) const {
  const auto found = arrays.find(name);
  if (found == arrays.end()) fail("a journal has no array \"{}\"", name);
  return found->second;
}

fs::path Journal::path_of(const fs::path& output) {
  return output.parent_path() / fmt::format(".{}.journal", output.filename().string());
}

Journal::Journal(Options options)
    : folder_(path_of(options.output)),
      run_(std::move(options.run)),
      note_(std::move(options.note)) {
  std::error_code code;
  if (fs::exists(folder_ / kIndex, code)) {
    if (!options.resume)
      fail(
          "{}: an unfinished run left this journal: --resume continues it, removing the folder "
          "begins anew",
          folder_.string());
    read_index();
    write_index();
    return;
  }
  // Without its index it is what a run left that died in its first moments, or in its last.
  if (fs::exists(folder_, code)) fs::remove_all(folder_, code);
  if (const int fault = file_fault("make folder", folder_); fault != 0)
    code.assign(fault, std::generic_category());
  else
    fs::create_directory(folder_, code);
  if (code) fail("{}: cannot make the journal's folder: {}", folder_.string(), code.message());
  try {
    write_index();
  } catch (...) {
    fs::remove_all(folder_, code);
    throw;
  }
}

Journal::~Journal() {
  std::error_code ignored;
  if (hashes_.empty()) fs::remove_all(folder_, ignored);
}

void Journal::read_index() {
  const fs::path path = folder_ / kIndex;
  const Json index = parse_json(read_file(path, kMaxIndexBytes), {.source = path.string()});
  if (!index.is_object() || !index.contains("run") || !index["run"].is_object() ||
      !index.contains("records") || !index["records"].is_object())
    fail("{}: not the index of a journal", path.string());
  if (const std::string field = difference(run_, index["run"]); !field.empty())
    fail(
        "{}: the journal belongs to another run (\"{}\" differs): repeat that run's options, or "
        "remove the folder",
        folder_.string(), field);
  if (index.contains("note")) found_note_ = index["note"];
  for (const auto& [name, hash] : index["records"].items()) {
    if (!hash.is_string())
      fail("{}: \"records\" has the value {}, not a hash", path.string(), hash.dump());
    hashes_[name] = hash.get<std::string>();
  }
}

void Journal::write_index() const {
  const Json index = {{"run", run_}, {"note", note_}, {"records", Json(hashes_)}};
  write_file_atomically(folder_ / kIndex, index.dump(1) + "\n");
}

std::optional<Record> Journal::find(const std::string& name) const {
  const auto listed = hashes_.find(name);
  if (listed == hashes_.end()) return std::nullopt;
  const fs::path path = folder_ / (name + ".safetensors");
  if (sha256_of(path) != listed->second)
    fail("{}: its bytes are not those that were written: remove the folder to begin anew",
         path.string());
  const checkpoint::SafetensorsFile file(path);
  const auto json = file.metadata().find(kJsonKey);
  if (json == file.metadata().end()) fail("{}: not a record of a journal", path.string());
  Record record;
  record.json = parse_json(json->second, {.source = path.string()});
  for (const std::string& array : file.names()) {
    const std::span<const std::byte> bytes = file.find(array)->bytes;
    record.arrays[array].assign(bytes.begin(), bytes.end());
  }
  return record;
}

void Journal::add(const std::string& name, const Record& record) {
  std::vector<checkpoint::TensorInfo> infos;
  for (const auto& [array, bytes] : record.arrays)
    infos.push_back({array, tensor::DType::U8, {static_cast<int64_t>(bytes.size())}});
  checkpoint::SafetensorsWriter writer(folder_ / (name + ".safetensors"), infos,
                                       {{kJsonKey, record.json.dump()}});
  for (const auto& [array, bytes] : record.arrays) writer.write(array, bytes);
  writer.commit();
  hashes_[name] = writer.sha256();
  write_index();
}

void Journal::remove() {
  // The index goes first: without it the rest is nobody's. What cannot be removed does no harm.
  std::error_code ignored;
  hashes_.clear();
  if (file_fault("remove", folder_ / kIndex) != 0) return;
  fs::remove(folder_ / kIndex, ignored);
  if (file_fault("remove", folder_) != 0) return;
  fs::remove_all(folder_, ignored);
}

}  // namespace atom::quantizer
