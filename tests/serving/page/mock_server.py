"""A server with the shapes of Atom's HTTP interface and made-up answers, to look at the page without a model.

Serves the files of src/serving/page with the policy of src/serving/page.h. What it answers depends on
words in the last user message (see SCRIPTS and `Handler.refuse`). Streams are cut into pieces at awkward
places: within characters of several bytes, within "data:", between the two ends of a line.

Usage: mock_server.py [--port N] [--key KEY] [--no-template] [--delay SECONDS]
"""

import argparse
import functools
import json
import math
import pathlib
import random
import re
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SOURCE = pathlib.Path(__file__).resolve().parents[3] / "src" / "serving"
TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8",
         ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}

ANSWER = """A **KV-cache** keeps the keys and values of every token that the model has read, so that each \
new token costs *one* row of attention instead of the whole text again. It grows with the length of the \
text and with the number of requests, and at large batches it, not the weights, fills the memory.

| cache | bytes per token | tokens in 16 GiB |
|:--|--:|--:|
| FP16 | 524,288 | 32,768 |
| INT8 | 266,240 | 64,527 |
| **INT4** | **139,264** | **123,361** |

Atom packs two 4-bit values into a byte:

```cpp
// Low nibble first; both values are in [-8, 7].
uint8_t pack(int low, int high) {
  return static_cast<uint8_t>((low & 0xF) | (high & 0xF) << 4);
}
```

- Pages of 64 tokens are shared between requests with the same beginning.
- The page that is being filled stays in `INT8`.
"""

HOSTILE = """<script>alert(1)</script><img src=x onerror=alert(2)> [click](javascript:alert(3)) \
[data](data:text/html,<script>alert(4)</script>) ![pic](http://evil.example/x.png) <b>not bold</b>

```html
</code></pre><script>alert(5)</script>
```

| <i>a</i> | b |
|---|---|
| <svg onload=alert(6)> | `<u>x</u>` |

# <iframe src="javascript:alert(7)"></iframe>
"""

SCRIPTS = {
    "hostile": HOSTILE,
    "unicode": "Gr\u00fc\u00dfe \u2014 \u65e5\u672c\u8a9e \U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 fin",
    "hello": "Hello there.",
    "marks": "# One\n\n> quoted *deep*\n\n1. first\n2. second\n   - inner\n\n~~old~~ `code` "
             "<https://example.com/a_b> and [site](https://example.com/?q=1 \"t\")\n\n---\n\n- [x] done\n- [ ] open\n",
}


@functools.cache
def policy():
    """The value of kPageSecurityPolicy in page.h."""
    text = (SOURCE / "page.h").read_text()
    text = text[text.index("kPageSecurityPolicy ="):]
    return "".join(re.findall(r'"([^"]*)"', text[:text.index(";\n")]))


def pieces_of(text):
    """Tokens as a tokenizer might cut them: words with their blank, signs alone."""
    return re.findall(r" ?\w{1,7}|\n+|[^\w]", text)


