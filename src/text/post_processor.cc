#include "text/post_processor.h"

#include "base/error.h"

namespace atom::text {
namespace {

std::vector<int32_t> special_ids(const Json& specials, const std::string& name,
                                 std::string_view source) {
  const auto special = specials.is_object() ? specials.find(name) : specials.end();
  if (special == specials.end()) {
    fail("{}: special_tokens has no entry for '{}'", source, name);
  }
  const auto ids = special->find("ids");
  if (ids == special->end() || !ids->is_array()) {
    fail("{}: special_tokens.{} must have an array ids and is {}", source, name,
         shown_json(*special));
  }
  std::vector<int32_t> out;
  for (const Json& id : *ids) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() > INT32_MAX) {
      fail("{}: special_tokens.{} has an id that is no integer in [0, 2^31): {}", source, name,
           shown_json(id));
    }
    out.push_back(id.get<int32_t>());
  }
  return out;
}

Template read_template(const Json& json, std::string_view source) {
  const auto single = json.find("single");
  if (single == json.end() || !single->is_array())
    fail("{}: single must be an array and {}", source, shown_field(json, "single"));
  const auto specials = json.find("special_tokens");
  Template out;
  bool seen_text = false;
  for (const Json& piece : *single) {
    if (!piece.is_object() || piece.size() != 1 || !piece.begin().value().is_object()) {
      fail("{}: an entry of single must be an object with SpecialToken or Sequence and is {}",
           source, shown_json(piece));
    }
    const std::string id = get_string(piece.begin().value(), "id", source);
    if (piece.begin().key() == "Sequence") {
      if (id != "A" || seen_text)
        fail("{}: single must have the sequence A exactly once and is {}", source,
             shown_json(*single));
      seen_text = true;
    } else if (piece.begin().key() == "SpecialToken") {
      if (specials == json.end()) fail("{}: special_tokens is missing", source);
      std::vector<int32_t>& side = seen_text ? out.suffix : out.prefix;
      const std::vector<int32_t> ids = special_ids(*specials, id, source);
      side.insert(side.end(), ids.begin(), ids.end());
    } else {
      fail("{}: single has an entry of the kind '{}'", source, piece.begin().key());
    }
  }
  if (!seen_text)
    fail("{}: single must have the sequence A exactly once and is {}", source, shown_json(*single));
  return out;
}

Template read_trimming(const Json& json, std::string_view source) {
  Template out;
  out.trims_spans = get_bool_or(json, "trim_offsets", true, source);
  out.keeps_first_space = get_bool_or(json, "add_prefix_space", true, source);
  return out;
}

// ["[CLS]", 101]
int32_t token_id(const Json& json, std::string_view key, std::string_view source) {
  const auto pair = json.find(key);
  if (pair == json.end() || !pair->is_array() || pair->size() != 2 || !(*pair)[0].is_string() ||
      !(*pair)[1].is_number_unsigned() || (*pair)[1].get<uint64_t>() > INT32_MAX) {
    fail("{}: {} must be a token and its id and {}", source, key, shown_field(json, key));
  }
  return (*pair)[1].get<int32_t>();
}

}  // namespace

// Recursion is bounded by the depth limit of the JSON parser.
Template template_from_json(const Json& json, std::string_view source) {
  Template out;
  if (json.is_null()) return out;
  if (!json.is_object()) fail("{}: must be an object or null and is {}", source, shown_json(json));
  const std::string type = get_string(json, "type", source);
  if (type == "ByteLevel") return read_trimming(json, source);
  if (type == "TemplateProcessing") return read_template(json, source);
  if (type == "BertProcessing" || type == "RobertaProcessing") {
    if (type == "RobertaProcessing") out = read_trimming(json, source);
    out.prefix = {token_id(json, "cls", source)};
    out.suffix = {token_id(json, "sep", source)};
    return out;
  }
  if (type != "Sequence") fail("{}: the type '{}' is not supported", source, type);
  const auto parts = json.find("processors");
  if (parts == json.end() || !parts->is_array())
    fail("{}: processors must be an array and {}", source, shown_field(json, "processors"));
  for (size_t i = 0; i < parts->size(); ++i) {
    Template part = template_from_json((*parts)[i], fmt::format("{}.processors[{}]", source, i));
    if (part.trims_spans) {
      out.trims_spans = true;
      out.keeps_first_space = part.keeps_first_space;
    }
    if (part.prefix.empty() && part.suffix.empty()) continue;
    if (!out.prefix.empty() || !out.suffix.empty()) {
      fail("{}: more than one of the processors puts tokens around the text", source);
    }
    out.prefix = std::move(part.prefix);
    out.suffix = std::move(part.suffix);
  }
  return out;
}

}  // namespace atom::text
