// The server's HTTP interface: requests, streams of server-sent events, errors in words.

import { load, save } from "./dom.js";

export function apiKey() {
  return load(sessionStorage, "key") || "";
}

export function setApiKey(key) {
  save(sessionStorage, "key", key || null);
}

// kind: "key", "busy", "request", "server", "network" or "broken" (a stream that ended early).
export class ApiError extends Error {
  constructor(kind, message, details = {}) {
    super(message);
    this.kind = kind;
    Object.assign(this, { status: 0, code: "", param: "", retryAfter: 0 }, details);
  }
}

function kindOf(status) {
  if (status === 401 || status === 403) return "key";
  if (status === 429 || status === 503) return "busy";
  return status >= 500 ? "server" : "request";
}

function asText(value) {
  return typeof value === "string" ? value : "";
}

async function errorOf(response) {
  let body = {};
  try {
    body = (await response.json()).error || {};
  } catch {
    // not JSON: the status has to do
  }
  const seconds = Number(response.headers.get("retry-after"));
  return new ApiError(kindOf(response.status),
                      asText(body.message) || `The server answered with status ${response.status}.`, {
                        status: response.status,
                        code: asText(body.code),
                        param: asText(body.param),
                        retryAfter: seconds > 0 && seconds < 86400 ? seconds : 0,
                      });
}

// A GET without `body`, else a POST of it as JSON. ApiError, or AbortError of `signal`.
export async function request(path, { body, signal } = {}) {
  const headers = {};
  if (apiKey()) headers.authorization = `Bearer ${apiKey()}`;
  if (body !== undefined) headers["content-type"] = "application/json";
  let response;
  try {
    response = await fetch(path, {
      method: body === undefined ? "GET" : "POST",
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
      cache: "no-store",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("network", "The server cannot be reached.");
  }
  if (!response.ok) throw await errorOf(response);
  return response;
}

// Server-sent events out of bytes that come in pieces of any size.
export class EventParser {
  constructor() {
    this.decoder = new TextDecoder();
    this.rest = "";
    this.data = [];
  }

  // The data of the events that `bytes` completes.
  push(bytes) {
    this.rest += this.decoder.decode(bytes, { stream: true });
    const events = [];
    let start = 0;
    for (;;) {
      let end = start;
      while (end < this.rest.length && this.rest[end] !== "\n" && this.rest[end] !== "\r") ++end;
      const carriage = this.rest[end] === "\r";
      if (end >= this.rest.length || (carriage && end + 1 === this.rest.length)) break;
      this.line(this.rest.slice(start, end), events);
      start = end + (carriage && this.rest[end + 1] === "\n" ? 2 : 1);
    }
    this.rest = this.rest.slice(start);
    return events;
  }

  line(text, events) {
    if (text === "") {
      if (this.data.length) events.push(this.data.join("\n"));
      this.data = [];
    } else if (text.startsWith("data:")) {
      this.data.push(text.slice(text[5] === " " ? 6 : 5));
    }
  }
}

// The JSON of each event of a streamed answer. ApiError "broken" where it ends without [DONE].
export async function* stream(path, body, signal) {
  const response = await request(path, { body, signal });
  const reader = response.body.getReader();
  const parser = new EventParser();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      for (const data of parser.push(value)) {
        if (data === "[DONE]") return;
        yield chunkOf(data);
      }
    }
  } catch (error) {
    if (error.name === "AbortError" || error instanceof ApiError) throw error;
  } finally {
    reader.cancel().catch(() => {});
  }
  throw new ApiError("broken", "The connection was lost in the middle of the answer.");
}

function chunkOf(data) {
  let chunk;
  try {
    chunk = JSON.parse(data);
  } catch {
    throw new ApiError("server", "The server sent a piece that is not JSON.");
  }
  if (chunk.error) {
    throw new ApiError("server", asText(chunk.error.message) || "The server ended the answer.",
                       { code: asText(chunk.error.code) });
  }
  return chunk;
}

// What went wrong, and what to do: { title, text }.
export function inWords(error) {
  if (!(error instanceof ApiError)) return { title: "The page failed", text: String(error) };
  switch (error.kind) {
    case "key":
      return apiKey()
        ? { title: "The key was not accepted", text: "Enter another API key." }
        : { title: "This server asks for a key", text: "Enter the API key it was started with." };
    case "busy":
      return {
        title: error.status === 429 ? "The server is busy" : "The server takes no requests now",
        text: error.message,
      };
    case "network":
      return { title: "No connection", text: `${error.message} Is it still running?` };
    case "broken":
      return { title: "The answer broke off", text: `${error.message} The text so far is kept.` };
    case "server":
      return { title: "The server failed", text: error.message };
    default:
      return {
        title: "The server refused the request",
        text: error.param ? `${error.message} (${error.param})` : error.message,
      };
  }
}
