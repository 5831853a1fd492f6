#include "config_file.h"

#define TOML_HEADER_ONLY 1
#define TOML_ENABLE_FORMATTERS 0
// A table named [?a] fails an assertion just before the check that refuses it. Builds with assertions would end there, and
// those with NDEBUG would have promised the compiler that it cannot happen.
#define TOML_ASSERT(condition) static_cast<void>(0)
#pragma push_macro("NDEBUG")
#undef NDEBUG
#include <toml++/toml.h>
#pragma pop_macro("NDEBUG")

#include <algorithm>
#include <string_view>

#include "base/error.h"
#include "base/file.h"

namespace atom::app {
namespace {

constexpr uint64_t kFileBytes = 1 << 20;

// A value as a command line would have it; none of a table, a date or a list.
std::optional<std::string> word_of(const toml::node& node) {
  if (const auto* text = node.as_string()) return text->get();
  if (const auto* whole = node.as_integer()) return std::to_string(whole->get());
  if (const auto* number = node.as_floating_point()) return fmt::format("{}", number->get());
  if (const auto* truth = node.as_boolean()) return truth->get() ? "true" : "false";
  return std::nullopt;
}

// Where the string that begins at `at` ends: behind its quotes, at the end of the line that cuts it, or of the file.
size_t end_of_string(std::string_view bytes, size_t at) {
  const char quote = bytes[at];
  const std::string_view three = quote == '"' ? "\"\"\"" : "'''";
  const bool is_long = bytes.substr(at, 3) == three;
  for (at += is_long ? 3 : 1; at < bytes.size(); ++at) {
    if (quote == '"' && bytes[at] == '\\') {
      ++at;
    } else if (!is_long && (bytes[at] == quote || bytes[at] == '\n')) {
      return at + 1;
    } else if (is_long && bytes.substr(at, 3) == three) {
      at += 3;
      for (int more = 0; more < 2 && at < bytes.size() && bytes[at] == quote; ++more) ++at;
      return at;
    }
  }
  return bytes.size();
}

std::ptrdiff_t line_of(std::string_view bytes, size_t at) {
  return 1 + std::count(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(at), '\n');
}

// Keys, numbers and signs are ASCII (TOML 1.0). The library takes some other letters for something that cannot happen.
void check_letters(std::string_view bytes, const std::string& path) {
  for (size_t at = 0; at < bytes.size();) {
    if (bytes[at] == '#') {
      at = std::min(bytes.find('\n', at), bytes.size());
    } else if (bytes[at] == '"' || bytes[at] == '\'') {
      if (at > 0 && std::string_view(" \t\r\n=.,[{").find(bytes[at - 1]) == std::string_view::npos)
        fail("{}:{}: a quote stands in the middle of a word", path, line_of(bytes, at));
      at = end_of_string(bytes, at);
    } else {
      const bool is_mark = at == 0 && bytes.substr(0, 3) == "\xEF\xBB\xBF";
      if (!is_mark && static_cast<unsigned char>(bytes[at]) >= 0x80)
        fail("{}:{}: a character outside of quotes and comments is not ASCII", path,
             line_of(bytes, at));
      at += is_mark ? 3 : 1;
    }
  }
}

}  // namespace

std::vector<ConfigEntry> read_config_file(const std::string& path) {
  const std::string bytes = read_file(path, kFileBytes);
  check_letters(bytes, path);
  toml::table table;
  try {
    table = toml::parse(bytes, path);
  } catch (const toml::parse_error& error) {
    fail("{}:{}: {}", path, error.source().begin.line, error.description());
  }
  std::vector<ConfigEntry> entries;
  for (const auto& [key, node] : table) {
    ConfigEntry entry = {.key = std::string(key.str()),
                         .line = static_cast<int>(key.source().begin.line)};
    std::replace(entry.key.begin(), entry.key.end(), '_', '-');
    const toml::array* list = node.as_array();
    for (size_t i = 0; i < (list ? list->size() : 1); ++i) {
      const std::optional<std::string> word = word_of(list ? *list->get(i) : node);
      if (!word)
        fail("{}:{}: {}: the value is not a string, a number, true or false, or a list of them",
             path, entry.line, std::string(key.str()));
      entry.words.push_back(*word);
    }
    entry.is_bool = node.is_boolean();
    entries.push_back(std::move(entry));
  }
  std::stable_sort(entries.begin(), entries.end(),
                   [](const ConfigEntry& a, const ConfigEntry& b) { return a.line < b.line; });
  return entries;
}

}  // namespace atom::app
