// Stop strings, texts of choices, and that every request ends once whatever happens.
#include "serving/completion.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <future>
#include <string>

#include "base/random.h"
#include "serving/serving_fixture.h"
#include "serving/stop_finder.h"

namespace atom::serving {
namespace {

struct Searched {
  std::string text;
  std::optional<size_t> stop;
};

// By definition: the first end of a stop string; of those that end there, the longest.
Searched searched(const std::string& text, const std::vector<std::string>& stops, bool include) {
  for (size_t end = 1; end <= text.size(); ++end) {
    std::optional<size_t> best;
    for (size_t s = 0; s < stops.size(); ++s)
      if (std::string_view(text).substr(0, end).ends_with(stops[s]) &&
          (!best || stops[s].size() > stops[*best].size()))
        best = s;
    if (best) return {text.substr(0, end - (include ? 0 : stops[*best].size())), best};
  }
  return {text, {}};
}

TEST(StopFinder, EqualsTheDefinition) {
  Random random(1);
  int found = 0;
  for (int round = 0; round < 3000; ++round) {
    const auto draw = [&](size_t least, size_t most) {
      std::string text;
      for (uint64_t n = least + random.below(most - least + 1); n > 0; --n)
        text += static_cast<char>('a' + random.below(2));
      return text;
    };
    std::vector<std::string> stops;
    for (uint64_t n = random.below(4); n > 0; --n) stops.push_back(draw(2, 6));
    const std::string text = draw(0, 20);
    const bool include = random.below(2) == 0;
    const Searched expected = searched(text, stops, include);
    StopFinder finder(stops, include);
    std::string out;
    for (size_t at = 0; at < text.size() && !finder.found();) {
      const size_t size = std::min<size_t>(text.size() - at, random.below(5));
      out += finder.push(std::string_view(text).substr(at, size));
      at += size;
      // What was given is never taken back, and all is given that no stop string can claim.
      ASSERT_EQ(out, expected.text.substr(0, out.size()));
    }
    EXPECT_EQ(finder.found(), expected.stop.has_value());
    if (finder.found()) {
      EXPECT_EQ(finder.stop(), stops[*expected.stop]);
    } else {
      out += finder.flush();
    }
    EXPECT_EQ(out, expected.text);
    found += finder.found();
  }
  EXPECT_GT(found, 500);
}

TEST(StopFinder, HoldsBackNoMoreThanItMust) {
  StopFinder finder({"###", "end"}, false);
  EXPECT_EQ(finder.push("a #"), "a ");
  EXPECT_EQ(finder.push("#x e"), "##x ");
  EXPECT_EQ(finder.push("n"), "");
  EXPECT_EQ(finder.push("t"), "ent");
  EXPECT_EQ(finder.push("##"), "");
  EXPECT_EQ(finder.push("####"), "");
  EXPECT_TRUE(finder.found());
}

TEST(ChoiceText, ContinuesThePrompt) {
  const text::Tokenizer& tokenizer = small_model().tokenizer;
  const std::string whole =
      "Once upon a time, 3 \xe2\x82\xac and \xf0\x9f\x98\x80\xf0\x9f\x98\x80 of it.";
  const std::vector<int32_t> ids = tokenizer.encode(whole);
  for (size_t cut = 1; cut < ids.size(); ++cut) {
    const std::span<const int32_t> prompt(ids.data(), cut);
    for (const bool echo : {false, true}) {
      ChoiceText text(tokenizer, prompt, {.echo = echo});
      const std::string before = tokenizer.decode(prompt);
      if (echo) {
        EXPECT_EQ(text.prompt_text(), before);
      }
      std::string rest;
      for (size_t i = cut; i < ids.size(); ++i) rest += text.push(ids[i]);
      rest += text.finish();
      if (before.find("\xef\xbf\xbd") == std::string::npos) {  // not cut within a character
        EXPECT_EQ(before + rest, whole) << cut;
        EXPECT_TRUE(!echo || text.offset() == count_characters(whole)) << cut;
      }
    }
  }
}

TEST(ChoiceText, FindsStopStringsAcrossTokens) {
  const text::Tokenizer& tokenizer = small_model().tokenizer;
  const std::string whole = "The quick brown fox jumps over the lazy dog";
  const std::vector<int32_t> ids = tokenizer.encode(whole);
  for (size_t at = 4; at + 6 < whole.size(); ++at) {
    const std::string stop = whole.substr(at, 6);
    ChoiceText text(tokenizer, std::span(ids).first(1), {.stop = {stop, "zzz"}});
    std::string out;
    for (size_t i = 1; i < ids.size() && !text.stopped(); ++i) out += text.push(ids[i]);
    EXPECT_TRUE(text.stopped());
    EXPECT_EQ(out, whole.substr(0, at));
  }
}

TEST(TokenTexts, ShowsTokensAsInTheMiddle) {
  const text::Tokenizer& tokenizer = small_model().tokenizer;
  const TokenTexts texts(tokenizer);
  std::string out;
  for (const int32_t id : tokenizer.encode("quick brown fox", {.add_special_tokens = false}))
    out += texts.text(id);
  EXPECT_EQ(out, " quick brown fox");
  EXPECT_EQ(texts.text(2), "</s>");
  EXPECT_EQ(texts.bytes(*tokenizer.token_to_id("<0xE2>")), "\xe2");
}

TEST(TokenTexts, BytesOfTokensThatArePartOfACharacter) {
  const auto tokenizer = text::Tokenizer::from_json(
      R"({"model": {"type": "BPE", "vocab": {"a": 0, "\u00e2\u0124": 1, "\u00ac": 2, "\ufffd": 3}, "merges": []},
          "decoder": {"type": "ByteLevel"}})",
      "test.json");
  const TokenTexts texts(tokenizer);
  EXPECT_EQ(texts.bytes(0), "a");
  EXPECT_EQ(texts.bytes(1), "\xe2\x82");  // the Euro sign is E2 82 AC
  EXPECT_EQ(texts.bytes(2), "\xac");
  EXPECT_FALSE(texts.bytes(3).has_value());
  EXPECT_EQ(texts.bytes(4), "");
}

