// Shared by the factories of the pipeline's components (normalizers, pre-tokenizers, decoders).
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/json.h"

namespace atom::text {

template <typename Component>
struct Factory {
  std::string_view type;
  std::unique_ptr<const Component> (*make)(const Json& json, std::string_view source);
};

// Picks the factory by the "type" of the object. Null for JSON null. Error: not an object, no type,
// type without a factory.
template <typename Component>
std::unique_ptr<const Component> make_component(const Json& json, std::string_view source,
                                                std::span<const Factory<Component>> factories) {
  if (json.is_null()) return nullptr;
  if (!json.is_object()) fail("{}: must be an object or null and is {}", source, shown_json(json));
  const std::string type = get_string(json, "type", source);
  for (const auto& factory : factories) {
    if (factory.type == type) return factory.make(json, source);
  }
  fail("{}: the type '{}' is not supported", source, type);
}
template <typename Component, size_t n>
std::unique_ptr<const Component> make_component(const Json& json, std::string_view source,
                                                const Factory<Component> (&factories)[n]) {
  return make_component<Component>(json, source, std::span<const Factory<Component>>(factories));
}

struct PartsField {
  std::string_view key;
  std::string_view source;
};

// The parts of a Sequence: the array under `key`, each made by `make`. Error: not an array, null
// entries.
template <typename Component>
std::vector<std::unique_ptr<const Component>> make_parts(
    const Json& json, const PartsField& field,
    std::unique_ptr<const Component> (*make)(const Json&, std::string_view)) {
  const auto array = json.find(field.key);
  if (array == json.end() || !array->is_array()) {
    fail("{}: {} must be an array and {}", field.source, field.key, shown_field(json, field.key));
  }
  std::vector<std::unique_ptr<const Component>> parts;
  for (size_t i = 0; i < array->size(); ++i) {
    const std::string source = fmt::format("{}.{}[{}]", field.source, field.key, i);
    parts.push_back(make((*array)[i], source));
    if (parts.back() == nullptr) fail("{}: must be an object and is null", source);
  }
  return parts;
}

// A field that holds exactly one character.
uint32_t get_character(const Json& json, std::string_view key, std::string_view source);

}  // namespace atom::text
