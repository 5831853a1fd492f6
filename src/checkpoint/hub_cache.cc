#include "checkpoint/hub_cache.h"

#include <algorithm>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"

namespace atom::checkpoint {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kLetters =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.";
constexpr size_t kMostPart = 96;

bool is_part(std::string_view part) {
  const auto is_edge = [](char c) { return c == '-' || c == '.'; };
  return !part.empty() && part.size() <= kMostPart &&
         part.find_first_not_of(kLetters) == std::string_view::npos && !is_edge(part.front()) &&
         !is_edge(part.back()) && part.find("--") == std::string_view::npos &&
         part.find("..") == std::string_view::npos;
}

// A branch, a tag, refs/pr/N or a commit: parts with a slash between.
bool is_revision(std::string_view revision) {
  for (size_t begin = 0; begin <= revision.size();) {
    const size_t end = std::min(revision.find('/', begin), revision.size());
    if (!is_part(revision.substr(begin, end - begin))) return false;
    begin = end + 1;
  }
  return true;
}

bool is_commit(std::string_view word) {
  return word.size() == 40 && word.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

// Names of refs, as "main" and "refs/pr/1" lie in folders, and of snapshots.
std::string revisions_of(const fs::path& repository) {
  std::vector<std::string> words;
  std::error_code code;
  for (fs::recursive_directory_iterator at(repository / "refs", code), end; !code && at != end;
       at.increment(code))
    if (at->is_regular_file(code))
      words.push_back(at->path().lexically_relative(repository / "refs").string());
  for (fs::directory_iterator at(repository / "snapshots", code), end; !code && at != end;
       at.increment(code))
    words.push_back(at->path().filename().string());
  std::sort(words.begin(), words.end());
  constexpr size_t kMost = 8;
  std::string list;
  for (size_t i = 0; i < std::min(words.size(), kMost); ++i) list += (i > 0 ? ", " : "") + words[i];
  if (words.size() > kMost) list += ", ...";
  return list.empty() ? "none" : list;
}

// The commit that a revision names; empty: it is not in the cache.
std::string commit_of(const fs::path& repository, const std::string& revision) {
  if (is_commit(revision)) return revision;
  const fs::path path = repository / "refs" / revision;
  std::error_code code;
  if (!fs::is_regular_file(path, code)) return "";
  constexpr uint64_t kMostBytes = 1024;
  std::string commit = read_file(path, kMostBytes);
  commit.erase(commit.find_last_not_of(" \r\n") + 1);
  if (!is_commit(commit))
    fail("{}: must hold a commit, 40 hexadecimal digits, but holds {}", path.string(),
         shown_json(Json(commit)));
  return commit;
}

}  // namespace

fs::path hub_cache_folder(const std::function<const char*(const char* name)>& get) {
  const auto variable = [&get](const char* name) {
    const char* value = get(name);
    return fs::path(value == nullptr ? "" : value);
  };
  for (const char* name : {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"})
    if (const fs::path folder = variable(name); !folder.empty()) return folder;
  if (const fs::path home = variable("HF_HOME"); !home.empty()) return home / "hub";
  if (const fs::path cache = variable("XDG_CACHE_HOME"); !cache.empty())
    return cache / "huggingface" / "hub";
  const fs::path home = variable("HOME");
  return home.empty() ? home : home / ".cache" / "huggingface" / "hub";
}

bool is_hub_name(std::string_view name) {
  const size_t slash = name.find('/');
  return slash == std::string_view::npos
             ? is_part(name)
             : is_part(name.substr(0, slash)) && is_part(name.substr(slash + 1));
}

fs::path find_model(std::string_view name, const fs::path& cache) {
  std::error_code code;
  const size_t mark = std::min(name.find('@'), name.size());
  const std::string id(name.substr(0, mark));
  const std::string revision(mark < name.size() ? name.substr(mark + 1) : "main");
  if (fs::exists(fs::symlink_status(name, code)) || !is_hub_name(id) || !is_revision(revision))
    return name;
  if (cache.empty()) fail("{}: there is no such folder", name);
  std::string folder = "models--" + id;
  if (const size_t slash = folder.find('/'); slash != std::string::npos)
    folder.replace(slash, 1, "--");
  const std::string fetch =
      fmt::format("'hf download {}{}' fetches it", id,
                  mark < name.size() ? " --revision " + revision : std::string());
  const fs::path repository = cache / folder;
  if (!fs::is_directory(repository, code))
    fail(
        "{}: there is no such folder, and no model of this name in the cache {}; if it is one of "
        "the Hugging Face Hub, {}",
        name, cache.string(), fetch);
  const std::string commit = commit_of(repository, revision);
  fs::path snapshot = repository / "snapshots" / commit;
  if (commit.empty() || !fs::is_directory(snapshot, code))
    fail("{}: the cache {} has no revision '{}' of it, only {}; {}", name, cache.string(), revision,
         revisions_of(repository), fetch);
  return snapshot;
}

}  // namespace atom::checkpoint