// Counts what it hears.
class CountingSink final : public CompletionSink {
 public:
  explicit CountingSink(std::atomic<int>& open) : open_(open) { ++open_; }
  void accepted() override {
    EXPECT_EQ(ends_, 0);
    accepted_ = true;
  }
  void piece(const Piece& piece, const Usage&) override {
    EXPECT_TRUE(accepted_);
    EXPECT_EQ(ends_, 0) << "a piece after the end";
    if (piece.finish != nullptr) ++finished_;
  }
  void done(const Usage&) override { end(); }
  void failed(Failure why, const std::string&) override {
    failure_ = why;
    end();
  }
  int ends() const { return ends_; }
  std::optional<Failure> failure() const { return failure_; }

 private:
  void end() {
    EXPECT_EQ(ends_, 0) << "a second end";
    ++ends_;
    --open_;
  }
  std::atomic<int>& open_;
  bool accepted_ = false;
  int ends_ = 0, finished_ = 0;
  std::optional<Failure> failure_;
};

TEST(Completion, EndsOnceWhateverHappens) {
  Random random(5);
  std::map<std::string, int> seen;
  for (int round = 0; round < 2; ++round) {
    std::atomic<int> open = 0;
    std::atomic<int64_t> rounds = 0;
    const bool dies = round == 1;
    EngineThread thread(small_model().model(),
                        {.max_sequences = 4,
                         .max_rows = 32,
                         .max_positions = 256,
                         .pages = 6,  // fewer than four long sequences need
                         .max_waiting = 12,
                         .check_each_step = true},
                        {.before_step = [&] {
                          if (++rounds > 40 && dies) throw std::runtime_error("death");
                        }});
    std::vector<std::shared_ptr<CountingSink>> sinks;
    std::vector<EngineThread::Ticket> tickets;
    for (int i = 0; i < 30; ++i) {
      CompletionRequest request;
      for (uint64_t p = 0; p <= random.below(2); ++p) {
        std::vector<int32_t> prompt(1 + random.below(120));
        for (int32_t& id : prompt) id = static_cast<int32_t>(random.below(4096));
        request.prompts.push_back(prompt);
      }
      request.n = 1 + static_cast<int>(random.below(3));
      request.sampling.max_tokens = 1 + static_cast<int>(random.below(30));
      request.sampling.seed = random.next();
      if (random.below(8) == 0) request.sampling.max_tokens = 200;  // some exceed the positions
      if (random.below(3) == 0) request.text.stop = {"a", "e"};
      if (random.below(4) == 0) request.timeout = 0.001 * static_cast<double>(random.below(20) + 1);
      sinks.push_back(std::make_shared<CountingSink>(open));
      tickets.push_back(start_completion(thread, small_model().tokenizer, request, sinks.back()));
      if (random.below(3) == 0) thread.cancel(tickets[random.below(tickets.size())]);
      for (const int64_t until = rounds + static_cast<int64_t>(random.below(8));
           rounds < until && thread.alive() && open > 0;)
        std::this_thread::yield();
    }
    const auto until = std::chrono::steady_clock::now() + kPatience;
    while (open > 0 && std::chrono::steady_clock::now() < until) std::this_thread::yield();
    thread.stop();
    for (const auto& sink : sinks) {
      EXPECT_EQ(sink->ends(), 1);
      ++seen[!sink->failure() ? "done" : std::to_string(static_cast<int>(*sink->failure()))];
    }
    EXPECT_EQ(thread.cause(), dies ? "death" : "");
  }
  EXPECT_GT(seen["done"], 8);
  EXPECT_GT(seen[std::to_string(static_cast<int>(Failure::kInvalid))], 0);
  EXPECT_GT(seen[std::to_string(static_cast<int>(Failure::kUnavailable))], 5);
}

