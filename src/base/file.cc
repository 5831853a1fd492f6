#include "base/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/sha256.h"

namespace atom {
namespace {

constexpr size_t kBufferBytes = size_t{1} << 20;
constexpr int kNameAttempts = 100;

FileHook file_hook = nullptr;

std::string reason(int code) { return std::generic_category().message(code); }

// Closes on scope exit; close() itself reports errors, which matter for writes (quota, network).
class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  int get() const { return fd_; }
  int close() { return ::close(std::exchange(fd_, -1)) == 0 ? 0 : errno; }

 private:
  int fd_;
};

struct OpenedFile {
  Descriptor fd;
  uint64_t size;
};

// O_NONBLOCK: a named pipe is refused below instead of waiting for its writer.
OpenedFile open_for_reading(const std::filesystem::path& path) {
  Descriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (fd.get() < 0) fail("{}: cannot open the file: {}", path.string(), reason(errno));
  struct stat status = {};
  if (::fstat(fd.get(), &status) != 0)
    fail("{}: cannot read the file status: {}", path.string(), reason(errno));
  if (!S_ISREG(status.st_mode))
    fail("{}: not a regular file{}", path.string(),
         S_ISDIR(status.st_mode) ? " but a directory" : "");
  return {std::move(fd), static_cast<uint64_t>(status.st_size)};
}

}  // namespace

MappedFile::MappedFile(const std::filesystem::path& path) {
  const OpenedFile file = open_for_reading(path);
  if (file.size == 0) return;
  void* data = ::mmap(nullptr, file.size, PROT_READ, MAP_PRIVATE, file.fd.get(), 0);
  if (data == MAP_FAILED)
    fail("{}: cannot map {} bytes: {}", path.string(), file.size, reason(errno));
  data_ = static_cast<const std::byte*>(data);
  size_ = file.size;
  try {
    range_ = MappedRange(data, size_, path.string());
  } catch (...) {
    ::munmap(data, size_);
    throw;
  }
}

MappedFile::~MappedFile() {
  range_ = {};  // another file may be mapped there as soon as this one is not
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      range_(std::move(other.range_)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(range_, other.range_);
  return *this;
}

void MappedFile::release(size_t offset, size_t length) const {
  check(offset <= size_ && length <= size_ - offset, "MappedFile::release outside the file");
  // Only whole pages inside the range: the neighbours' bytes stay resident.
  const size_t page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const size_t begin = (offset + page - 1) / page * page;
  const size_t end = (offset + length) / page * page;
  if (begin >= end) return;
  ::madvise(const_cast<std::byte*>(data_) + begin, end - begin, MADV_DONTNEED);
}

std::string read_file(const std::filesystem::path& path, uint64_t max_bytes) {
  const OpenedFile file = open_for_reading(path);
  const auto refuse_large = [&](uint64_t size) {
    if (size > max_bytes)
      fail("{}: {} bytes exceed the limit of {} bytes", path.string(), size, max_bytes);
  };
  refuse_large(file.size);
  std::string text;
  // Read to the end rather than to st_size: kernel files report a size of 0.
  for (;;) {
    const size_t filled = text.size();
    text.resize(std::max<uint64_t>(file.size + 1, filled + 4096));
    const ssize_t count = ::read(file.fd.get(), text.data() + filled, text.size() - filled);
    if (count < 0 && errno == EINTR) {
      text.resize(filled);
      continue;
    }
    if (count < 0) fail("{}: cannot read the file: {}", path.string(), reason(errno));
    text.resize(filled + static_cast<size_t>(count));
    if (count == 0) return text;
    refuse_large(text.size());
  }
}

struct AtomicFile::State {
  Descriptor fd;
  std::filesystem::path temporary;
  std::vector<std::byte> buffer;
  Sha256 hash;
  std::string digest;
  bool committed = false;

  void flush(const std::filesystem::path& path) {
    write_through(path, buffer);
    buffer.clear();
  }

  void write_through(const std::filesystem::path& path, std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      if (const int code = file_fault("write", path); code != 0)
        fail("{}: cannot write the file: {}", path.string(), reason(code));
      const ssize_t count = ::write(fd.get(), bytes.data(), bytes.size());
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) fail("{}: cannot write the file: {}", path.string(), reason(errno));
      bytes = bytes.subspan(static_cast<size_t>(count));
    }
  }
};

AtomicFile::AtomicFile(std::filesystem::path path)
    : state_(std::make_unique<State>()), path_(std::move(path)) {
  if (!path_.has_filename()) fail("{}: a file to write needs a name", path_.string());
  const std::string stem = path_.string() + ".partial-" + std::to_string(::getpid());
  int code = EEXIST;
  for (int attempt = 0; attempt < kNameAttempts && code == EEXIST; ++attempt) {
    state_->temporary = attempt == 0 ? stem : stem + "-" + std::to_string(attempt);
    state_->fd = Descriptor(::open(state_->temporary.c_str(),
                                   O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666));
    code = state_->fd.get() >= 0 ? 0 : errno;
  }
  if (code != 0) fail("{}: cannot create the file: {}", path_.string(), reason(code));
  state_->buffer.reserve(kBufferBytes);
}

AtomicFile::~AtomicFile() {
  if (!state_->committed) ::unlink(state_->temporary.c_str());
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  check(!state_->committed, "AtomicFile::write after commit");
  state_->hash.update(bytes);
  size_ += bytes.size();
  if (state_->buffer.size() + bytes.size() > kBufferBytes) state_->flush(path_);
  if (bytes.size() > kBufferBytes)
    state_->write_through(path_, bytes);
  else
    state_->buffer.insert(state_->buffer.end(), bytes.begin(), bytes.end());
}

void AtomicFile::commit() {
  check(!state_->committed, "AtomicFile::commit called twice");
  state_->flush(path_);
  int fault = file_fault("fsync", path_);
  if (fault != 0 || ::fsync(state_->fd.get()) != 0)
    fail("{}: cannot sync the file: {}", path_.string(), reason(fault != 0 ? fault : errno));
  if (const int code = state_->fd.close(); code != 0)
    fail("{}: cannot close the file: {}", path_.string(), reason(code));
  fault = file_fault("rename", path_);
  if (fault != 0 || ::rename(state_->temporary.c_str(), path_.c_str()) != 0)
    fail("{}: cannot give the finished file its name: {}", path_.string(),
         reason(fault != 0 ? fault : errno));
  state_->committed = true;
  state_->digest = state_->hash.finish();
  sync_folder(path_.has_parent_path() ? path_.parent_path() : ".");
}

std::string AtomicFile::sha256() const {
  check(state_->committed, "AtomicFile::sha256 before commit");
  return state_->digest;
}

void write_file_atomically(const std::filesystem::path& path, std::string_view bytes) {
  AtomicFile file(path);
  file.write(std::as_bytes(std::span(bytes)));
  file.commit();
}

void set_file_hook(FileHook hook) { file_hook = hook; }

int file_fault(std::string_view step, const std::filesystem::path& path) {
  return file_hook != nullptr ? file_hook(step, path) : 0;
}

void sync_folder(const std::filesystem::path& folder) {
  const Descriptor fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd.get() < 0) fail("{}: cannot open the folder: {}", folder.string(), reason(errno));
  const int fault = file_fault("fsync folder", folder);
  // Some file systems do not offer fsync on folders and say so with EINVAL.
  if (fault != 0 || (::fsync(fd.get()) != 0 && errno != EINVAL))
    fail("{}: cannot sync the folder: {}", folder.string(), reason(fault != 0 ? fault : errno));
}

}  // namespace atom
