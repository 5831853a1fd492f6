// The filter tojson as Hugging Face defines it: Python's json.dumps.
#include <algorithm>

#include "text/jinja_interpreter.h"
#include "text/jinja_text.h"
#include "text/unicode.h"

namespace atom::text::jinja {
namespace {

struct JsonStyle {
  bool ascii = false, sorted = false, lines = false;
  std::string indent;  // of one level, with `lines`
  std::string_view item = ", ", key = ": ";
};

class JsonWriter {
 public:
  JsonWriter(Heap& heap, const JsonStyle& style) : heap_(heap), style_(style) {}

  void write(const Value& value, int depth) {
    if (depth > kMaxNesting) raise("a value is nested deeper than {} levels", kMaxNesting);
    heap_.step();
    if (out_.size() > heap_.budgets().output_bytes)
      raise("tojson gives more than {} bytes", heap_.budgets().output_bytes);
    switch (value.kind) {
      case Kind::kNone:
        out_ += "null";
        return;
      case Kind::kBool:
        out_ += value.boolean ? "true" : "false";
        return;
      case Kind::kInt:
        out_ += fmt::format("{}", value.integer);
        return;
      case Kind::kFloat:
        out_ += number(value.number);
        return;
      case Kind::kString:
        write_text(value.text());
        return;
      case Kind::kDict:
        write_dict(*value.dict, depth);
        return;
      case Kind::kList:
        if (value.list->flavor <= Flavor::kTuple) {
          write_list(*value.list, depth);
          return;
        }
        [[fallthrough]];
      default:
        raise("a value of the type '{}' is no JSON", type_name(value));
    }
  }

  std::string take() { return std::move(out_); }

 private:
  static std::string number(double value) {
    if (value != value) return "NaN";
    if (value > 1.7976931348623157e308) return "Infinity";
    if (value < -1.7976931348623157e308) return "-Infinity";
    return float_repr(value);
  }

  void line(int depth) {
    if (!style_.lines) return;
    out_ += '\n';
    heap_.charge(style_.indent.size() * static_cast<size_t>(depth));
    for (int i = 0; i < depth; ++i) out_ += style_.indent;
  }

  void write_text(std::string_view text) {
    heap_.step(text.size() / 8);
    out_ += '"';
    for (size_t at = 0; at < text.size();) {
      const CodePoint c = decode_utf8(text, at);
      constexpr std::string_view kSpecial = "\"\\\n\r\t\f\b";
      const size_t special =
          c.value < 0x80 ? kSpecial.find(static_cast<char>(c.value)) : std::string_view::npos;
      if (special != std::string_view::npos) {
        out_ += '\\';
        out_ += "\"\\nrtfb"[special];
      } else if (c.value < 0x20 || (style_.ascii && c.value >= 0x7F)) {
        write_escape(c.value);
      } else {
        out_ += text.substr(at, c.size);
      }
      at += c.size;
    }
    out_ += '"';
  }

  void write_escape(uint32_t c) {
    if (c < 0x10000) {
      out_ += fmt::format("\\u{:04x}", c);
    } else {
      out_ += fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + ((c - 0x10000) >> 10),
                          0xDC00 + ((c - 0x10000) & 0x3FF));
    }
  }

  void write_list(const List& list, int depth) {
    out_ += '[';
    for (size_t i = 0; i < list.items.size(); ++i) {
      if (i > 0) out_ += style_.item;
      line(depth + 1);
      write(list.items[i], depth + 1);
    }
    if (!list.items.empty()) line(depth);
    out_ += ']';
  }

  std::string key_text(const Value& key) {
    switch (key.kind) {
      case Kind::kString:
        return std::string(key.text());
      case Kind::kNone:
        return "null";
      case Kind::kBool:
        return key.boolean ? "true" : "false";
      case Kind::kInt:
        return fmt::format("{}", key.integer);
      case Kind::kFloat:
        return number(key.number);
      default:
        raise("a key of the type '{}' is no JSON", type_name(key));
    }
  }

  void write_dict(const Dict& dict, int depth) {
    std::vector<std::pair<Value, Value>> items = dict.items;
    if (style_.sorted) {
      std::stable_sort(items.begin(), items.end(), [&](const auto& a, const auto& b) {
        return compare(heap_, a.first, b.first) < 0;
      });
    }
    out_ += '{';
    bool first = true;
    for (const auto& [key, value] : items) {
      if (!first) out_ += style_.item;
      first = false;
      line(depth + 1);
      write_text(key_text(key));
      out_ += style_.key;
      write(value, depth + 1);
    }
    if (!items.empty()) line(depth);
    out_ += '}';
  }

  Heap& heap_;
  const JsonStyle& style_;
  std::string out_;
};

}  // namespace

Value to_json(Interpreter& run, const Value& value, const Arguments& arguments) {
  const Parameters parameters("tojson", arguments,
                              {"ensure_ascii", "indent", "separators", "sort_keys"});
  constexpr int64_t kMaxIndent = 64;
  JsonStyle style;
  style.ascii = parameters.truth(0, false);
  style.sorted = parameters.truth(3, false);
  if (parameters.has(1) && !parameters.at(1).is(Kind::kNone)) {
    style.lines = true;
    style.item = ",";
    if (parameters.at(1).is(Kind::kString)) {
      style.indent = parameters.at(1).text();
    } else {
      style.indent.assign(
          static_cast<size_t>(std::clamp<int64_t>(parameters.integer(1, 0), 0, kMaxIndent)), ' ');
    }
  }
  if (parameters.has(2) && !parameters.at(2).is(Kind::kNone)) {
    const std::vector<Value> both = elements(run.heap(), parameters.at(2));
    if (both.size() != 2 || !both[0].is(Kind::kString) || !both[1].is(Kind::kString))
      raise("the separators of tojson must be two texts");
    style.item = both[0].text();
    style.key = both[1].text();
  }
  JsonWriter writer(run.heap(), style);
  writer.write(value, 0);
  return run.text(writer.take());
}

}  // namespace atom::text::jinja
