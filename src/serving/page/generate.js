// One streamed answer of the server, with its times.

import { stream } from "./api.js";

// Times of an answer in seconds, and its tokens. Where the server's `usage` does not come along, the
// tokens are those that were seen: one a piece, or as many as have logprobs.
export class Timing {
  constructor(now = performance.now()) {
    this.start = now;
    this.first = null;
    this.last = null;
    this.tokens = 0;
    this.firstTokens = 0;  // of the first piece
    this.usage = null;
  }

  add(tokens, now = performance.now()) {
    if (this.first === null) {
      this.first = now;
      this.firstTokens = tokens;
    }
    this.last = now;
    this.tokens += tokens;
  }

  // The server's numbers, where they are numbers.
  setUsage(usage) {
    const { prompt_tokens: prompt, completion_tokens: completion } = usage;
    if (!Number.isFinite(prompt) || !Number.isFinite(completion)) return;
    const cached = usage.prompt_tokens_details?.cached_tokens;
    this.usage = { prompt, completion, cached: Number.isFinite(cached) ? cached : 0 };
    if (this.last === this.first) this.firstTokens = completion;
    this.tokens = completion;
  }

  // What is shown and exported. The rate leaves the first piece out: its time is the prompt's.
  summary(finish) {
    const span = (this.last - this.first) / 1000;
    return {
      tokens: this.tokens,
      prompt: this.usage?.prompt ?? null,
      cached: this.usage?.cached ?? 0,
      exact: this.usage !== null,
      firstToken: this.first === null ? null : (this.first - this.start) / 1000,
      rate: this.tokens > this.firstTokens && span > 0 ? (this.tokens - this.firstTokens) / span : null,
      seconds: this.last === null ? null : (this.last - this.start) / 1000,
      finish: finish || null,
    };
  }
}

// One token with its probability: { bytes or text, logprob, others: [{ text, logprob }] }.
function chatTokens(logprobs) {
  return (logprobs?.content || []).map((token) => ({
    text: String(token.token ?? ""),
    bytes: Array.isArray(token.bytes) ? token.bytes : null,
    logprob: Number(token.logprob),
    others: (token.top_logprobs || []).map((other) => ({
      text: String(other.token ?? ""),
      logprob: Number(other.logprob),
    })),
  }));
}

function completionTokens(logprobs) {
  return (logprobs?.tokens || []).map((text, i) => ({
    text: String(text ?? ""),
    bytes: null,
    logprob: Number(logprobs.token_logprobs?.[i]),
    others: Object.entries(logprobs.top_logprobs?.[i] || {})
      .map(([other, logprob]) => ({ text: other, logprob: Number(logprob) })),
  }));
}

// Runs one request to its end. `piece` is called after every chunk with (text, tokens). Returns the
// finish reason. Errors: ApiError; AbortError when `signal` stops it.
export async function generate({ chat, body, signal, timing, piece }) {
  const path = chat ? "/v1/chat/completions" : "/v1/completions";
  const usage = { include_usage: true, continuous_usage_stats: true };  // the second: of every piece
  const whole = { ...body, stream: true, stream_options: usage };
  let finish = null;
  for await (const chunk of stream(path, whole, signal)) {
    const choice = chunk.choices?.[0];
    if (choice) {
      const text = (chat ? choice.delta?.content : choice.text) || "";
      const tokens = chat ? chatTokens(choice.logprobs) : completionTokens(choice.logprobs);
      if (text || tokens.length) timing.add(tokens.length || 1);
      if (choice.finish_reason) finish = String(choice.finish_reason);
      if (chunk.usage && (text || tokens.length)) timing.setUsage(chunk.usage);
      piece(String(text), tokens);
    } else if (chunk.usage) {
      timing.setUsage(chunk.usage);
    }
  }
  return finish;
}
