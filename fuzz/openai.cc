// Bodies of requests. The first byte picks the path; what is accepted keeps the limits, and refusals can be shown.
#include "serving/openai_request.h"

#include "base/file.h"
#include "fuzz/fuzz.h"
#include "serving/json_text.h"
#include "serving/openai_fields.h"
#include "text/chat_template.h"

namespace atom::fuzz {
namespace {

struct Service {
  const text::Tokenizer tokenizer =
      text::Tokenizer::from_file(ATOM_FUZZ_DATA "/text/byte_level_1k.json");
  const text::ChatTemplate chat_template = text::ChatTemplate::parse(
      read_file(ATOM_FUZZ_DATA "/text/chat_templates/chatml.jinja"), {.steps = 100'000});
  const serving::RequestLimits limits = {.context = 256,
                                         .vocabulary = tokenizer.vocab_size(),
                                         .choices = 16,
                                         .new_tokens = 1024,
                                         .prompt_tokens = 1024,
                                         .prompt_bytes = 1024};
  const std::vector<std::string> models = {"small"};
  const serving::RenderChat chat = [this](const Json& context) {
    return chat_template.render(context, 0);
  };
  serving::RequestContext context() const { return {tokenizer, limits, models, chat, "<s>", ""}; }
};

void check_request(const serving::ParsedRequest& parsed, const serving::RequestLimits& limits) {
  const serving::CompletionRequest& completion = parsed.completion;
  const auto n = static_cast<size_t>(completion.n);
  check(!completion.prompts.empty(), "no prompt");
  check(completion.prompts.size() * n <= 16, "too many choices");
  for (const std::vector<int32_t>& prompt : completion.prompts) {
    check(!prompt.empty() && prompt.size() < 256, "the length of a prompt");
    for (const int32_t id : prompt) check(id >= 0 && id < limits.vocabulary, "no token");
  }
  check(completion.sampling.max_tokens >= 0 && completion.sampling.max_tokens < 256, "max_tokens");
  check(completion.sampling.top_p > 0 && completion.sampling.temperature >= 0, "sampling");
}

}  // namespace

void run_openai(std::string_view bytes) {
  static const Service service;
  const serving::RequestContext context = service.context();
  const size_t path = take_choice(bytes, 4);
  try {
    const Json body = parse_json(bytes, {.source = "the request", .max_depth = 32});
    if (path == 0) check_request(parse_completion(body, context), service.limits);
    if (path == 1) check_request(parse_chat(body, context), service.limits);
    if (path == 2) parse_tokenize(body, context);
    if (path == 3)
      service.tokenizer.decode(serving::Fields(body).ids("tokens", service.limits.vocabulary, 256));
  } catch (const serving::ApiError& error) {
    check(error.status() == 400 || error.status() == 404, "the status of a refusal");
    parse_json(serving::json_string(error.what()));
  } catch (const Error&) {
  }
}

}  // namespace atom::fuzz
