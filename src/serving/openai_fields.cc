#include "serving/openai_fields.h"

#include <fmt/format.h>

#include "serving/json_text.h"

namespace atom::serving {
namespace {

constexpr size_t kShownBytes = 60;

std::string shown(const Json& value) {
  if (value.is_object()) return "an object";
  if (value.is_array()) return "a list";
  std::string text;
  if (value.is_string()) {
    const auto& whole = value.get_ref<const std::string&>();
    if (whole.size() > kShownBytes) return fmt::format("a string of {} bytes", whole.size());
    append_json_string(text, whole);
    return text;
  }
  return value.dump();
}

}  // namespace

void refuse_field(std::string_view field, std::string_view rule, const Json& value) {
  throw ApiError(400, fmt::format("{}: {}, but is {}", field, rule, shown(value)),
                 std::string(field));
}

Fields::Fields(const Json& object, std::string prefix)
    : object_(object), prefix_(std::move(prefix)) {
  if (object.is_object()) return;
  if (prefix_.empty()) throw ApiError(400, "the request must be a JSON object");
  if (prefix_.back() == '.') prefix_.pop_back();
  refuse_field(prefix_, "must be an object", object);
}

const Json* Fields::find(std::string_view name) const {
  const auto found = object_.find(std::string(name));
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

std::optional<int64_t> Fields::integer(std::string_view name, int64_t min, int64_t max) const {
  const Json* value = find(name);
  if (value == nullptr) return {};
  const bool fits = value->is_number_integer() &&
                    (!value->is_number_unsigned() || value->get<uint64_t>() <= INT64_MAX);
  if (!fits || value->get<int64_t>() < min || value->get<int64_t>() > max)
    refuse_field(full(name), fmt::format("must be an integer from {} to {}", min, max), *value);
  return value->get<int64_t>();
}

std::optional<double> Fields::number(std::string_view name, double min, double max,
                                     bool above) const {
  const Json* value = find(name);
  if (value == nullptr) return {};
  const double number = value->is_number() ? value->get<double>() : min - 1;
  if (!(number >= min && number <= max && (!above || number > min)))
    refuse_field(full(name),
                 fmt::format("must be a number {} {} and at most {}",
                             above ? "above" : "of at least", min, max),
                 *value);
  return number;
}

bool Fields::flag(std::string_view name, bool otherwise) const {
  const Json* value = find(name);
  if (value == nullptr) return otherwise;
  if (!value->is_boolean()) refuse_field(full(name), "must be true or false", *value);
  return value->get<bool>();
}

std::optional<std::string> Fields::text(std::string_view name, size_t most_bytes) const {
  const Json* value = find(name);
  if (value == nullptr) return {};
  if (!value->is_string() || value->get_ref<const std::string&>().size() > most_bytes)
    refuse_field(full(name), fmt::format("must be a string of at most {} bytes", most_bytes),
                 *value);
  return value->get<std::string>();
}

std::vector<int32_t> Fields::ids(std::string_view name, int64_t limit, size_t most) const {
  const Json* value = find(name);
  if (value == nullptr) return {};
  if (!value->is_array()) refuse_field(full(name), "must be a list of token ids", *value);
  if (value->size() > most)
    throw ApiError(400,
                   fmt::format("{}: has {} token ids, at most {} are allowed", full(name),
                               value->size(), most),
                   full(name));
  std::vector<int32_t> ids;
  ids.reserve(value->size());
  for (const Json& one : *value) ids.push_back(token_id(one, full(name), limit));
  return ids;
}

int32_t token_id(const Json& value, std::string_view field, int64_t limit) {
  const bool fits = value.is_number_integer() &&
                    (!value.is_number_unsigned() || value.get<uint64_t>() <= INT32_MAX);
  if (!fits || value.get<int64_t>() < 0 || value.get<int64_t>() >= limit)
    refuse_field(field, fmt::format("token ids must be integers from 0 to {}", limit - 1), value);
  return value.get<int32_t>();
}

}  // namespace atom::serving
