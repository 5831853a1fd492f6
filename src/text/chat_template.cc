#include "text/chat_template.h"

#include <utility>

#include "text/jinja_ast.h"
#include "text/jinja_interpreter.h"
#include "text/unicode.h"

namespace atom::text {
namespace {

constexpr int kMaxContextDepth = jinja::kMaxNesting;

jinja::Value value_of(const Json& json, jinja::Heap& heap, int depth) {
  if (depth > kMaxContextDepth)
    jinja::raise("a variable is nested deeper than {} levels", kMaxContextDepth);
  if (json.is_null()) return jinja::none();
  if (json.is_boolean()) return jinja::of_bool(json.get<bool>());
  if (json.is_number_float()) return jinja::of_float(json.get<double>());
  if (json.is_number_integer()) {
    if (json.is_number_unsigned() && json.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX))
      jinja::raise("the number {} in a variable does not fit in 64 bits", json.get<uint64_t>());
    return jinja::of_int(json.get<int64_t>());
  }
  if (json.is_string()) {
    const auto& text = json.get_ref<const std::string&>();
    heap.step(text.size() / 16);
    return is_valid_utf8(text) ? jinja::of_text(text) : heap.keep(replace_invalid_utf8(text));
  }
  if (json.is_array()) {
    std::vector<jinja::Value> items;
    for (const Json& item : json) items.push_back(value_of(item, heap, depth + 1));
    return heap.list(std::move(items));
  }
  if (!json.is_object()) jinja::raise("a variable has a value that is no JSON");
  std::vector<std::pair<jinja::Value, jinja::Value>> fields;
  for (const auto& field : json.items())
    fields.emplace_back(jinja::of_text(field.key()), value_of(field.value(), heap, depth + 1));
  return heap.dict(std::move(fields));
}

}  // namespace

struct ChatTemplate::Program {
  jinja::Budgets budgets;
  jinja::Body body;
};

ChatTemplate ChatTemplate::parse(std::string_view source, const ChatTemplateLimits& limits) {
  auto program = std::make_shared<Program>();
  program->budgets = {.source_bytes = limits.source_bytes,
                      .steps = limits.steps,
                      .memory_bytes = limits.memory_bytes,
                      .output_bytes = limits.output_bytes,
                      .depth = limits.depth};
  try {
    program->body = jinja::parse(source, program->budgets);
  } catch (const jinja::Failure& failure) {
    fail("chat template, {}", failure.what());
  }
  ChatTemplate made;
  made.program_ = std::move(program);
  return made;
}

std::string ChatTemplate::render(const Json& context, std::optional<std::time_t> now) const {
  if (!context.is_object()) fail("chat template: its variables must be a JSON object");
  jinja::Interpreter run(program_->budgets, now ? *now : std::time(nullptr));
  try {
    return run.run(program_->body, value_of(context, run.heap(), 0));
  } catch (const jinja::Failure& failure) {
    fail("chat template, line {}: {}", run.line(), failure.what());
  }
}

}  // namespace atom::text
