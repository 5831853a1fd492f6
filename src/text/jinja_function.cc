#include "text/jinja_function.h"

#include <algorithm>
#include <array>

#include "text/jinja_interpreter.h"

namespace atom::text::jinja {
namespace {

Value global_range(Interpreter& run, const Arguments& arguments) {
  const Parameters parameters("range", arguments, {"start", "stop", "step"}, 1);
  const int64_t first = parameters.integer(0, 0);
  if (!parameters.has(1)) return range_of(run.heap(), 0, first, 1);
  return range_of(run.heap(), first, parameters.integer(1, 0), parameters.integer(2, 1));
}

Value mapping_of(Interpreter& run, const Arguments& arguments, Type kind) {
  const Value made = run.heap().dict({}, kind);
  if (arguments.positional.size() > 1) raise("at most one argument may go without a name");
  for (const Value& from : arguments.positional) {
    if (from.is(Type::kDict)) {
      for (const auto& [key, value] : from.dict->items) run.heap().set(*made.dict, key, value);
      continue;
    }
    for (const Value& pair : elements(run.heap(), from)) {
      const std::vector<Value> both = elements(run.heap(), pair);
      if (both.size() != 2)
        raise("an element of {} values is no pair of key and value", both.size());
      run.heap().set(*made.dict, both[0], both[1]);
    }
  }
  for (const auto& [name, value] : arguments.named)
    run.heap().set(*made.dict, of_text(name), value);
  return made;
}

Value global_dict(Interpreter& run, const Arguments& arguments) {
  return mapping_of(run, arguments, Type::kDict);
}
Value global_namespace(Interpreter& run, const Arguments& arguments) {
  return mapping_of(run, arguments, Type::kNamespace);
}

Value global_raise(Interpreter& run, const Arguments& arguments) {
  const Parameters parameters("raise_exception", arguments, {"message"}, 1);
  std::string message = to_str(run.heap(), parameters.at(0));
  constexpr size_t kMost = 500;  // bytes: it goes into a response and a log
  if (message.size() > kMost) {
    size_t end = kMost;
    while ((static_cast<unsigned char>(message[end]) & 0xc0) == 0x80) --end;  // whole characters
    message.resize(end);
    message += "...";
  }
  raise("{}", message);
}

Value global_strftime_now(Interpreter& run, const Arguments& arguments) {
  const Parameters parameters("strftime_now", arguments, {"format"}, 1);
  const std::string format(parameters.text(0, ""));
  const std::time_t now = run.now();
  std::tm local{};
  if (localtime_r(&now, &local) == nullptr) raise("the time of day is unknown");
  std::array<char, 1024> out{};
  const size_t size = std::strftime(out.data(), out.size(), format.c_str(), &local);
  return run.text(std::string(out.data(), size));
}

struct NamedBuiltin {
  std::string_view name;
  Builtin run;
};
constexpr NamedBuiltin kGlobals[] = {
    {"range", global_range},
    {"dict", global_dict},
    {"namespace", global_namespace},
    {"raise_exception", global_raise},
    {"strftime_now", global_strftime_now},
};

}  // namespace

Builtin find_global(std::string_view name) {
  for (const NamedBuiltin& global : kGlobals) {
    if (global.name == name) return global.run;
  }
  return nullptr;
}

std::vector<Arguments::Bound> Arguments::bind(
    std::string_view callee, std::initializer_list<std::string_view> parameters) const {
  if (positional.size() > parameters.size())
    raise("{}() takes at most {} arguments and got {}", callee, parameters.size(),
          positional.size());
  std::vector<Bound> out(parameters.size());
  for (size_t i = 0; i < positional.size(); ++i) out[i] = {positional[i], true};
  for (const auto& [name, value] : named) {
    const auto found = std::find(parameters.begin(), parameters.end(), name);
    if (found == parameters.end()) raise("{}() has no parameter '{:.40}'", callee, name);
    Bound& bound = out[static_cast<size_t>(found - parameters.begin())];
    if (bound.present) raise("{}() got '{:.40}' twice", callee, name);
    bound = {value, true};
  }
  return out;
}

Parameters::Parameters(std::string_view callee, const Arguments& arguments,
                       std::initializer_list<std::string_view> names, size_t required)
    : callee_(callee), bound_(arguments.bind(callee, names)) {
  for (size_t i = 0; i < required; ++i) {
    if (!has(i)) raise("{}() needs the argument '{}'", callee, names.begin()[i]);
  }
}

int64_t Parameters::integer(size_t i, int64_t otherwise) const {
  if (!has(i)) return otherwise;
  if (!at(i).is_integral()) raise("{}() needs an integer and got '{}'", callee_, type_name(at(i)));
  return at(i).as_int();
}

std::string_view Parameters::text(size_t i, std::string_view otherwise) const {
  if (!has(i) || at(i).is(Type::kNone)) return otherwise;
  if (!at(i).is(Type::kString)) raise("{}() needs a text and got '{}'", callee_, type_name(at(i)));
  return at(i).text();
}

}  // namespace atom::text::jinja
