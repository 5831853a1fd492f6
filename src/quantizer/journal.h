// What a quantization has done so far, kept on disk beside its output: a run that was killed is continued from there.
//
//   Journal journal({.output = folder.final_path(), .run = what_decides_the_bytes, .resume = true});
//   if (const std::optional<Record> record = journal.find("layer-3")) ...;      // done by an earlier run
//   journal.add("layer-3", record);                                            // durable when it returns
//   folder.commit();  journal.remove();
//
// It is a folder `.<name>.journal`: journal.json, which says whose it is and has the SHA-256 of every record, and one
// safetensors file of plain bytes for each record. A record that journal.json does not list does not exist. Only the
// run that holds the output (OutputFolder) may open it.
#pragma once

#include <cstddef>
#include <cstring>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/json.h"

namespace atom::quantizer {

// Small values, and arrays by name.
struct Record {
  Json json = Json::object();
  std::map<std::string, std::vector<std::byte>> arrays;

  template <class T>
  void put(const std::string& name, const std::vector<T>& values) {
    const auto* bytes = reinterpret_cast<const std::byte*>(values.data());
    arrays[name].assign(bytes, bytes + values.size() * sizeof(T));
  }
  // Error: no such array, or one whose bytes are no whole number of values.
  template <class T>
  std::vector<T> take(const std::string& name) const {
    const std::vector<std::byte>& bytes = array(name);
    if (bytes.size() % sizeof(T) != 0)
      fail("array \"{}\" of a journal has {} bytes, which are no whole values", name, bytes.size());
    std::vector<T> values(bytes.size() / sizeof(T));
    if (!bytes.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
    return values;
  }

 private:
  const std::vector<std::byte>& array(const std::string& name) const;
};

class Journal {
 public:
  struct Options {
    std::filesystem::path output;  // final path of the output folder
    Json run;   // an object: what decides the output's bytes; its continuation has an equal one
    Json note;  // whatever a continuation should know of this run
    bool resume = false;  // continues the journal that lies there, if one does
  };

  // Error: a journal lies there and resume is false; it belongs to another run (names the first field that differs);
  // it is damaged; the folder cannot be made.
  explicit Journal(Options options);
  // Removes the folder when it holds no record.
  ~Journal();
  Journal(const Journal&) = delete;
  Journal& operator=(const Journal&) = delete;

  // Error naming the file: its bytes are not those that were written.
  std::optional<Record> find(const std::string& name) const;
  void add(const std::string& name, const Record& record);  // Error: disk full, I/O error
  void remove();                                            // the output is complete

  // The note of the run that is continued; null: none.
  const Json& found_note() const { return found_note_; }

  size_t records() const { return hashes_.size(); }
  const std::filesystem::path& path() const { return folder_; }

  // `.<name>.journal` beside the output.
  static std::filesystem::path path_of(const std::filesystem::path& output);

 private:
  void read_index();
  void write_index() const;

  std::filesystem::path folder_;
  Json run_, note_, found_note_;
  std::map<std::string, std::string> hashes_;  // by record
};

}  // namespace atom::quantizer
