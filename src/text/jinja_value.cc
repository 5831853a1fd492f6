#include "text/jinja_value.h"

#include <algorithm>
#include <cmath>

#include "text/jinja_function.h"
#include "text/jinja_text.h"
#include "text/unicode.h"

namespace atom::text::jinja {
namespace {

void refuse_depth(int depth) {
  if (depth > kMaxNesting) raise("a value is nested deeper than {} levels", kMaxNesting);
}

bool equal_items(Heap& heap, const List& a, const List& b, int depth) {
  const auto group = [](Flavor f) { return f == Flavor::kGenerator ? Flavor::kKeys : f; };
  if (&a == &b) return true;
  if (group(a.flavor) != group(b.flavor) || a.flavor == Flavor::kGenerator) return false;
  if (a.items.size() != b.items.size()) return false;
  for (size_t i = 0; i < a.items.size(); ++i) {
    if (!equal(heap, a.items[i], b.items[i], depth + 1)) return false;
  }
  return true;
}

bool equal_dicts(Heap& heap, const Dict& a, const Dict& b, int depth) {
  if (&a == &b) return true;
  if (a.items.size() != b.items.size()) return false;
  for (const auto& [key, value] : a.items) {
    const Value* other = heap.find(b, key);
    if (other == nullptr || !equal(heap, value, *other, depth + 1)) return false;
  }
  return true;
}

bool equal_numbers(const Value& a, const Value& b) {
  if (a.is_integral() && b.is_integral()) return a.as_int() == b.as_int();
  return a.as_double() == b.as_double();
}

int order_of_numbers(const Value& a, const Value& b) {
  if (a.is_integral() && b.is_integral())
    return a.as_int() < b.as_int() ? -1 : static_cast<int>(a.as_int() > b.as_int());
  const double x = a.as_double(), y = b.as_double();
  if (std::isnan(x) || std::isnan(y)) return 2;
  return x < y ? -1 : static_cast<int>(x > y);
}

void append_repr(Heap& heap, const Value& value, std::string& out, int depth);

void append_sequence(Heap& heap, const List& list, std::string& out, int depth) {
  const bool tuple = list.flavor == Flavor::kTuple;
  if (list.flavor == Flavor::kRange) {
    out += list.bounds[2] == 1
               ? fmt::format("range({}, {})", list.bounds[0], list.bounds[1])
               : fmt::format("range({}, {}, {})", list.bounds[0], list.bounds[1], list.bounds[2]);
    return;
  }
  if (list.flavor == Flavor::kGenerator) {
    out += "<generator>";
    return;
  }
  if (list.flavor == Flavor::kKeys) out += "dict_keys(";
  if (list.flavor == Flavor::kValues) out += "dict_values(";
  if (list.flavor == Flavor::kItems) out += "dict_items(";
  out += tuple ? '(' : '[';
  for (size_t i = 0; i < list.items.size(); ++i) {
    if (i > 0) out += ", ";
    append_repr(heap, list.items[i], out, depth + 1);
  }
  if (tuple && list.items.size() == 1) out += ',';
  out += tuple ? ')' : ']';
  if (!tuple && list.flavor != Flavor::kList) out += ')';
}

void append_dict(Heap& heap, const Dict& dict, std::string& out, int depth) {
  out += '{';
  for (size_t i = 0; i < dict.items.size(); ++i) {
    if (i > 0) out += ", ";
    append_repr(heap, dict.items[i].first, out, depth + 1);
    out += ": ";
    append_repr(heap, dict.items[i].second, out, depth + 1);
  }
  out += '}';
}

void append_repr(Heap& heap, const Value& value, std::string& out, int depth) {
  refuse_depth(depth);
  heap.step();
  if (out.size() > heap.budgets().output_bytes) raise("a printed value is too long");
  switch (value.kind) {
    case Kind::kUndefined:
      out += "Undefined";
      return;
    case Kind::kNone:
      out += "None";
      return;
    case Kind::kBool:
      out += value.boolean ? "True" : "False";
      return;
    case Kind::kInt:
      out += fmt::format("{}", value.integer);
      return;
    case Kind::kFloat:
      out += float_repr(value.number);
      return;
    case Kind::kString:
      heap.step(value.size / 16);
      append_quoted(out, value.text());
      return;
    case Kind::kList:
      append_sequence(heap, *value.list, out, depth);
      return;
    case Kind::kDict:
      append_dict(heap, *value.dict, out, depth);
      return;
    case Kind::kNamespace:
      out += "<Namespace ";
      append_dict(heap, *value.dict, out, depth);
      out += '>';
      return;
    case Kind::kFunction:
      out += fmt::format("<function {}>", value.function->name);
      return;
    case Kind::kLoop:
      out += "<LoopContext>";
      return;
  }
}

}  // namespace

Heap::Heap(const Budgets& budgets) : budgets_(budgets) {}
Heap::~Heap() = default;

Value Heap::keep(std::string text) {
  charge(text.size() + sizeof(std::string));
  return of_text(texts_.emplace_back(std::move(text)));
}

Value Heap::list(std::vector<Value> items, Flavor flavor) {
  charge(items.size() * sizeof(Value) + sizeof(List));
  Value value;
  value.kind = Kind::kList;
  value.list = &lists_.emplace_back();
  value.list->flavor = flavor;
  value.list->items = std::move(items);
  return value;
}

Value Heap::dict(std::vector<std::pair<Value, Value>> items, Kind kind) {
  charge(items.size() * 2 * sizeof(Value) + sizeof(Dict));
  Value value;
  value.kind = kind;
  value.dict = &dicts_.emplace_back();
  value.dict->items = std::move(items);
  return value;
}

Value Heap::function(const Function& function) {
  charge(sizeof(Function));
  Value value;
  value.kind = Kind::kFunction;
  value.function = functions_.emplace_back(std::make_unique<Function>(function)).get();
  return value;
}

const Value* Heap::find(const Dict& dict, const Value& key) {
  if (key.is(Kind::kDict) || (key.is(Kind::kList) && key.list->flavor == Flavor::kList))
    raise("unhashable type: '{}'", type_name(key));
  step(dict.items.size() / 8);
  for (const auto& [own, value] : dict.items) {
    if (own.kind == key.kind && key.is(Kind::kString)) {
      if (own.text() == key.text()) return &value;
    } else if (equal(*this, own, key)) {
      return &value;
    }
  }
  return nullptr;
}

void Heap::set(Dict& dict, const Value& key, const Value& value) {
  if (const Value* found = find(dict, key); found != nullptr) {
    *const_cast<Value*>(found) = value;
    return;
  }
  charge(2 * sizeof(Value));
  dict.items.emplace_back(key, value);
}

bool is_undefined(const Value& value) { return value.is(Kind::kUndefined); }

bool truth(const Value& value) {
  switch (value.kind) {
    case Kind::kUndefined:
    case Kind::kNone:
      return false;
    case Kind::kBool:
      return value.boolean;
    case Kind::kInt:
      return value.integer != 0;
    case Kind::kFloat:
      return value.number != 0;
    case Kind::kString:
      return value.size != 0;
    case Kind::kList:
      return value.list->flavor == Flavor::kGenerator || !value.list->items.empty();
    case Kind::kDict:
      return !value.dict->items.empty();
    default:
      return true;
  }
}

bool equal(Heap& heap, const Value& a, const Value& b, int depth) {
  refuse_depth(depth);
  heap.step();
  if (a.is_number() && b.is_number()) return equal_numbers(a, b);
  if (a.kind != b.kind) return false;
  switch (a.kind) {
    case Kind::kString:
      heap.step(std::min(a.size, b.size) / 16);
      return a.text() == b.text();
    case Kind::kList:
      return equal_items(heap, *a.list, *b.list, depth);
    case Kind::kDict:
      return equal_dicts(heap, *a.dict, *b.dict, depth);
    case Kind::kNamespace:
      return a.dict == b.dict;
    case Kind::kFunction:
      return a.function == b.function;
    case Kind::kLoop:
      return a.loop == b.loop;
    default:
      return true;
  }
}

int compare(Heap& heap, const Value& a, const Value& b, int depth) {
  refuse_depth(depth);
  heap.step();
  if (is_undefined(a) || is_undefined(b))
    raise("'{}' is undefined", is_undefined(a) ? a.text() : b.text());
  if (a.is_number() && b.is_number()) return order_of_numbers(a, b);
  if (a.is(Kind::kString) && b.is(Kind::kString)) {
    heap.step(std::min(a.size, b.size) / 16);
    // The order of UTF-8 bytes is the order of code points.
    const int order = a.text().compare(b.text());
    return order < 0 ? -1 : static_cast<int>(order > 0);
  }
  const auto orders = [](const Value& v) {
    return v.is(Kind::kList) &&
           (v.list->flavor == Flavor::kList || v.list->flavor == Flavor::kTuple);
  };
  if (!orders(a) || !orders(b) || a.list->flavor != b.list->flavor)
    raise("values of the types '{}' and '{}' have no order", type_name(a), type_name(b));
  const auto &x = a.list->items, &y = b.list->items;
  for (size_t i = 0; i < std::min(x.size(), y.size()); ++i) {
    if (!equal(heap, x[i], y[i], depth + 1)) return compare(heap, x[i], y[i], depth + 1);
  }
  return x.size() < y.size() ? -1 : static_cast<int>(x.size() > y.size());
}

bool contains(Heap& heap, const Value& container, const Value& item) {
  if (container.is(Kind::kString)) {
    if (!item.is(Kind::kString))
      raise("'in' of a text needs a text on its left, not '{}'", type_name(item));
    heap.charge_search(container.size, item.size);
    return container.text().find(item.text()) != std::string_view::npos;
  }
  if (container.is(Kind::kDict)) return heap.find(*container.dict, item) != nullptr;
  const std::vector<Value> items = elements(heap, container);
  return std::any_of(items.begin(), items.end(),
                     [&](const Value& own) { return equal(heap, own, item); });
}

int64_t length(Heap& heap, const Value& value) {
  switch (value.kind) {
    case Kind::kUndefined:
      return 0;
    case Kind::kString:
      heap.step(value.size / 16);
      return static_cast<int64_t>(count_code_points(value.text()));
    case Kind::kList:
      if (value.list->flavor == Flavor::kGenerator) break;
      return static_cast<int64_t>(value.list->items.size());
    case Kind::kDict:
      return static_cast<int64_t>(value.dict->items.size());
    default:
      break;
  }
  raise("a value of the type '{}' has no length", type_name(value));
}

bool is_iterable(const Value& value) {
  return value.is(Kind::kUndefined) || value.is(Kind::kString) || value.is(Kind::kList) ||
         value.is(Kind::kDict) || value.is(Kind::kLoop);
}

std::vector<Value> elements(Heap& heap, const Value& value) {
  std::vector<Value> out;
  switch (value.kind) {
    case Kind::kUndefined:
      return out;
    case Kind::kString:
      heap.charge(value.size * sizeof(Value));
      for (size_t at = 0; at < value.size;) {
        const size_t size = decode_utf8(value.text(), at).size;
        out.push_back(of_text(value.text().substr(at, size)));
        at += size;
      }
      return out;
    case Kind::kList:
      if (value.list->spent) return out;
      heap.charge(value.list->items.size() * sizeof(Value));
      value.list->spent = value.list->flavor == Flavor::kGenerator;
      return value.list->items;
    case Kind::kDict:
      heap.charge(value.dict->items.size() * sizeof(Value));
      for (const auto& item : value.dict->items) out.push_back(item.first);
      return out;
    default:
      raise("a value of the type '{}' is not iterable", type_name(value));
  }
}

std::string float_repr(double number) {
  std::string text = fmt::format("{}", number);
  if (std::isfinite(number) && text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

std::string to_repr(Heap& heap, const Value& value) {
  std::string out;
  append_repr(heap, value, out, 0);
  return out;
}

std::string to_str(Heap& heap, const Value& value) {
  if (value.is(Kind::kString)) return std::string(value.text());
  return is_undefined(value) ? std::string() : to_repr(heap, value);
}

std::string_view type_name(const Value& value) {
  switch (value.kind) {
    case Kind::kUndefined:
      return "Undefined";
    case Kind::kNone:
      return "NoneType";
    case Kind::kBool:
      return "bool";
    case Kind::kInt:
      return "int";
    case Kind::kFloat:
      return "float";
    case Kind::kString:
      return "str";
    case Kind::kDict:
      return "dict";
    case Kind::kNamespace:
      return "Namespace";
    case Kind::kFunction:
      return "function";
    case Kind::kLoop:
      return "LoopContext";
    case Kind::kList:
      break;
  }
  constexpr std::string_view kNames[] = {"list",      "tuple",       "range",     "generator",
                                         "dict_keys", "dict_values", "dict_items"};
  return kNames[static_cast<size_t>(value.list->flavor)];
}

}  // namespace atom::text::jinja
