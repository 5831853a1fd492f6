// The program's file of options.
#include "apps/config_file.h"
#include "fuzz/fuzz.h"

namespace atom::fuzz {

void run_toml(std::string_view bytes) {
  const MemoryFile file(bytes);
  accepts([&] {
    int line = 0;
    for (const app::ConfigEntry& entry : app::read_config_file(file.path())) {
      check(entry.line >= line, "entries out of order");
      line = entry.line;
      check(!entry.is_bool || entry.words.size() == 1, "a boolean is one word");
      check(entry.key.find('_') == std::string::npos, "an underscore in a key");
    }
  });
}

}  // namespace atom::fuzz
