// Filters of lists and dicts.
#include <algorithm>

#include "text/jinja_interpreter.h"
#include "text/jinja_text.h"

namespace atom::text::jinja {
namespace {

Value filter_length(Interpreter& run, const Value& input, const Arguments& arguments) {
  arguments.bind("length", {});
  return of_int(length(run.heap(), input));
}

Value filter_list(Interpreter& run, const Value& input, const Arguments& arguments) {
  arguments.bind("list", {});
  return run.heap().list(elements(run.heap(), input));
}

Value filter_default(Interpreter&, const Value& input, const Arguments& arguments) {
  const Parameters parameters("default", arguments, {"default_value", "boolean"});
  const bool replaces = is_undefined(input) || (parameters.truth(1, false) && !truth(input));
  return replaces ? parameters.value(0, of_text("")) : input;
}

Value filter_first(Interpreter& run, const Value& input, const Arguments& arguments) {
  arguments.bind("first", {});
  const std::vector<Value> items = elements(run.heap(), input);
  return items.empty() ? undefined("the first element") : items.front();
}

Value filter_last(Interpreter& run, const Value& input, const Arguments& arguments) {
  arguments.bind("last", {});
  if (input.is(Kind::kList) && input.list->flavor == Flavor::kGenerator)
    raise("a generator has no last element; make a list of it first");
  const std::vector<Value> items = elements(run.heap(), input);
  return items.empty() ? undefined("the last element") : items.back();
}

Value filter_join(Interpreter& run, const Value& input, const Arguments& arguments) {
  const Parameters parameters("join", arguments, {"d", "attribute"});
  const std::string between =
      parameters.has(0) ? to_str(run.heap(), parameters.at(0)) : std::string();
  std::string out;
  bool first = true;
  for (Value item : elements(run.heap(), input)) {
    if (parameters.has(1) && !parameters.at(1).is(Kind::kNone))
      item = run.path(item, parameters.at(1));
    const std::string text = to_str(run.heap(), item);
    run.heap().charge(text.size() + between.size());
    if (!first) out += between;
    out += text;
    first = false;
  }
  return run.text(std::move(out));
}

Value filter_items(Interpreter& run, const Value& input, const Arguments& arguments) {
  arguments.bind("items", {});
  if (is_undefined(input)) return run.heap().list({}, Flavor::kGenerator);
  if (!input.is(Kind::kDict)) raise("items needs a dict and got '{}'", type_name(input));
  std::vector<Value> out;
  for (const auto& [key, value] : input.dict->items) out.push_back(run.heap().tuple({key, value}));
  return run.heap().list(std::move(out), Flavor::kGenerator);
}

// What sort, unique, min and max compare: an attribute, and texts in lower case.
Value key_of(Interpreter& run, const Value& item, const Value& attribute, bool case_sensitive) {
  const Value key = attribute.is(Kind::kNone) ? item : run.path(item, attribute);
  if (case_sensitive || !key.is(Kind::kString)) return key;
  run.heap().step(key.size / 4);
  return run.text(lower(key.text()));
}

std::vector<Value> sorted_by_keys(Interpreter& run, const std::vector<Value>& items,
                                  const std::vector<std::vector<Value>>& keys, bool reverse) {
  std::vector<size_t> order(items.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  const auto less = [&](size_t a, size_t b) {
    for (size_t k = 0; k < keys[a].size(); ++k) {
      if (!equal(run.heap(), keys[a][k], keys[b][k]))
        return compare(run.heap(), keys[a][k], keys[b][k]) == -1;
    }
    return false;
  };
  // Reversed order keeps equal elements in their order, too.
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return reverse ? less(b, a) : less(a, b); });
  std::vector<Value> out;
  for (const size_t i : order) out.push_back(items[i]);
  return out;
}

Value filter_sort(Interpreter& run, const Value& input, const Arguments& arguments) {
  const Parameters parameters("sort", arguments, {"reverse", "case_sensitive", "attribute"});
  const std::vector<Value> items = elements(run.heap(), input);
  std::vector<Value> attributes = {parameters.value(2, none())};
  if (attributes[0].is(Kind::kString)) {
    const std::string_view names = attributes[0].text();
    attributes.clear();
    for (const std::string_view name : split(names, ",", -1, false))
      attributes.push_back(of_text(name));
  }
  std::vector<std::vector<Value>> keys(items.size());
  for (size_t i = 0; i < items.size(); ++i) {
    for (const Value& attribute : attributes)
      keys[i].push_back(key_of(run, items[i], attribute, parameters.truth(1, false)));
  }
  return run.heap().list(sorted_by_keys(run, items, keys, parameters.truth(0, false)));
}

Value filter_dictsort(Interpreter& run, const Value& input, const Arguments& arguments) {
  const Parameters parameters("dictsort", arguments, {"case_sensitive", "by", "reverse"});
  if (!input.is(Kind::kDict)) raise("dictsort needs a dict and got '{}'", type_name(input));
  const std::string_view by = parameters.text(1, "key");
  if (by != "key" && by != "value") raise("dictsort goes by 'key' or 'value', not by '{:.40}'", by);
  std::vector<Value> items;
  std::vector<std::vector<Value>> keys;
  for (const auto& [key, value] : input.dict->items) {
    items.push_back(run.heap().tuple({key, value}));
    keys.push_back({key_of(run, by == "key" ? key : value, none(), parameters.truth(0, false))});
  }
  return run.heap().list(sorted_by_keys(run, items, keys, parameters.truth(2, false)));
}

Value filter_unique(Interpreter& run, const Value& input, const Arguments& arguments) {
  const Parameters parameters("unique", arguments, {"case_sensitive", "attribute"});
  std::vector<Value> seen, out;
  for (const Value& item : elements(run.heap(), input)) {
    const Value key = key_of(run, item, parameters.value(1, none()), parameters.truth(0, false));
    if (key.is(Kind::kDict) || (key.is(Kind::kList) && key.list->flavor == Flavor::kList))
      raise("unique cannot tell values of the type '{}' apart", type_name(key));
    const bool known = std::any_of(seen.begin(), seen.end(), [&](const Value& other) {
      return equal(run.heap(), other, key);
    });
    if (known) continue;
    seen.push_back(key);
    out.push_back(item);
  }
  return run.heap().list(std::move(out), Flavor::kGenerator);
}

Value filter_reverse(Interpreter& run, const Value& input, const Arguments& arguments) {
  arguments.bind("reverse", {});
  std::vector<Value> items = elements(run.heap(), input);
  std::reverse(items.begin(), items.end());
  if (!input.is(Kind::kString)) return run.heap().list(std::move(items), Flavor::kGenerator);
  std::string out;
  for (const Value& character : items) out += character.text();
  return run.text(std::move(out));
}

Value filter_sum(Interpreter& run, const Value& input, const Arguments& arguments) {
  const Parameters parameters("sum", arguments, {"attribute", "start"});
  const Value attribute = parameters.value(0, none());
  Value total = parameters.value(1, of_int(0));
  if (total.is(Kind::kString)) raise("sum does not add texts");
  for (const Value& item : elements(run.heap(), input)) {
    const Value part = attribute.is(Kind::kNone) ? item : run.path(item, attribute);
    total = arithmetic(run.heap(), Op::kAdd, total, part);
  }
  return total;
}

Value extreme(Interpreter& run, const Value& input, const Arguments& arguments, int sign) {
  const Parameters parameters("min", arguments, {"case_sensitive", "attribute"});
  const std::vector<Value> items = elements(run.heap(), input);
  if (items.empty()) return undefined("the extreme of nothing");
  const auto key = [&](const Value& item) {
    return key_of(run, item, parameters.value(1, none()), parameters.truth(0, false));
  };
  Value best = items[0], best_key = key(items[0]);
  for (size_t i = 1; i < items.size(); ++i) {
    const Value own = key(items[i]);
    if (compare(run.heap(), own, best_key) != sign) continue;
    best = items[i];
    best_key = own;
  }
  return best;
}
Value filter_min(Interpreter& run, const Value& input, const Arguments& arguments) {
  return extreme(run, input, arguments, -1);
}
Value filter_max(Interpreter& run, const Value& input, const Arguments& arguments) {
  return extreme(run, input, arguments, 1);
}

Value filter_batch(Interpreter& run, const Value& input, const Arguments& arguments) {
  const Parameters parameters("batch", arguments, {"linecount", "fill_with"}, 1);
  const int64_t size = parameters.integer(0, 1);
  if (size < 1 || size > kMaxRange) raise("batch takes a size from 1 to {}", kMaxRange);
  const std::vector<Value> items = elements(run.heap(), input);
  std::vector<Value> out;
  for (size_t at = 0; at < items.size(); at += static_cast<size_t>(size)) {
    const size_t end = std::min(items.size(), at + static_cast<size_t>(size));
    std::vector<Value> part(items.begin() + static_cast<long>(at),
                            items.begin() + static_cast<long>(end));
    if (parameters.has(1) && !parameters.at(1).is(Kind::kNone))
      part.resize(static_cast<size_t>(size), parameters.at(1));
    out.push_back(run.heap().list(std::move(part)));
  }
  return run.heap().list(std::move(out), Flavor::kGenerator);
}

constexpr NamedMethod kListFilters[] = {
    {"length", filter_length},   {"count", filter_length},      {"list", filter_list},
    {"default", filter_default}, {"d", filter_default},         {"first", filter_first},
    {"last", filter_last},       {"join", filter_join},         {"items", filter_items},
    {"sort", filter_sort},       {"dictsort", filter_dictsort}, {"unique", filter_unique},
    {"reverse", filter_reverse}, {"sum", filter_sum},           {"min", filter_min},
    {"max", filter_max},         {"batch", filter_batch},
};

}  // namespace

Method find_list_filter(std::string_view name) {
  for (const NamedMethod& filter : kListFilters) {
    if (filter.name == name) return filter.run;
  }
  return nullptr;
}

}  // namespace atom::text::jinja
