#!/usr/bin/env python3
"""Loads a running `atom serve` for a long time with everything that clients do, and fails where memory grows or an answer is lost.

    atom serve out/w4a8 --port 8001 & tools/soak.py http://127.0.0.1:8001 --pid $! --seconds 3600

Clients send streams and whole answers of prompts of all lengths, several choices, logprobs, stop strings, wrong requests,
half requests, and leave at any point. Fails (exit code 1)

* when a request that its client stays for ends in neither a whole answer nor an error;
* when, at the end, sequences or pages of the KV-cache are still held;
* when resident memory grows: a line through the samples of the second half rises by more than three times their deviation
  from it, and 2 % of the memory in the middle, which an allocator may keep for one more peak. The first half fills caches.
  A leak of less shows in a longer run: the rise grows with time, what is allowed does not.
"""
import argparse
import collections
import http.client
import json
import random
import socket
import sys
import threading
import time
import urllib.parse

PATIENCE = 300  # seconds without a byte: a hang
WORDS = "the city of a river and old stone bridges where people sell bread under the hill in winter".split()
WRONG = [b"", b"{", b"[]", b'{"prompt": "a", "n": -1}', b'{"prompt": "a", "temperature": 1e30}', b'{"prompt": "a", "stop": [3]}',
         b'{"prompt": "a", "max_tokens": 9223372036854775808}', b'{"prompt": "\\ud800"}', b"[" * 5000, b" " * 100000,
         b'{"prompt": "a", "model": "nobody"}', b'{"prompt": [[1, -1]]}', b'{"prompt": "a", "logit_bias": {"x": 1}}']


class Lost(Exception):
    """An answer that is neither whole nor an error."""