class State:
    """What /metrics tells. Grows with the answers, and by itself where `busy`."""

    def __init__(self, busy):
        self.lock = threading.Lock()
        self.busy = busy
        self.started = time.time()
        self.running = 0
        self.counters = {"prompt": 0, "generation": 0, "queries": 0, "hits": 0, "requests": 0, "steps": 0}
        self.latencies = {name: [] for name in ("time_to_first_token", "inter_token_latency",
                                                "e2e_request_latency", "queue_time")}
        self.random = random.Random(4)

    def count(self, name, value=1):
        with self.lock:
            self.counters[name] += value

    def observe(self, name, seconds):
        with self.lock:
            self.latencies[name].append(seconds)

    def grow(self, seconds):
        """The load of a busy server over so many seconds."""
        wave = 1 + 0.25 * math.sin(time.time() / 9)
        with self.lock:
            for name, rate in (("generation", 2350), ("prompt", 900), ("queries", 900), ("hits", 610),
                               ("requests", 9), ("steps", 52)):
                self.counters[name] += int(rate * wave * seconds * self.random.uniform(0.9, 1.1))
            for name, middle in (("time_to_first_token", 0.14), ("inter_token_latency", 0.019),
                                 ("e2e_request_latency", 4.2), ("queue_time", 0.02)):
                self.latencies[name] += [self.random.lognormvariate(math.log(middle), 0.5) for _ in range(9)]
        return wave

    def text(self):
        wave = self.grow(1.0) if self.busy else 0
        with self.lock:
            c = dict(self.counters)
            running = self.running + int(40 * wave)
            held, cached = int(900 * wave) + 8 * self.running, 520 if self.busy else 40
            lines = ["# HELP atom_requests_running Requests in the engine.", "# TYPE atom_requests_running gauge",
                     f"atom_requests_running {running}", f"atom_requests_waiting {max(0, int(14 * wave) - 12)}",
                     f'atom_kv_pages{{state="held"}} {held}', f'atom_kv_pages{{state="cached"}} {cached}',
                     f'atom_kv_pages{{state="free"}} {2048 - held - cached}', f"atom_batch_rows {running}",
                     f"atom_prefix_cache_queries_total {c['queries']}", f"atom_prefix_cache_hits_total {c['hits']}",
                     f"atom_prompt_tokens_total {c['prompt']}", f"atom_generation_tokens_total {c['generation']}",
                     f"atom_preemptions_total 0", f"atom_steps_total {c['steps']}",
                     'atom_saturated_activation_share{layer="0"} 0.0004',
                     'atom_saturated_activation_share{layer="1"} 0.0152',
                     f'atom_requests_total{{finish="stop"}} {c["requests"]}',
                     'atom_requests_total{finish="length"} 0']
            for name, values in self.latencies.items():
                family = f"atom_{name}_seconds"
                lines.append(f"# TYPE {family} histogram")
                for bound in (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30):
                    lines.append(f'{family}_bucket{{le="{bound}"}} {sum(v <= bound for v in values)}')
                lines.append(f'{family}_bucket{{le="+Inf"}} {len(values)}')
                lines.append(f"{family}_sum {sum(values)}")
                lines.append(f"{family}_count {len(values)}")
        return "\n".join(lines) + "\n"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def answer(self, status, body, content_type="application/json", headers=()):
        data = body if isinstance(body, bytes) else body.encode()
        self.send_response(status)
        for name, value in (("Content-Type", content_type), ("Content-Length", str(len(data))),
                            ("Content-Security-Policy", policy()), ("X-Content-Type-Options", "nosniff"), *headers):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def fail(self, status, message, kind="invalid_request_error", param=None, code=None, headers=()):
        error = {"message": message, "type": kind, "param": param, "code": code}
        self.answer(status, json.dumps({"error": error}), headers=headers)

    def allowed(self):
        key = self.server.options.key
        if not key or self.headers.get("Authorization") == f"Bearer {key}":
            return True
        self.fail(401, "The API key is missing or wrong.", "authentication_error", code="invalid_api_key")
        return False

    def do_GET(self):
        path = self.path.split("?")[0]
        name = "index.html" if path == "/" else path[1:]
        if re.fullmatch(r"[a-z]+\.(html|css|js|svg)", name) and (SOURCE / "page" / name).is_file():
            self.answer(200, (SOURCE / "page" / name).read_bytes(), TYPES[pathlib.Path(name).suffix])
        elif path == "/v1/models" and self.allowed():
            model = {"id": self.server.options.model, "object": "model", "created": int(self.server.state.started),
                     "owned_by": "atom", "max_model_len": 8192,
                     "meta": {"weights": "w4a4", "kv_cache": "int4", "group": 128, "kept_channels": 128,
                              "bits_per_weight": 4.24, "layers": 32, "backend": "cuda"}}
            self.answer(200, json.dumps({"object": "list", "data": [model]}))
        elif path == "/metrics" and self.allowed():
            self.answer(200, self.server.state.text(), "text/plain; version=0.0.4; charset=utf-8")
        elif path == "/tokenizer_info" and self.allowed():
            self.answer(200, json.dumps({"has_chat_template": not self.server.options.no_template}))
        elif path not in ("/v1/models", "/metrics", "/tokenizer_info"):
            self.fail(404, f"There is no {path}.")

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((self.path, body))
        if not self.allowed():
            return
        chat = self.path == "/v1/chat/completions"
        asked = body["messages"][-1]["content"] if chat else body["prompt"]
        if chat and self.server.options.no_template:
            self.fail(400, "The model has no chat template.", param="messages", code="no_chat_template")
        elif not self.refuse(asked):
            self.stream(body, chat, asked)

    def refuse(self, asked):
        if "busy" in asked and not self.server.was_busy:
            self.server.was_busy = True
            self.fail(429, "64 requests are waiting already.", "rate_limit", headers=[("Retry-After", "70")])
        elif "wrong" in asked:
            self.fail(400, "temperature must be from 0 to 2, not 9 <img src=x onerror=alert(8)>",
                      param="temperature")
        else:
            return False
        return True

    def stream(self, body, chat, asked):
        options = self.server.options
        text = next((script for word, script in SCRIPTS.items() if word in asked), ANSWER if chat else
                    ", there was a page of 64 tokens.")
        tokens = pieces_of(text)
        if "long" in asked:
            tokens = tokens * 40
        delay = options.delay if "slow" not in asked and "long" not in asked else 0.02
        self.send_response(200)
        for name, value in (("Content-Type", "text/event-stream"), ("Cache-Control", "no-cache"),
                            ("X-Accel-Buffering", "no"), ("Transfer-Encoding", "chunked")):
            self.send_header(name, value)
        self.end_headers()
        with self.server.state.lock:
            self.server.state.running += 1
        try:
            self.events(body, chat, asked, tokens, delay)
        except OSError:
            self.server.gone += 1
            self.close_connection = True
        finally:
            with self.server.state.lock:
                self.server.state.running -= 1

    def events(self, body, chat, asked, tokens, delay):
        start = time.time()
        head = {"id": "chatcmpl-1" if chat else "cmpl-1", "created": int(start), "model": body["model"],
                "object": "chat.completion.chunk" if chat else "text_completion"}
        prompt = len(pieces_of(json.dumps(body["messages"] if chat else body["prompt"])))
        if chat:
            self.event({**head, "choices": [self.choice(chat, {"role": "assistant", "content": ""})]})
        time.sleep(min(0.12, delay * 8))
        options = body.get("stream_options", {})
        for i, token in enumerate(tokens):
            if "cut" in asked and i == 4:
                time.sleep(0.1)  # what was sent arrives
                self.connection.shutdown(socket.SHUT_RDWR)
                raise OSError("cut")
            if "fails" in asked and i == 4:
                self.event({"error": {"message": "The logits of this request are not numbers.",
                                      "type": "internal_error", "param": None, "code": None}})
                break
            content = {"content": token} if chat else token
            if options.get("include_usage"):
                every = options.get("continuous_usage_stats") and "sparse" not in asked
                head["usage"] = self.usage(prompt, i + 1) if every else None
            self.event({**head, "choices": [self.choice(chat, content, self.logprobs(body, chat, token))]})
            self.server.state.count("generation")
            self.server.state.observe("time_to_first_token" if i == 0 else "inter_token_latency", delay + 1e-4)
            time.sleep(delay)
        else:
            self.event({**head, "choices": [self.choice(chat, {} if chat else "", None, "stop")]})
            if options.get("include_usage"):
                self.event({**head, "choices": [], "usage": self.usage(prompt, len(tokens))})
            self.send_bytes(b"data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")
        state = self.server.state
        for name, value in (("prompt", prompt), ("queries", prompt), ("hits", prompt // 2), ("requests", 1),
                            ("steps", len(tokens))):
            state.count(name, value)
        state.observe("e2e_request_latency", time.time() - start)

    def usage(self, prompt, tokens):
        return {"prompt_tokens": prompt, "completion_tokens": tokens, "total_tokens": prompt + tokens,
                "prompt_tokens_details": {"cached_tokens": prompt // 2}}

    def choice(self, chat, content, logprobs=None, finish=None):
        return {"index": 0, "delta" if chat else "text": content, "logprobs": logprobs, "finish_reason": finish}

    def logprobs(self, body, chat, token):
        if not body.get("logprobs"):
            return None
        draw = random.Random(token)
        own = math.log(draw.choice([0.999, 0.98, 0.93, 0.7, 0.45, 0.2, 0.06]))
        rest = 1 - math.exp(own)
        others = [(token, own)] + [(f" alt{i}", math.log(rest * share)) for i, share in
                                   enumerate((0.5, 0.3, 0.15, 0.05), 1)]
        if not chat:
            return {"tokens": [token], "token_logprobs": [own], "top_logprobs": [dict(others)], "text_offset": [0]}
        return {"content": [{"token": token, "logprob": own, "bytes": list(token.encode()), "top_logprobs": [
            {"token": text, "logprob": value, "bytes": list(text.encode())} for text, value in others]}]}

    def event(self, value):
        self.send_bytes(b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n")

    def send_bytes(self, data):
        """In pieces of changing sizes, each a chunk of HTTP and a packet of its own where it matters."""
        sizes = self.server.sizes
        while data:
            size = sizes[0]
            sizes.append(sizes.pop(0))
            piece, data = data[:size], data[size:]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.flush()


class MockServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, port=0, key="", no_template=False, delay=0.004, busy=False, model="example-8b-w4a4"):
        super().__init__(("127.0.0.1", port), Handler)
        self.options = argparse.Namespace(key=key, no_template=no_template, delay=delay, model=model)
        self.state = State(busy)
        self.requests = []      # (path, body) of every POST
        self.gone = 0           # answers whose client left
        self.was_busy = False
        self.sizes = [1, 40, 3, 7, 200, 5, 2, 61, 1000, 13]

    def handle_error(self, *_):
        pass  # a client that left

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def start(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--key", default="")
    parser.add_argument("--no-template", action="store_true")
    parser.add_argument("--delay", type=float, default=0.02)
    options = parser.parse_args()
    server = MockServer(options.port, options.key, options.no_template, options.delay, busy=True)
    print(server.url, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
