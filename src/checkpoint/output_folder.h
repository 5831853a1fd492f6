// An output folder that appears complete or not at all.
//
//   OutputFolder out("models/llama-w4", "models/llama");
//   out.require_space(bytes);
//   SafetensorsWriter writer(out.path() / "model.safetensors", ...);   // into the work folder
//   ...
//   write_manifest(out.path(), entries);
//   out.commit();                        // renames the work folder to models/llama-w4
//
// Files are written into a hidden folder beside the final name, `.<name>.partial-<pid>`; a
// destructor without commit() removes it with all that lies in it. The folder is locked (flock) while its process
// lives: a second run on one output is refused. What a killed process left there is named in a warning.
#pragma once

#include <cstdint>
#include <filesystem>

namespace atom::checkpoint {

class OutputFolder {
 public:
  // Error: `out` is a file, a folder that is not empty, a mount point, or the same as `in` or
  // inside it (compared after symbolic links are resolved); its parent does not exist; the work
  // folder cannot be made; another process is writing this output. `in` may be empty: then there is no input to protect.
  // `names_left`: warns of what killed runs left behind.
  OutputFolder(const std::filesystem::path& out, const std::filesystem::path& in,
               bool names_left = true);
  ~OutputFolder();
  OutputFolder(const OutputFolder&) = delete;
  OutputFolder& operator=(const OutputFolder&) = delete;

  // Where files are written: the work folder, after commit() the final one.
  const std::filesystem::path& path() const { return committed_ ? final_ : work_; }
  const std::filesystem::path& final_path() const { return final_; }

  // Removes the work folder of that name, which an earlier run on this output and this machine left behind.
  void remove_left(const std::string& name) const;

  // Error: the file system has less than `bytes` free for this user.
  void require_space(uint64_t bytes) const;
  uint64_t free_space() const;  // bytes, for this user

  // Error: the rename fails (somebody filled the final name meanwhile), or is not durable and was taken back. At most once.
  void commit();

 private:
  void remove_work();

  std::filesystem::path final_;
  std::filesystem::path work_;
  int lock_ =
      -1;  // descriptor of the work folder, which holds its lock; -1: the file system has none
  bool committed_ = false;
};

}  // namespace atom::checkpoint
