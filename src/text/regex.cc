#include "text/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace atom::text {
namespace {

constexpr size_t kMaxPatternBytes = 1 << 16;
constexpr uint32_t kMatchSteps =
    10'000'000;  // backtracking steps of one match; plus 8 per subject byte
constexpr uint32_t kMatchDepth = 100'000;
constexpr uint32_t kHeapKib = 64 * 1024;
constexpr size_t kJitStackBytes = 1 << 20;

std::string message_of(int code) {
  PCRE2_UCHAR buffer[256];
  if (pcre2_get_error_message(code, buffer, sizeof(buffer)) < 0) return "unknown error";
  return reinterpret_cast<const char*>(buffer);
}

PCRE2_SPTR units(std::string_view text) {
  // PCRE2 wants a pointer even for an empty subject.
  return reinterpret_cast<PCRE2_SPTR>(text.empty() ? "" : text.data());
}

}  // namespace

struct Regex::Code {
  pcre2_code* code = nullptr;
  bool jit = false;
  std::string source;

  Code() = default;
  Code(const Code&) = delete;
  Code& operator=(const Code&) = delete;
  ~Code() { pcre2_code_free(code); }
};

Regex Regex::compile(std::string_view pattern, std::string_view source) {
  if (pattern.empty() || pattern.size() > kMaxPatternBytes) {
    fail("{}: a regular expression must have 1 to {} bytes and this one has {}", source,
         kMaxPatternBytes, pattern.size());
  }
  const std::string translated = translate_regex(pattern, source);
  struct FreeContext {
    void operator()(pcre2_compile_context* context) const { pcre2_compile_context_free(context); }
  };
  const std::unique_ptr<pcre2_compile_context, FreeContext> context(
      pcre2_compile_context_create(nullptr));
  check(context != nullptr, "pcre2 compile context");
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);

  int error = 0;
  PCRE2_SIZE offset = 0;
  // Ruby's ^ and $ match at every line, hence PCRE2_MULTILINE.
  const uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
  auto compiled = std::make_shared<Code>();
  compiled->code =
      pcre2_compile(units(translated), translated.size(), options, &error, &offset, context.get());
  if (compiled->code == nullptr) {
    fail("{}: the regular expression '{}' is not supported: {}", source, pattern,
         message_of(error));
  }
  compiled->jit = pcre2_jit_compile(compiled->code, PCRE2_JIT_COMPLETE) == 0;
  compiled->source = source;
  Regex regex;
  regex.code_ = std::move(compiled);
  return regex;
}

struct RegexSearch::Scratch {
  pcre2_match_data* match = nullptr;
  pcre2_match_context* context = nullptr;
  pcre2_jit_stack* stack = nullptr;

  explicit Scratch(const Regex::Code& code) {
    match = pcre2_match_data_create_from_pattern(code.code, nullptr);
    context = pcre2_match_context_create(nullptr);
    check(match != nullptr && context != nullptr, "pcre2 match context");
    pcre2_set_depth_limit(context, kMatchDepth);
    pcre2_set_heap_limit(context, kHeapKib);
    if (code.jit) {
      stack = pcre2_jit_stack_create(32 * 1024, kJitStackBytes, nullptr);
      if (stack != nullptr) pcre2_jit_stack_assign(context, nullptr, stack);
    }
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() {
    pcre2_jit_stack_free(stack);
    pcre2_match_context_free(context);
    pcre2_match_data_free(match);
  }
};

RegexSearch::RegexSearch(const Regex& regex)
    : code_(regex.code_), scratch_(std::make_unique<Scratch>(*code_)) {}
RegexSearch::~RegexSearch() = default;
RegexSearch::RegexSearch(RegexSearch&&) noexcept = default;

std::optional<Span> RegexSearch::next(std::string_view text, size_t from) {
  check(from <= text.size(), "regex search starts inside its text");
  const size_t steps = kMatchSteps + 8 * std::min<size_t>(text.size(), 100'000'000);
  pcre2_set_match_limit(scratch_->context, static_cast<uint32_t>(steps));
  const auto run = [&](uint32_t options) {
    return pcre2_match(code_->code, units(text), text.size(), from, PCRE2_NO_UTF_CHECK | options,
                       scratch_->match, scratch_->context);
  };
  int result = run(0);
  // The interpreter keeps its backtracking points on the heap, where more of them fit.
  if (result == PCRE2_ERROR_JIT_STACKLIMIT) result = run(PCRE2_NO_JIT);
  if (result == PCRE2_ERROR_NOMATCH) return std::nullopt;
  if (result < 0) {
    fail("{}: the regular expression gives up on a text of {} bytes: {}", code_->source,
         text.size(), message_of(result));
  }
  const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(scratch_->match);
  if (ends[0] < from || ends[1] < ends[0]) {
    fail("{}: the regular expression moves the start of its match (\\K) outside the match",
         code_->source);
  }
  return Span{ends[0], ends[1]};
}

}  // namespace atom::text
