#include "base/json.h"

#include <algorithm>
#include <functional>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/string_list.h"

namespace atom {
namespace {

constexpr size_t kShownBytes = 60;
constexpr size_t kReasonBytes = 200;

// Cuts before a continuation byte, so that the message stays valid UTF-8.
std::string shortened(std::string text, size_t limit) {
  if (text.size() <= limit) return text;
  size_t end = limit;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;
  text.resize(end);
  return text + "...";
}

// Builds the document from parse events. Containers under construction lie on an explicit stack, so
// the depth costs no recursion; an object is checked for duplicate keys when it closes, by sorting,
// because a lookup per key would be quadratic (and a hash table can be attacked).
class Builder final : public nlohmann::json_sax<Json> {
 public:
  Builder(const JsonLimits& limits, const std::vector<JsonStream>& streams)
      : limits_(limits), streams_(streams) {}

  Json take() { return std::move(root_); }

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(number_integer_t value) override { return add(value); }
  bool number_unsigned(number_unsigned_t value) override { return add(value); }
  bool number_float(number_float_t value, const string_t&) override { return add(value); }
  bool string(string_t& value) override { return add(std::move(value)); }
  bool binary(binary_t&) override { return false; }

  bool start_object(size_t) override { return open(true); }
  bool start_array(size_t) override { return open(false); }

  bool key(string_t& name) override {
    Container& top = open_.back();
    if (top.stream == nullptr)
      top.keys.push_back(std::move(name));
    else
      top.streamed_keys.add(name);
    return true;
  }

  bool end_object() override {
    Container closed = close();
    if (closed.stream == nullptr)
      refuse_duplicates(closed.keys);
    else
      refuse_duplicates(closed.streamed_keys);
    Json value = Json::object();
    // The base of the ordered map is a vector: appending there skips its linear search per key.
    auto& fields = static_cast<Json::object_t::Container&>(value.get_ref<Json::object_t&>());
    fields.reserve(closed.values.size());
    for (size_t i = 0; i < closed.values.size(); ++i)
      fields.emplace_back(std::move(closed.keys[i]), std::move(closed.values[i]));
    return add(std::move(value));
  }

  bool end_array() override {
    Container closed = close();
    return add(Json::array_t(std::make_move_iterator(closed.values.begin()),
                             std::make_move_iterator(closed.values.end())));
  }

  // The library quotes what it has read, which can be half a character.
  static std::string ascii(const std::string& text) {
    std::string result;
    for (const char c : text)
      if (const auto byte = static_cast<unsigned char>(c); byte < 0x80)
        result += c;
      else
        result += fmt::format("\\x{:02x}", byte);
    return result;
  }

  bool parse_error(size_t position, const std::string&,
                   const nlohmann::detail::exception& error) override {
    std::string text = error.what();
    // The library opens with its own tag in brackets, which means nothing to a user.
    if (const size_t end = text.find("] "); end != std::string::npos) text.erase(0, end + 2);
    fail("{}: not valid JSON at byte {}: {}", limits_.source, position,
         shortened(ascii(text), kReasonBytes));
  }

 private:
  struct Container {
    bool is_object = false;
    std::vector<std::string> keys;
    std::vector<Json> values;
    const JsonStream* stream = nullptr;  // takes the values; then streamed_keys are the keys
    StringList streamed_keys;
    size_t streamed = 0;
    size_t values_before = 0;
  };

  // Of the container that is about to open; null: none.
  const JsonStream* find_stream() const {
    for (const JsonStream& stream : streams_)
      if (stream.path.size() == open_.size() &&
          std::equal(open_.begin(), open_.end(), stream.path.begin(),
                     [](const Container& container, std::string_view key) {
                       return !container.keys.empty() && container.keys.back() == key;
                     }))
        return &stream;
    return nullptr;
  }

  bool open(bool is_object) {
    if (open_.size() >= static_cast<size_t>(std::max(limits_.max_depth, 0)))
      fail("{}: JSON is nested deeper than the limit of {} levels", limits_.source,
           limits_.max_depth);
    Container container;
    container.is_object = is_object;
    container.stream = find_stream();
    container.values_before = values_;
    open_.push_back(std::move(container));
    return true;
  }

  Container close() {
    Container closed = std::move(open_.back());
    open_.pop_back();
    return closed;
  }

  template <typename T>
  bool add(T&& value) {
    if (++values_ > limits_.max_values)
      fail("{}: JSON has more values than the limit of {}", limits_.source, limits_.max_values);
    if (open_.empty()) {
      root_ = Json(std::forward<T>(value));
    } else if (Container& top = open_.back(); top.stream != nullptr) {
      const std::string_view key = top.is_object ? top.streamed_keys[top.streamed] : "";
      top.stream->take({top.is_object, key, top.streamed++, Json(std::forward<T>(value))});
      values_ = top.values_before;  // that entry is gone
    } else {
      top.values.emplace_back(std::forward<T>(value));
    }
    return true;
  }

