#!/usr/bin/env python3
"""Compares Atom's tokenizers with the PyPI packages `tokenizers` and `sentencepiece`.

    python3 tools/tokenizer_compare.py texts PROGRAM TEXT TOKENIZER ...
        ids, decoded and streamed text and (against `tokenizers`) offsets of: TEXT in stretches of 10 kB and
        by lines, random Unicode, random bytes, every assigned character, random ids. PROGRAM:
        atom_bench_tokenizer. TOKENIZER: a tokenizer.json, a tokenizer.model, or FOLDER=tokenizer.json, where
        the program reads the folder and the package the file.
    python3 tools/tokenizer_compare.py train TEXT FOLDER
        writes a tokenizer of each kind, trained on TEXT, for `texts`
    python3 tools/tokenizer_compare.py vectors PROGRAM FOLDER WORK
        the test vectors of llama.cpp in FOLDER (NAME.gguf or Qwen2's files, NAME.gguf.inp, NAME.gguf.out)
    python3 tools/tokenizer_compare.py speed PROGRAM TEXT TOKENIZER ...
        megabytes per second of processor time: the program and the package in turn
"""
import json
import pathlib
import random
import struct
import subprocess
import sys
import time
import unicodedata

from tokenizer_oracles import JsonOracle, PieceOracle, Tokenizer, json_tokenizers, piece_models, random_text

SHOWN = 3  # differences of a kind that are printed


def run(program, tokenizer, what, data):
    return subprocess.run([program, str(tokenizer), what], input=data, stdout=subprocess.PIPE, check=True).stdout


def raw_bytes(rng):
    pool = [b"a", b" ", b"\xc3\xa9", b"\xe4\xb8\x80", b"\xf0\x9f\x98\x80", b"\xed\xa0\x80", b"\xc0\x80"]
    return b"".join(rng.choice(pool) if rng.random() < .5 else bytes([rng.randrange(1, 256)]) for _ in range(rng.randint(1, 40)))


def groups(text):
    """Name -> texts as bytes without zeros."""
    rng = random.Random(9)
    every = [chr(c) for c in range(1, 0x110000) if unicodedata.category(chr(c)) not in ("Cn", "Cs", "Co")]
    stretches = [text[i:i + 10000] for i in range(0, len(text), 10000)]
    lines = text.splitlines()
    encoded = {"stretches": stretches, "lines": rng.sample(lines, min(5000, len(lines))),
               "unicode": [random_text(rng, rng.randint(1, 40)) for _ in range(5000)],
               "characters": ["".join("a" + c + " b " + c for c in every[i:i + 64]) for i in range(0, len(every), 64)]}
    out = {name: [t.replace("\0", "").encode() for t in texts] for name, texts in encoded.items()}
    out["bytes"] = [raw_bytes(rng) for _ in range(5000)]
    return out


def differences(expected, got):
    return [i for i, want in enumerate(expected) if want is not None and want != got[i]]


def show(label, wrong, texts, expected, got):
    for i in wrong[:SHOWN]:
        want, have = expected[i], got[i]
        at = next((k for k, (a, b) in enumerate(zip(want, have)) if a != b), min(len(want), len(have)))
        print("   ", label, ascii(texts[i][:80]), "at", at, "package", ascii(want[at:at + 6]), "atom", ascii(have[at:at + 6]))


def compare_encoding(name, program, path, oracle, texts):
    plain = [t.decode("utf-8", "replace") for t in texts]
    expected = [oracle.encode_spans(t) for t in plain]
    lines = run(program, path, "--spans", b"".join(t + b"\0" for t in texts)).decode().split("\n")
    got = [[tuple(map(int, word.split(","))) for word in line.split()] if line != "error" else [] for line in lines]
    ids = [want and [entry[0] for entry in want] for want in expected]
    got_ids = [[entry[0] for entry in have] for have in got]
    wrong = differences(ids, got_ids)
    moved = [i for i in differences(expected, got) if i not in set(wrong)]
    known = sum(want is not None for want in expected)
    print(f"{name:32} texts {known:6}  ids {sum(map(len, filter(None, ids))):8}  texts with other ids {len(wrong):4}"
          f"  other spans {len(moved):4}", flush=True)
    show("ids", wrong, plain, ids, got_ids)
    show("spans", moved, plain, expected, got)
    return [want for want in ids if want]


def compare_decoding(name, program, path, oracle, lists):
    expected = [oracle.decode(ids) for ids in lists]
    lists = [ids for ids, text in zip(lists, expected) if "\0" not in text]
    expected = [text for text in expected if "\0" not in text]
    data = "".join(" ".join(map(str, ids)) + "\n" for ids in lists).encode()
    for what in ("--decode", "--stream"):
        got = run(program, path, what, data).decode().split("\0")
        wrong = differences(expected, got)
        print(f"{name + ' ' + what:32} texts {len(lists):6}  other text {len(wrong):4}", flush=True)
        show("text", wrong, [str(ids) for ids in lists], expected, got)


