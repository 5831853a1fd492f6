#include "checkpoint/output_folder.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <string>
#include <system_error>
#include <utility>

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

// The lock of a work folder, held as long as the descriptor is open. -1: not to be had.
int lock_folder(const fs::path& folder) {
  const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0 || ::flock(descriptor, LOCK_EX | LOCK_NB) == 0) return descriptor;
  const int code = errno;
  ::close(descriptor);
  errno = code;
  return -1;
}

bool is_locked(const fs::path& folder) {
  const int lock = lock_folder(folder);
  if (lock < 0) return errno == EWOULDBLOCK;
  ::close(lock);
  return false;
}

// Work folders of other runs on the same output. Locked: such a run is alive. Those whose process is gone hold disk space
// until somebody removes them. They are only named: a process of another machine may be writing to a shared disk.
void refuse_other_run(const fs::path& final, const fs::path& own, bool names_left) {
  const std::string stem = fmt::format(".{}.partial-", final.filename().string());
  std::error_code code;
  for (const fs::directory_entry& entry : fs::directory_iterator(final.parent_path(), code)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(stem) || entry.path() == own) continue;
    int pid = 0;
    const char* begin = name.data() + stem.size();
    const auto [end, error] = std::from_chars(begin, name.data() + name.size(), pid);
    if (error != std::errc() || pid <= 0 || (*end != '\0' && *end != '-')) continue;
    if (is_locked(entry.path()))
      fail("{}: another run is writing this output (process {}, into {})", final.string(), pid,
           name);
    if (!names_left || ::kill(pid, 0) == 0 || errno != ESRCH) continue;
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
    if (const int fault = file_fault("make folder", work); fault != 0)
      code.assign(fault, std::generic_category());
    else if (fs::create_directory(work, code))
      return work;
    if (code)
      fail("{}: cannot make the work folder {}: {}", final.string(), work.filename().string(),
           code.message());
  }
  fail("{}: too many work folders {} lie beside it", final.string(), stem);
}

}  // namespace

OutputFolder::OutputFolder(const fs::path& out, const fs::path& in, bool names_left)
    : final_(resolve_final(out)) {
  if (!in.empty()) {
    std::error_code code;
    const fs::path input = fs::canonical(in, code);
    if (code) fail("{}: cannot resolve the input folder: {}", in.string(), code.message());
    if (is_same_or_inside(final_, input))
      fail("{}: the output folder must not be or lie in the input folder {}", out.string(),
           input.string());
  }
  refuse_taken(final_);
  work_ = make_work_folder(final_);
  lock_ = lock_folder(work_);
  try {
    refuse_other_run(final_, work_, names_left);
  } catch (...) {
    remove_work();
    throw;
  }
}

void OutputFolder::remove_work() {
  std::error_code ignored;
  fs::remove_all(work_, ignored);
  if (lock_ >= 0) ::close(std::exchange(lock_, -1));
}

OutputFolder::~OutputFolder() {
  if (!committed_) remove_work();
  if (lock_ >= 0) ::close(lock_);
}

void OutputFolder::remove_left(const std::string& name) const {
  const fs::path left = final_.parent_path() / name;
  std::error_code ignored;
  if (name.starts_with(fmt::format(".{}.partial-", final_.filename().string())) && left != work_ &&
      fs::is_directory(fs::symlink_status(left, ignored)) && !is_locked(left))
    fs::remove_all(left, ignored);
}

uint64_t OutputFolder::free_space() const {
  struct statvfs status = {};
  if (::statvfs(path().c_str(), &status) != 0)
    fail("{}: cannot read the free space: {}", final_.string(),
         std::generic_category().message(errno));
  return uint64_t{status.f_bavail} * status.f_frsize;
}

void OutputFolder::require_space(uint64_t bytes) const {
  if (const uint64_t free = free_space(); free < bytes)
    fail("{}: the output needs {} bytes, but the file system has only {} free", final_.string(),
         bytes, free);
}

void OutputFolder::commit() {
  check(!committed_, "OutputFolder::commit called twice");
  sync_folder(work_);
  const int fault = file_fault("rename", final_);
  if (fault != 0 || ::rename(work_.c_str(), final_.c_str()) != 0)
    fail("{}: cannot give the finished folder its name: {}", final_.string(),
         std::generic_category().message(fault != 0 ? fault : errno));
  try {
    sync_folder(final_.parent_path());
  } catch (...) {
    // It may be gone after a crash, so it is not there now.
    if (::rename(final_.c_str(), work_.c_str()) != 0)
      log_warning("{}: complete, but perhaps not durable", final_.string());
    throw;
  }
  committed_ = true;
}

}  // namespace atom::checkpoint
