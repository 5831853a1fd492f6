#include "checkpoint/file_name.h"

#include <algorithm>
#include <initializer_list>

namespace atom::checkpoint {
namespace {

bool ends_with_any(std::string_view name, std::initializer_list<std::string_view> endings) {
  return std::any_of(endings.begin(), endings.end(),
                     [&](std::string_view ending) { return name.ends_with(ending); });
}

}  // namespace

bool is_plain_file_name(std::string_view name) {
  if (name.empty() || name.size() > 255 || name == "." || name == "..") return false;
  return std::none_of(name.begin(), name.end(), [](unsigned char c) {
    return c == '/' || c == '\\' || c < 0x20 || c == 0x7f;
  });
}

bool is_pickle_name(std::string_view name) {
  return ends_with_any(name, {".bin", ".pt", ".pth", ".ckpt"});
}

bool is_weight_name(std::string_view name) {
  return is_pickle_name(name) || ends_with_any(name, {".safetensors", ".gguf"});
}

}  // namespace atom::checkpoint
