// A TOML file of options: a flat table of strings, numbers, booleans, and lists of strings.
//
//   port = 8001
//   served-model-name = "small"
//   allowed-hosts = ["api.example.org"]
#pragma once

#include <string>
#include <vector>

namespace atom::app {

struct ConfigEntry {
  std::string key;                 // as written, with - for _
  std::vector<std::string> words;  // one, or those of a list; as a command line would have them
  bool is_bool = false;            // "true" or "false"
  int line = 0;
};

// In the file's order. Error: unreadable, no TOML, a table or a date; names file and line.
std::vector<ConfigEntry> read_config_file(const std::string& path);

}  // namespace atom::app
