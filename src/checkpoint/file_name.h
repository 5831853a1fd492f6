// Names of files as they stand in indexes and manifests, which nobody vouches for.
#pragma once

#include <string_view>

namespace atom::checkpoint {

// True when `name` names an entry of a folder and nothing else: not empty, not "." or "..", without
// slash, backslash and control characters, at most 255 bytes.
bool is_plain_file_name(std::string_view name);

// Endings of Python pickle files, which run code when they are loaded: .bin .pt .pth .ckpt
bool is_pickle_name(std::string_view name);

// Endings of files that hold weights, pickles among them: also .safetensors and .gguf
bool is_weight_name(std::string_view name);

}  // namespace atom::checkpoint