def texts(program, text, *paths):
    all_groups = groups(pathlib.Path(text).read_text(encoding="utf-8"))
    rng = random.Random(11)
    for path in paths:
        path, _, file = path.partition("=")
        oracle = PieceOracle(path) if ".model" in path else JsonOracle(Tokenizer.from_file(file or path))
        name = pathlib.Path(path).parent.name + "/" + pathlib.Path(path).name
        lists = []
        for group, members in all_groups.items():
            lists += compare_encoding(f"{name} {group}", program, path, oracle, members)
        size = oracle.size()
        lists = rng.sample(lists, min(1000, len(lists))) + [[rng.randrange(size) for _ in range(rng.randint(1, 30))] for _ in range(4000)]
        compare_decoding(name, program, path, oracle, lists)


def train(text, folder):
    text = pathlib.Path(text).read_text(encoding="utf-8")[:400_000]
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = piece_models(folder, text, 2000, rules=False)
    for name, tokenizer in json_tokenizers(text, 2000, {k: paths[k] for k in ("t5", "gemma")}).items():
        tokenizer.save(str(folder / f"{name}.json"))


def read_gguf(path):
    """The key-value pairs of a GGUF file."""
    data = path.read_bytes()
    at = 24

    def take(form):
        nonlocal at
        value, = struct.unpack_from("<" + form, data, at)
        at += struct.calcsize("<" + form)
        return value

    def string():
        nonlocal at
        size = take("Q")
        at += size
        return data[at - size:at].decode()

    forms = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}

    def value(kind):
        if kind == 8:
            return string()
        if kind == 9:
            inner = take("I")
            return [value(inner) for _ in range(take("Q"))]
        return take(forms[kind])

    return {string(): value(take("I")) for _ in range(struct.unpack_from("<Q", data, 16)[0])}


def write_from_gguf(fields, work):
    """A folder with tokenizer.model or vocab.json and merges.txt of what the file holds."""
    tokens = fields["tokenizer.ggml.tokens"]
    work.mkdir(parents=True, exist_ok=True)
    if fields["tokenizer.ggml.model"] == "gpt2":
        (work / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}))
        (work / "merges.txt").write_text("\n".join(fields["tokenizer.ggml.merges"]) + "\n", encoding="utf-8")
        return work
    from sentencepiece import sentencepiece_model_pb2
    proto = sentencepiece_model_pb2.ModelProto()
    for token, score, kind in zip(tokens, fields["tokenizer.ggml.scores"], fields["tokenizer.ggml.token_type"]):
        if not token.startswith("[PAD"):  # llama.cpp's filling
            proto.pieces.add(piece=token, score=score, type=2 if token == "<unk>" else kind)
    proto.trainer_spec.model_type, proto.trainer_spec.byte_fallback = 2, True
    proto.normalizer_spec.remove_extra_whitespaces = False
    (work / "tokenizer.model").write_bytes(proto.SerializeToString())
    return work


def vectors(program, folder, work):
    folder, work = pathlib.Path(folder), pathlib.Path(work)
    qwen = work / "qwen2"
    qwen.mkdir(parents=True, exist_ok=True)
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        (qwen / name).write_bytes((folder / f"qwen2_{name}").read_bytes())
    found = {"qwen2": qwen, "deepseek-r1-qwen": qwen}
    for path in sorted(folder.glob("*.gguf")):
        name = path.stem.removeprefix("ggml-vocab-")
        found[name] = write_from_gguf(read_gguf(path), work / name)
    for name, tokenizer in found.items():
        cases = (folder / f"ggml-vocab-{name}.gguf.inp").read_bytes().split(b"\n__ggml_vocab_test__\n")
        expected = (folder / f"ggml-vocab-{name}.gguf.out").read_text().split("\n")
        got = run(program, tokenizer, "--plain", b"".join(c + b"\0" for c in cases)).decode().split("\n")
        wrong = [i for i in range(len(cases)) if expected[i].split() != got[i].split()]
        print(f"{name:20} texts {len(cases)}  texts with other ids {len(wrong)}")
        show("ids", wrong, [ascii(c) for c in cases], [e.split() for e in expected], [g.split() for g in got])


def speed(program, text, *paths):
    content = pathlib.Path(text).read_text(encoding="utf-8")
    for path in paths:
        print(path, "atom:", run(program, path, text, b"").decode().strip(), flush=True)
        tokenizer = PieceOracle(path).processor if ".model" in path else Tokenizer.from_file(path)
        best = 1e300
        for _ in range(3):
            start = time.process_time()
            tokenizer.encode(content)
            best = min(best, time.process_time() - start)
        print(path, "package:", f"{len(content.encode()) / 1e6 / best:.1f} MB/s", flush=True)


if __name__ == "__main__":
    commands = {"texts": texts, "train": train, "vectors": vectors, "speed": speed}
    if len(sys.argv) < 4 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    commands[sys.argv[1]](*sys.argv[2:])