// Hears of one group.
class WaitingSink final : public GroupSink {
 public:
  explicit WaitingSink(bool throws = false) : throws_(throws) {}
  void accepted() override {}
  void refused(Refusal, const std::string&) override {
    ended_ = true;
    if (throws_) throw std::runtime_error("no memory");
  }
  void event(size_t, const engine::Event& event) override {
    if (event.finish != engine::Finish::kNot) ended_ = true;
  }
  bool wait() const {
    const auto until = std::chrono::steady_clock::now() + kPatience;
    while (!ended_ && std::chrono::steady_clock::now() < until) std::this_thread::yield();
    return ended_;
  }

 private:
  const bool throws_;
  std::atomic<bool> ended_ = false;
};

engine::Request two_tokens() {
  engine::Request request{.prompt = {1, 2, 3}, .sampling = {}, .cache_salt = "", .deadline = {}};
  request.sampling.max_tokens = 2;
  request.sampling.ignore_eos = true;
  return request;
}

TEST(EngineThread, TheQueueEndsWhereTheFirstStepBegins) {
  EngineThread thread(small_model().model(), {.max_sequences = 1, .max_rows = 32, .pages = 8});
  const auto one = std::make_shared<WaitingSink>(), two = std::make_shared<WaitingSink>();
  thread.submit(thread.new_ticket(), {two_tokens()}, one);
  thread.submit(thread.new_ticket(), {two_tokens()}, two);
  ASSERT_TRUE(one->wait() && two->wait());
  thread.stop();
  const ThreadStats stats = thread.stats();
  EXPECT_EQ(stats.queue.count(), 2);
  EXPECT_EQ(stats.first_token.count(), 2);
  EXPECT_LT(stats.queue.sum(), stats.first_token.sum());
}

// Holds its first event until it is let go.
class HeldSink final : public GroupSink {
 public:
  void accepted() override {}
  void refused(Refusal, const std::string&) override {}
  void event(size_t, const engine::Event&) override { let_go_.wait(); }
  void let_go() { promise_.set_value(); }

 private:
  std::promise<void> promise_;
  const std::shared_future<void> let_go_ = promise_.get_future().share();
};

TEST(EngineThread, StepsDoNotWaitForSinks) {
  EngineThread thread(small_model().model(), {.max_sequences = 1, .max_rows = 32, .pages = 8});
  const auto held = std::make_shared<HeldSink>();
  thread.submit(thread.new_ticket(), {two_tokens(), two_tokens()}, held);
  const auto until = std::chrono::steady_clock::now() + kPatience;
  while (thread.stats().engine.generated_tokens < 4 && std::chrono::steady_clock::now() < until)
    std::this_thread::yield();
  EXPECT_EQ(thread.stats().engine.generated_tokens, 4);
  held->let_go();
}

TEST(EngineThread, OutlivesASinkThatCannotTellOfARefusal) {
  EngineThread thread(small_model().model(), {.max_sequences = 1, .max_rows = 32, .pages = 8});
  const auto refused = std::make_shared<WaitingSink>(true), after = std::make_shared<WaitingSink>();
  engine::Request wrong = two_tokens();
  wrong.prompt.clear();
  thread.submit(thread.new_ticket(), {wrong}, refused);
  ASSERT_TRUE(refused->wait());
  thread.submit(thread.new_ticket(), {two_tokens()}, after);
  EXPECT_TRUE(after->wait());
  EXPECT_TRUE(thread.alive());
  EXPECT_EQ(thread.cause(), "");
}

TEST(Completion, StopEndsWhatIsOpen) {
  std::atomic<int> open = 0;
  EngineThread thread(small_model().model(), {.max_sequences = 4, .max_rows = 32, .pages = 32});
  std::vector<std::shared_ptr<CountingSink>> sinks;
  for (int i = 0; i < 8; ++i) {
    CompletionRequest request{.prompts = {{1, 2, 3}}, .cache_salt = ""};
    request.sampling.max_tokens = 500;
    request.sampling.ignore_eos = true;
    sinks.push_back(std::make_shared<CountingSink>(open));
    start_completion(thread, small_model().tokenizer, request, sinks.back());
  }
  thread.stop();
  EXPECT_EQ(open, 0);
  for (const auto& sink : sinks) EXPECT_EQ(sink->ends(), 1);
  const auto late = std::make_shared<CountingSink>(open);
  start_completion(thread, small_model().tokenizer, {.prompts = {{1}}, .cache_salt = ""}, late);
  EXPECT_EQ(late->failure(), Failure::kUnavailable);
}

}  // namespace
}  // namespace atom::serving
