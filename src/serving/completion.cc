#include "serving/completion.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "base/random.h"

namespace atom::serving {
namespace {

using engine::Event;
using engine::Finish;

class Completion final : public GroupSink {
 public:
  Completion(EngineThread& thread, const text::Tokenizer& tokenizer, CompletionRequest request,
             std::shared_ptr<CompletionSink> sink, EngineThread::Ticket ticket)
      : thread_(thread), request_(std::move(request)), sink_(std::move(sink)), ticket_(ticket) {
    const auto n = static_cast<size_t>(request_.n);
    for (size_t i = 0; i < request_.prompts.size() * n; ++i)
      choices_.push_back({.text = ChoiceText(tokenizer, request_.prompts[i / n], request_.text)});
    open_ = choices_.size();
    for (const std::vector<int32_t>& prompt : request_.prompts)
      usage_.prompt_tokens += static_cast<int64_t>(prompt.size());
    scores_only_ = request_.sampling.max_tokens == 0;
    // Whoever scores a text counts on an entry after it, also where the model would end there.
    scores_ = request_.text.echo && request_.sampling.logprobs && request_.sampling.max_tokens <= 1;
    echoes_logprobs_ = request_.text.echo && request_.sampling.logprobs.has_value();
    asked_prompt_logprobs_ = request_.sampling.prompt_logprobs.has_value();
  }

  std::vector<engine::Request> engine_requests() const {
    std::vector<engine::Request> requests;
    const auto n = static_cast<size_t>(request_.n);
    for (size_t i = 0; i < choices_.size(); ++i) {
      engine::Request one{.prompt = request_.prompts[i / n],
                          .sampling = request_.sampling,
                          .cache_salt = request_.cache_salt,
                          .deadline = {}};
      if (i % n > 0) {  // equal seeds give equal choices: those of a prompt differ
        Random seeds(one.sampling.seed);
        for (size_t k = 0; k < i % n; ++k) one.sampling.seed = seeds.next();
      }
      one.sampling.max_tokens = std::max(one.sampling.max_tokens, 1);
      if (scores_) one.sampling.ignore_eos = true;
      if (echoes_logprobs_)
        one.sampling.prompt_logprobs =
            std::max(*one.sampling.logprobs, one.sampling.prompt_logprobs.value_or(0));
      if (request_.timeout > 0) one.deadline = thread_.now() + request_.timeout;
      requests.push_back(std::move(one));
    }
    return requests;
  }

  void accepted() override { sink_->accepted(); }

  void refused(Refusal why, const std::string& message) override {
    switch (why) {
      case Refusal::kInvalid:
        return fail(Failure::kInvalid, message);
      case Refusal::kOverloaded:
        return fail(Failure::kOverloaded, message);
      case Refusal::kStopped:
        break;
    }
    fail(Failure::kUnavailable, message);
  }

  void event(size_t index, const Event& event) override {
    Choice& choice = choices_[index];
    if (failed_ || choice.ended) return;
    if (refuse(event)) return;
    Piece piece{.choice = index};
    if (!std::exchange(choice.begun, true)) begin(index, event, piece);
    if (event.id && !scores_only_) take(choice, event, piece);
    if (event.finish != Finish::kNot && !choice.text.stopped()) {
      piece.text += choice.text.finish();
      piece.finish = event.finish == Finish::kLength && !choice.at_eos ? "length" : "stop";
    }
    if (choice.text.stopped()) {
      piece.finish = "stop";
      if (event.finish == Finish::kNot) thread_.cancel(ticket_, index, Finish::kStop);
    }
    choice.ended = piece.finish != nullptr;
    sink_->piece(piece, usage_);
    if (choice.ended && --open_ == 0) sink_->done(usage_);
  }

 private:
  struct Choice {
    ChoiceText text;
    bool begun = false, ended = false, at_eos = false;
  };

  // Ends all of it where a choice cannot be completed.
  bool refuse(const Event& event) {
    switch (event.finish) {
      case Finish::kNot:
      case Finish::kStop:
      case Finish::kLength:
        return false;
      case Finish::kCancelled:
        fail(Failure::kUnavailable, "the request was cancelled");
        break;
      case Finish::kDeadline:
        fail(Failure::kDeadline,
             fmt::format("the request took longer than its {} seconds", request_.timeout));
        break;
      case Finish::kError:
        log_warning("request {} failed: {}", event.request, event.error);
        fail(thread_.alive() ? Failure::kFailed : Failure::kUnavailable,
             thread_.alive() ? "the engine failed on this request" : "the engine has stopped");
        break;
    }
    thread_.cancel(ticket_);
    return true;
  }

  void fail(Failure why, const std::string& message) {
    failed_ = true;
    sink_->failed(why, message);
  }

  // The first event of a choice: the prompt.
  void begin(size_t index, const Event& event, Piece& piece) {
    const auto n = static_cast<size_t>(request_.n);
    const std::vector<int32_t>& prompt = request_.prompts[index / n];
    if (index % n == 0) usage_.cached_tokens += event.prompt_cached;
    if (asked_prompt_logprobs_) piece.prompt_logprobs = event.prompt_logprobs;
    if (!request_.text.echo) return;
    const ChoiceText& text = choices_[index].text;
    piece.text = text.prompt_text();
    for (size_t i = 0; i < prompt.size(); ++i) {
      TokenInfo token{.id = prompt[i], .offset = text.prompt_offsets()[i], .logprobs = {}};
      if (echoes_logprobs_ && i > 0 && i <= event.prompt_logprobs.size())
        token.logprobs = event.prompt_logprobs[i - 1];
      piece.tokens.push_back(std::move(token));
    }
  }

  void take(Choice& choice, const Event& event, Piece& piece) {
    ++usage_.completion_tokens;
    const std::vector<int>& eos = thread_.config().eos_ids;
    choice.at_eos = scores_ && !request_.sampling.ignore_eos &&
                    std::find(eos.begin(), eos.end(), *event.id) != eos.end();
    piece.tokens.push_back(
        {.id = *event.id, .offset = choice.text.offset(), .logprobs = event.logprobs});
    piece.text += choice.text.push(*event.id);
  }

  EngineThread& thread_;
  const CompletionRequest request_;
  const std::shared_ptr<CompletionSink> sink_;
  const EngineThread::Ticket ticket_;
  std::vector<Choice> choices_;
  size_t open_ = 0;
  bool failed_ = false;
  bool scores_only_ = false, scores_ = false;
  bool echoes_logprobs_ = false, asked_prompt_logprobs_ = false;
  Usage usage_;
};

}  // namespace

EngineThread::Ticket start_completion(EngineThread& thread, const text::Tokenizer& tokenizer,
                                      CompletionRequest request,
                                      std::shared_ptr<CompletionSink> sink) {
  const EngineThread::Ticket ticket = thread.new_ticket();
  const auto completion =
      std::make_shared<Completion>(thread, tokenizer, std::move(request), std::move(sink), ticket);
  thread.submit(ticket, completion->engine_requests(), completion);
  return ticket;
}

}  // namespace atom::serving