def judge(samples):
    """(rise, allowed) in bytes of the second half of (seconds, bytes): a line through it, and what it may rise."""
    half = samples[len(samples) // 2:]
    if len(half) < 3:
        return 0.0, 0.0
    mean_t = sum(t for t, _ in half) / len(half)
    mean_b = sum(b for _, b in half) / len(half)
    spread = sum((t - mean_t) ** 2 for t, _ in half)
    slope = sum((t - mean_t) * (b - mean_b) for t, b in half) / spread
    residual = (sum((b - mean_b - slope * (t - mean_t)) ** 2 for t, b in half) / (len(half) - 2)) ** 0.5
    return slope * (half[-1][0] - half[0][0]), 3 * residual + 0.02 * half[0][1]


def check_stream(text):
    """The last event is [DONE] or an error, and nothing follows it."""
    events = text.split("\n\n")
    if events[-1] != "" or len(events) < 2 or any(not event.startswith("data: ") for event in events[:-1]):
        raise Lost(f"a stream ends in {text[-200:]!r}")
    last = events[-2][6:]
    if last == "[DONE]":
        return "done"
    if "error" in json.loads(last):
        return "error"
    raise Lost(f"a stream ends in {text[-200:]!r}")


class Client(threading.Thread):
    def __init__(self, server, key, context, seed, until):
        super().__init__()
        self.server, self.context, self.until = server, context, until
        self.headers = {"Content-Type": "application/json", **({"Authorization": "Bearer " + key} if key else {})}
        self.random = random.Random(seed)
        self.counts = collections.Counter()
        self.failures = []
        self.connection = None

    def run(self):
        actions = [(self.complete, 6), (self.leave, 3), (self.wrong, 2), (self.half, 1), (self.tokenize, 1), (self.look, 1)]
        while time.monotonic() < self.until:
            action = self.random.choices([a for a, _ in actions], [weight for _, weight in actions])[0]
            try:
                self.counts[action()] += 1
            except (OSError, http.client.HTTPException, ValueError, Lost) as problem:
                self.failures.append(f"{action.__name__}: {type(problem).__name__}: {problem}")
                self.close()
        self.close()

    def close(self):
        if self.connection:
            self.connection.close()
        self.connection = None

    def ask(self, method, path, body=None):
        if self.connection is None or self.random.random() < 0.1:
            self.close()
            self.connection = http.client.HTTPConnection(*self.server, timeout=PATIENCE)
        self.connection.request(method, path, body, self.headers)
        return self.connection.getresponse()

    def body(self):
        r = self.random
        # Short ones most of the time, and every length that the context holds.
        new = r.randint(1, 32)
        room = self.context - new
        length = r.randint(1, min(64, room)) if r.random() < 0.7 else r.randint(1, room)
        body = {"max_tokens": new, "seed": r.getrandbits(31), "stream": r.random() < 0.5, "temperature": r.choice([0, 0.7, 1])}
        body["prompt"] = [r.randint(3, 200) for _ in range(length)] if r.random() < 0.5 else " ".join(r.choices(WORDS, k=max(1, length // 4)))
        for name, value in (("n", r.randint(2, 4)), ("logprobs", r.randint(0, 5)), ("stop", r.sample(WORDS, 3)), ("echo", True),
                            ("frequency_penalty", 0.5), ("ignore_eos", True)):
            if r.random() < 0.2:
                body[name] = value
        return body

    def complete(self):
        body = self.body()
        answer = self.ask("POST", "/v1/completions", json.dumps(body))
        text = answer.read().decode()
        if answer.status in (429, 503):
            if not answer.getheader("Retry-After"):
                raise Lost(f"{answer.status} without Retry-After")
            time.sleep(0.2)
            return "refused"
        if answer.status != 200:
            if "error" not in json.loads(text):
                raise Lost(f"{answer.status} without an error: {text[:200]}")
            return "error"
        if body["stream"]:
            return "stream " + check_stream(text)
        choices = json.loads(text)["choices"]
        if len(choices) != body.get("n", 1) or any(choice["finish_reason"] not in ("stop", "length") for choice in choices):
            raise Lost(f"an answer is not whole: {text[:200]}")
        return "done"

    def leave(self):
        """A client that goes before, while or after its answer comes."""
        self.close()
        with socket.create_connection(self.server, timeout=PATIENCE) as peer:
            body = json.dumps(self.body()).encode()
            peer.sendall(self.head("POST", len(body)) + body)
            time.sleep(self.random.random() * 0.05)
            if self.random.random() < 0.5:
                peer.recv(self.random.randint(1, 2000))
            if self.random.random() < 0.3:  # as one that crashes
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        return "left"

    def half(self):
        self.close()
        with socket.create_connection(self.server, timeout=PATIENCE) as peer:
            whole = self.head("POST", 100) + b'{"prompt": "a"'
            peer.sendall(whole[:self.random.randint(1, len(whole))])
        return "half"

    def head(self, method, length):
        fields = {"Host": "localhost", "Content-Length": str(length), **self.headers}
        return (f"{method} /v1/completions HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in fields.items()) + "\r\n").encode()

    def wrong(self):
        answer = self.ask("POST", "/v1/completions", self.random.choice(WRONG))
        if not 400 <= answer.status < 500 or "error" not in json.loads(answer.read()):
            raise Lost(f"a wrong request gets {answer.status}")
        return "wrong"

    def tokenize(self):
        answer = self.ask("POST", "/tokenize", json.dumps({"prompt": " ".join(self.random.choices(WORDS, k=20))}))
        if "tokens" not in json.loads(answer.read()):
            raise Lost("no tokens")
        return "tokenize"

    def look(self):
        path = self.random.choice(["/metrics", "/health", "/v1/models", "/"])
        answer = self.ask("GET", path)
        if answer.status != 200 or not answer.read():
            raise Lost(f"{path} gets {answer.status}")
        return "look"


def get(server, key, path):
    connection = http.client.HTTPConnection(*server, timeout=PATIENCE)
    connection.request("GET", path, headers={"Authorization": "Bearer " + key} if key else {})
    text = connection.getresponse().read().decode()
    connection.close()
    return text


def resident(pid):
    """Bytes of memory that process has."""
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS:"))


def still_held(server, key):
    """Lines of the metrics that are not 0 once everybody has gone."""
    names = ("atom_requests_running ", "atom_requests_waiting ", 'atom_kv_pages{state="held"} ')
    for _ in range(100):
        held = [line for line in get(server, key, "/metrics").splitlines() if line.startswith(names) and not line.endswith(" 0")]
        if not held:
            return []
        time.sleep(0.1)
    return held


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="http://HOST:PORT of the server")
    parser.add_argument("--pid", type=int, required=True, help="process of the server, whose memory is watched")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--key", default="", help="API key of the server")
    args = parser.parse_args()
    url = urllib.parse.urlsplit(args.url)
    server = (url.hostname, url.port or 80)
    context = json.loads(get(server, args.key, "/v1/models"))["data"][0]["max_model_len"]
    begin = time.monotonic()
    clients = [Client(server, args.key, context, args.seed * 1000 + i, begin + args.seconds) for i in range(args.clients)]
    for client in clients:
        client.start()
    samples = []
    while any(client.is_alive() for client in clients):
        if time.monotonic() < begin + args.seconds:  # of the load alone
            samples.append((time.monotonic() - begin, resident(args.pid)))
        time.sleep(max(0.05, args.seconds / 400))
    counts = sum((client.counts for client in clients), collections.Counter())
    failures = [failure for client in clients for failure in client.failures]
    failures += [f"still there at the end: {line}" for line in still_held(server, args.key)]
    rise, allowed = judge(samples)
    if rise > allowed:
        failures.append(f"memory rises by {rise / 2**20:.2f} MiB in the second half; {allowed / 2**20:.2f} MiB are allowed")
    print(f"{sum(counts.values())} requests in {time.monotonic() - begin:.0f} s: " +
          ", ".join(f"{count} {name}" for name, count in counts.most_common()))
    mib = [bytes_ / 2**20 for _, bytes_ in samples]
    print(f"resident memory, MiB: {mib[0]:.1f} at the start, {mib[len(mib) // 2]:.1f} in the middle, {mib[-1]:.1f} at the end, "
          f"at most {max(mib):.1f}; second half: a rise of {rise / 2**20:.2f}, of {allowed / 2**20:.2f} allowed")
    for failure in failures[:20]:
        print("failed:", failure, file=sys.stderr)
    if failures:
        print(f"{len(failures)} failures", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
