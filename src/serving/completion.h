// Completions: prompts' ids go to the engine, texts come back, piece by piece.
//
// A completion of P prompts with n choices each has P * n choices; choice p * n + i is the i-th of prompt p. Choices are
// requests of their own with seeds of their own; those of one prompt share its pages.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "serving/choice_text.h"
#include "serving/engine_thread.h"

namespace atom::serving {

struct CompletionRequest {
  std::vector<std::vector<int32_t>> prompts;
  int n = 1;
  // seed: of each prompt's first choice. max_tokens 0, with echo: the prompt alone is scored.
  engine::SamplingOptions sampling;
  TextOptions text;
  std::string cache_salt;
  double timeout = 0;  // seconds; 0: none
};

struct TokenInfo {
  int32_t id = 0;
  int64_t offset = 0;                        // of its text in the choice's text, in characters
  std::optional<engine::Logprobs> logprobs;  // where asked for; none of the first token of a prompt
};

// What a choice got with one step.
struct Piece {
  size_t choice = 0;
  std::string text;               // whole characters
  std::vector<TokenInfo> tokens;  // with echo, the first piece begins with those of the prompt
  const char* finish = nullptr;   // "stop", "length": its last piece
  std::vector<engine::Logprobs> prompt_logprobs;  // with its first piece, where asked for
};

struct Usage {
  int64_t prompt_tokens = 0;  // each prompt once
  int64_t completion_tokens = 0;
  int64_t cached_tokens = 0;  // of the prompts: their pages were there already
};

enum class Failure { kInvalid, kOverloaded, kUnavailable, kDeadline, kFailed };

// Called on the teller's thread, but for an early failed(), which may come within start_completion().
class CompletionSink {
 public:
  virtual ~CompletionSink() = default;
  virtual void accepted() = 0;
  virtual void piece(const Piece& piece, const Usage& so_far) = 0;
  // The end, exactly one of them.
  virtual void done(const Usage& usage) = 0;
  virtual void failed(Failure why, const std::string& message) = 0;
};

// The ticket cancels it: thread.cancel(ticket). The tokenizer and the thread outlive it.
EngineThread::Ticket start_completion(EngineThread& thread, const text::Tokenizer& tokenizer,
                                      CompletionRequest request,
                                      std::shared_ptr<CompletionSink> sink);

}  // namespace atom::serving
