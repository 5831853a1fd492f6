#include "checkpoint/output_folder.h"

#include <signal.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <string>
#include <system_error>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"

namespace atom::checkpoint {
namespace {

namespace fs = std::filesystem;

constexpr int kNameAttempts = 100;

// The path that the folder will have, without symbolic links. Its parent must exist.
fs::path resolve_final(const fs::path& out) {
  if (out.empty()) fail("the output folder needs a name");
  std::error_code code;
  if (fs::exists(out, code)) {
    fs::path final = fs::canonical(out, code);
    if (code) fail("{}: cannot resolve the path: {}", out.string(), code.message());
    return final;
  }
  fs::path plain = fs::absolute(out).lexically_normal();
  if (!plain.has_filename()) plain = plain.parent_path();  // a slash at the end
  if (fs::is_symlink(fs::symlink_status(plain, code)))
    fail("{}: the output folder is a symbolic link to nothing", out.string());
  if (!fs::is_directory(plain.parent_path(), code))
    fail("{}: the parent folder {} does not exist", out.string(), plain.parent_path().string());
  const fs::path parent = fs::canonical(plain.parent_path(), code);
  if (code) fail("{}: cannot resolve the path: {}", out.string(), code.message());
  return parent / plain.filename();
}

bool is_same_or_inside(const fs::path& path, const fs::path& folder) {
  const auto [rest, unused] = std::mismatch(folder.begin(), folder.end(), path.begin(), path.end());
  return rest == folder.end();
}

bool is_mount_point(const fs::path& folder) {
  struct stat own = {}, parent = {};
  return ::stat(folder.c_str(), &own) == 0 && ::stat(folder.parent_path().c_str(), &parent) == 0 &&
         own.st_dev != parent.st_dev;
}

void refuse_taken(const fs::path& final) {
  std::error_code code;
  if (!fs::exists(final, code)) return;
  if (!fs::is_directory(final, code))
    fail("{}: the output folder exists and is a file", final.string());
  const bool is_empty = fs::is_empty(final, code);
  if (code) fail("{}: cannot list the output folder: {}", final.string(), code.message());
  if (!is_empty) fail("{}: the output folder exists and is not empty", final.string());
  // The finished folder takes this name by a rename, which cannot replace a mounted one.
  if (is_mount_point(final))
    fail("{}: the output folder is a mount point: name a new folder inside it", final.string());
}

// Work folders whose process is gone hold disk space until somebody removes them. They are only named: a process
// of another machine may be writing to a shared disk.
void tell_of_left_folders(const fs::path& final) {
  const std::string stem = fmt::format(".{}.partial-", final.filename().string());
  std::error_code code;
  for (const fs::directory_entry& entry : fs::directory_iterator(final.parent_path(), code)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(stem)) continue;
    int pid = 0;
    const char* begin = name.data() + stem.size();
    const auto [end, error] = std::from_chars(begin, name.data() + name.size(), pid);
    if (error != std::errc() || pid <= 0 || (*end != '\0' && *end != '-')) continue;
    if (::kill(pid, 0) == 0 || errno != ESRCH) continue;
    log_warning("{} was left behind by a run that was killed; it can be removed",
                entry.path().string());
  }
}

fs::path make_work_folder(const fs::path& final) {
  const std::string stem = fmt::format(".{}.partial-{}", final.filename().string(), ::getpid());
  for (int attempt = 0; attempt < kNameAttempts; ++attempt) {
    fs::path work =
        final.parent_path() / (attempt == 0 ? stem : fmt::format("{}-{}", stem, attempt));
    std::error_code code;
    if (fs::create_directory(work, code)) return work;
    if (code)
      fail("{}: cannot make the work folder {}: {}", final.string(), work.filename().string(),
           code.message());
  }
  fail("{}: too many work folders {} lie beside it", final.string(), stem);
}

}  // namespace

OutputFolder::OutputFolder(const fs::path& out, const fs::path& in) : final_(resolve_final(out)) {
  if (!in.empty()) {
    std::error_code code;
    const fs::path input = fs::canonical(in, code);
    if (code) fail("{}: cannot resolve the input folder: {}", in.string(), code.message());
    if (is_same_or_inside(final_, input))
      fail("{}: the output folder must not be or lie in the input folder {}", out.string(),
           input.string());
  }
  refuse_taken(final_);
  tell_of_left_folders(final_);
  work_ = make_work_folder(final_);
}

OutputFolder::~OutputFolder() {
  if (committed_) return;
  std::error_code ignored;
  fs::remove_all(work_, ignored);
}

void OutputFolder::require_space(uint64_t bytes) const {
  struct statvfs status = {};
  if (::statvfs(path().c_str(), &status) != 0)
    fail("{}: cannot read the free space: {}", final_.string(),
         std::generic_category().message(errno));
  const uint64_t free = uint64_t{status.f_bavail} * status.f_frsize;
  if (free < bytes)
    fail("{}: the output needs {} bytes, but the file system has only {} free", final_.string(),
         bytes, free);
}

void OutputFolder::commit() {
  check(!committed_, "OutputFolder::commit called twice");
  sync_folder(work_);
  if (::rename(work_.c_str(), final_.c_str()) != 0)
    fail("{}: cannot give the finished folder its name: {}", final_.string(),
         std::generic_category().message(errno));
  committed_ = true;
  sync_folder(final_.parent_path());
}

}  // namespace atom::checkpoint
