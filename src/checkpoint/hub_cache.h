// Models named as on the Hugging Face Hub, in the cache that its tools fill (huggingface_hub's "cache-system reference"):
// models--ORG--NAME/{blobs,refs,snapshots}. Nothing is downloaded.
//
//   const std::filesystem::path cache = hub_cache_folder(std::getenv);
//   find_model("models/llama", cache)                                  // a folder that exists: itself
//   find_model("meta-llama/Llama-3.2-1B", cache)                       // .../snapshots/<commit of refs/main>
//   find_model("meta-llama/Llama-3.2-1B@refs/pr/2", cache)             // of another branch, tag or commit
#pragma once

#include <filesystem>
#include <functional>
#include <string_view>

namespace atom::checkpoint {

// By the environment's variables: of HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE, HF_HOME, XDG_CACHE_HOME, HOME, the first that is set; empty: none is.
std::filesystem::path hub_cache_folder(const std::function<const char*(const char* name)>& get);

// [ORG/]NAME of at most 96 of A-Z a-z 0-9 - _ . each, without "--" and "..", - and . at neither end.
bool is_hub_name(std::string_view name);

// `name` as a path where that exists or cannot be a hub name. Error: the cache has no such model or revision; says how to
// fetch it, or which revisions there are.
std::filesystem::path find_model(std::string_view name, const std::filesystem::path& cache);

}  // namespace atom::checkpoint