  // Ordered by hash first, which is twice as quick; keys made to collide cost a plain sort, no
  // more.
  template <typename Keys>
  void refuse_duplicates(const Keys& keys) const {
    struct Hashed {
      size_t hash;
      size_t index;
    };
    std::vector<Hashed> sorted;
    sorted.reserve(keys.size());
    for (size_t i = 0; i < keys.size(); ++i)
      sorted.push_back({std::hash<std::string_view>()(keys[i]), i});
    std::sort(sorted.begin(), sorted.end(), [&](const Hashed& a, const Hashed& b) {
      return a.hash != b.hash ? a.hash < b.hash : keys[a.index] < keys[b.index];
    });
    const auto twice =
        std::adjacent_find(sorted.begin(), sorted.end(), [&](const Hashed& a, const Hashed& b) {
          return a.hash == b.hash && keys[a.index] == keys[b.index];
        });
    if (twice != sorted.end())
      fail("{}: JSON object has the key {} twice", limits_.source,
           shown_json(Json(keys[twice->index])));
  }

  JsonLimits limits_;
  const std::vector<JsonStream>& streams_;
  std::vector<Container> open_;
  size_t values_ = 0;  // that are in memory
  Json root_;
};

// The value of `key`, or nullptr when it is missing or null.
const Json* find_field(const Json& object, std::string_view key, std::string_view source) {
  if (!object.is_object())
    fail("{}: must be a JSON object to hold the field \"{}\", but is {}", source, key,
         shown_json(object));
  const auto found = object.find(std::string(key));
  if (found == object.end() || found->is_null()) return nullptr;
  return &*found;
}

const Json& require_field(const Json& object, std::string_view key, std::string_view source) {
  const Json* value = find_field(object, key, source);
  if (value == nullptr) fail("{}: the field \"{}\" is missing", source, key);
  return *value;
}

int64_t to_int(const Json& value, std::string_view key, const IntField& field) {
  if (!value.is_number_integer())
    fail("{}: the field \"{}\" must be an integer, but is {}", field.source, key,
         shown_json(value));
  const bool too_large =
      value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX);
  if (too_large || value.get<int64_t>() < field.min || value.get<int64_t>() > field.max)
    fail("{}: the field \"{}\" must be in [{}, {}], but is {}", field.source, key, field.min,
         field.max, shown_json(value));
  return value.get<int64_t>();
}

double to_number(const Json& value, std::string_view key, const NumberField& field) {
  if (!value.is_number())
    fail("{}: the field \"{}\" must be a number, but is {}", field.source, key, shown_json(value));
  const double number = value.get<double>();
  // Negated so that a NaN, should one ever get here, is refused too.
  if (!(number >= field.min && number <= field.max))
    fail("{}: the field \"{}\" must be in [{}, {}], but is {}", field.source, key, field.min,
         field.max, shown_json(value));
  return number;
}

std::string to_text(const Json& value, std::string_view key, std::string_view source) {
  if (!value.is_string())
    fail("{}: the field \"{}\" must be a string, but is {}", source, key, shown_json(value));
  return value.get<std::string>();
}

}  // namespace

std::string shown_json(const Json& value) {
  return shortened(value.dump(-1, ' ', false, Json::error_handler_t::replace), kShownBytes);
}

std::string shown_field(const Json& object, std::string_view key) {
  const auto found = object.find(key);
  return found == object.end() ? "is missing" : "is " + shown_json(*found);
}

Json parse_json(std::string_view text, const JsonLimits& limits) {
  return parse_json(text, limits, {});
}

Json parse_json(std::string_view text, const JsonLimits& limits,
                const std::vector<JsonStream>& streams) {
  // The library's lexer takes a NUL byte for the end of the text and would ignore what follows.
  if (const size_t nul = text.find('\0'); nul != std::string_view::npos)
    fail("{}: not valid JSON at byte {}: a NUL byte", limits.source, nul + 1);
  Builder builder(limits, streams);
  check(Json::sax_parse(text.begin(), text.end(), &builder), "a JSON event was refused silently");
  return builder.take();
}

int64_t get_int(const Json& object, std::string_view key, const IntField& field) {
  return to_int(require_field(object, key, field.source), key, field);
}

int64_t get_int_or(const Json& object, std::string_view key, int64_t otherwise,
                   const IntField& field) {
  const Json* value = find_field(object, key, field.source);
  return value == nullptr ? otherwise : to_int(*value, key, field);
}

double get_number(const Json& object, std::string_view key, const NumberField& field) {
  return to_number(require_field(object, key, field.source), key, field);
}

double get_number_or(const Json& object, std::string_view key, double otherwise,
                     const NumberField& field) {
  const Json* value = find_field(object, key, field.source);
  return value == nullptr ? otherwise : to_number(*value, key, field);
}

std::string get_string(const Json& object, std::string_view key, std::string_view source) {
  return to_text(require_field(object, key, source), key, source);
}

std::string get_string_or(const Json& object, std::string_view key, std::string_view otherwise,
                          std::string_view source) {
  const Json* value = find_field(object, key, source);
  return value == nullptr ? std::string(otherwise) : to_text(*value, key, source);
}

bool get_bool_or(const Json& object, std::string_view key, bool otherwise,
                 std::string_view source) {
  const Json* value = find_field(object, key, source);
  if (value == nullptr) return otherwise;
  if (!value->is_boolean())
    fail("{}: the field \"{}\" must be true or false, but is {}", source, key, shown_json(*value));
  return value->get<bool>();
}

}  // namespace atom
