#include "text/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <time.h>

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace atom::text {
namespace {

constexpr size_t kMaxPatternBytes = 1 << 16;
// Backtracking steps of a match from one place. Few are enough for most places; the others get more
// and more, up to kMatchSteps and 8 per byte. A step can be a whole run of characters, and PCRE2
// counts for each place anew: so there is a limit of time too, looked at after a stretch of places. Where steps are runs over
// a long text, fewer are few.
constexpr uint64_t kFewSteps = 64, kFewestSteps = 8;
constexpr uint64_t kFewCharacters = uint64_t{1} << 29;  // of the first try at one place
constexpr uint64_t kMatchSteps = 10'000'000;
// Honest patterns need 2 to 20 ns a byte with JIT, where the machine is fast.
constexpr std::chrono::nanoseconds kTimePerByte{100}, kSlackPerByte{900};
constexpr std::chrono::milliseconds kSlackOfAll{500}, kMostSlack{3000};
constexpr size_t kPassesOfAll = 4;
constexpr size_t kInterpretedBytes = 10;  // what one costs without JIT, in bytes with it
constexpr std::chrono::milliseconds kLongCall{1};
constexpr size_t kUntimedBytes = 64;  // of a text; looking at clocks would cost more
constexpr uint32_t kCallsPerLook = 64;
constexpr uint32_t kMatchDepth = 100'000;
constexpr uint32_t kHeapKib = 64 * 1024;
constexpr size_t kJitStackBytes = 1 << 20;

// Of the RegexTime that exists.
struct TimeOfAll {
  bool exists = false;
  size_t bytes = 0, done = 0;  // done: by searches that are over
  std::chrono::nanoseconds used{0};
};
thread_local TimeOfAll time_of_all;

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

std::chrono::nanoseconds regex_time(size_t bytes, size_t done, std::chrono::nanoseconds slack) {
  // Compared before it is multiplied: the most that an int64_t holds is 10^10 bytes of it.
  const size_t most = static_cast<size_t>(kMostSlack / kSlackPerByte);
  const std::chrono::nanoseconds of_length =
      std::min<std::chrono::nanoseconds>(kSlackPerByte * std::min(bytes, most), kMostSlack);
  return slack + of_length + kTimePerByte * std::min(done, size_t{1} << 40);
}

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
  const uint32_t options =
      PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C | PCRE2_USE_OFFSET_LIMIT;
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

namespace {

std::chrono::nanoseconds thread_time() {
  timespec time{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
}

}  // namespace

struct RegexSearch::Scratch {
  using Clock = std::chrono::steady_clock;

  const Regex::Code& code;
  pcre2_match_data* match = nullptr;
  pcre2_match_context* context = nullptr;
  pcre2_jit_stack* stack = nullptr;
  std::string_view text;
  size_t bytes = 0, before = 0, done = 0;  // of all texts; of those before this one; got to
  std::chrono::nanoseconds slack, spent{0};
  std::chrono::nanoseconds thread_begin = thread_time();
  Clock::time_point since = Clock::now();
  uint32_t calls = 0;
  size_t places = 1;  // that one call looks at

  Scratch(const Regex::Code& compiled, std::chrono::nanoseconds own_slack)
      : code(compiled), slack(own_slack) {
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
    if (time_of_all.exists) {
      time_of_all.used += thread_time() - thread_begin;
      time_of_all.done += done;
    }
    pcre2_jit_stack_free(stack);
    pcre2_match_context_free(context);
    pcre2_match_data_free(match);
  }

  void begin() {
    since = Clock::now();
    calls = 0;
  }

  // In the order of the searches: where the text begins anew, the one before is done.
  void set_text(std::string_view next, size_t from) {
    if (from == 0) {
      before += text.size();
      bytes += next.size();
      places = 1;
    }
    text = next;
    done = before + from;
  }

  // The wall clock is quick to read, and the thread's decides: other work may have held it up. Double the time is left to
  // what is `ahead`.
  void look_at_time(std::chrono::nanoseconds ahead = {}) {
    const Clock::time_point now = Clock::now();
    spent += now - since;
    since = now;
    const auto require = [&](std::chrono::nanoseconds before, std::chrono::nanoseconds most,
                             const char* together) {
      const auto beyond = [&](std::chrono::nanoseconds used) {
        return before + used > most || before + used + ahead > 2 * most;
      };
      if (beyond(spent) && beyond(thread_time() - thread_begin))
        fail(
            "{}: the regular expression gives up on a text of {} bytes: it needs more than {} ms{}",
            code.source, text.size(),
            std::chrono::duration_cast<std::chrono::milliseconds>(most).count(), together);
    };
    const size_t worth = code.jit ? 1 : kInterpretedBytes;
    require({}, regex_time(bytes, worth * done, slack), "");
    if (!time_of_all.exists) return;
    const size_t all_done = std::min(time_of_all.done + done, kPassesOfAll * time_of_all.bytes);
    require(time_of_all.used, regex_time(time_of_all.bytes, worth * all_done, kSlackOfAll),
            " together with those before it");
  }

  // A match that begins in [from, last], or PCRE2's code below 0.
  int run(size_t from, size_t last, uint64_t steps) {
    pcre2_set_match_limit(context, static_cast<uint32_t>(steps));
    pcre2_set_offset_limit(context, last);
    const auto call = [&](uint32_t options) {
      return pcre2_match(code.code, units(text), text.size(), from, PCRE2_NO_UTF_CHECK | options,
                         match, context);
    };
    const int result = call(0);
    // The interpreter keeps its backtracking points on the heap, where more of them fit.
    return result == PCRE2_ERROR_JIT_STACKLIMIT ? call(PCRE2_NO_JIT) : result;
  }

  // The same place by place, each with as many steps as it needs.
  int run_places(size_t from, size_t last) {
    if (text.size() < kUntimedBytes) since = Clock::now();
    const uint64_t few = few_steps();
    const uint64_t most = kMatchSteps + 8 * std::min<size_t>(text.size(), 100'000'000);
    for (size_t at = from; at <= last; at = after(at)) {
      int result = PCRE2_ERROR_MATCHLIMIT;
      done = before + at;
      look_at_time();
      for (uint64_t steps = few; result == PCRE2_ERROR_MATCHLIMIT && steps < most;) {
        const std::chrono::nanoseconds before = spent;
        look_at_time();
        look_at_time(2 * (spent - before));
        steps = std::min(2 * steps, most);
        result = run(at, at, steps);
      }
      if (result != PCRE2_ERROR_NOMATCH) return result;
    }
    return PCRE2_ERROR_NOMATCH;
  }

  // Where the first character behind the one at or around `last` begins.
  size_t after(size_t last) const {
    for (++last; last < text.size() && (text[last] & 0xC0) == 0x80;) ++last;
    return last;
  }

  // Each can be a run to the text's end.
  uint64_t few_steps() const {
    return std::clamp<uint64_t>(kFewCharacters / (text.size() + 1), kFewestSteps, kFewSteps);
  }

  // More and more places at once, as long as the time is looked at often enough.
  int search(size_t from) {
    const size_t most = std::clamp<size_t>((size_t{1} << 22) / (text.size() + 1), 8, 256);
    const uint64_t few = few_steps();
    for (size_t at = from;;) {
      const size_t last = std::min(at + places - 1, text.size());
      int result = run(at, last, few);
      if (result == PCRE2_ERROR_MATCHLIMIT) result = run_places(at, last);
      if (result != PCRE2_ERROR_NOMATCH || last == text.size()) return result;
      at = after(last);
      if (at > text.size()) return result;
      done = before + at;
      const std::chrono::nanoseconds earlier = spent;
      look_at_time();
      places = spent - earlier < kLongCall ? std::min(2 * places, most) : 1;
    }
  }
};

RegexTime::RegexTime(size_t bytes) : outermost_(!time_of_all.exists) {
  if (outermost_) time_of_all = {.exists = true, .bytes = bytes};
}
RegexTime::~RegexTime() {
  if (outermost_) time_of_all = {};
}

RegexSearch::RegexSearch(const Regex& regex, std::chrono::nanoseconds slack)
    : code_(regex.code_), scratch_(std::make_unique<Scratch>(*code_, slack)) {}
RegexSearch::~RegexSearch() = default;
RegexSearch::RegexSearch(RegexSearch&&) noexcept = default;

std::optional<Span> RegexSearch::next(std::string_view text, size_t from) {
  check(from <= text.size(), "regex search starts inside its text");
  scratch_->set_text(text, from);
  if (from == 0 && text.size() >= kUntimedBytes) scratch_->begin();
  if (++scratch_->calls % kCallsPerLook == 0) scratch_->look_at_time();
  const int result = scratch_->search(from);
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
