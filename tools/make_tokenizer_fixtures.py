#!/usr/bin/env python3
"""Writes the tokenizer fixtures of tests/data/text with the PyPI package `tokenizers` as the oracle.

    python3 tools/make_tokenizer_fixtures.py --train-text FILE [--out tests/data/text]

--train-text: a few MB of English, from which the byte-level tokenizer of 1024 tokens is trained.
Files: byte_level_1k.json (tokenizer), spm_cases.json and byte_level_cases.json (texts, ids and decoded
text), component_cases.json (patches of the two tokenizers, one component each). Every file of cases names
the version of the package.
"""
import argparse
import json
import pathlib
import random
import sys
import unicodedata

import tokenizers
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

ROOT = pathlib.Path(__file__).resolve().parent.parent
SPM = "models/ref-dense-11m/tokenizer.json"
BYTE_LEVEL = "tests/data/text/byte_level_1k.json"
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
GPT4O = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
         r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+"
         r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}"
         r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")

TEXTS = [
    "", " ", "a", "Hello world", " Hello  world ", "The quick brown fox jumps over the lazy dog.",
    "In 1984, 3.14159 and 1,000,000 were numbers; 12345678 too.",
    "def f(x):\n    if x > 0:\n\t\treturn [i**2 for i in range(x)]  # squares\n\n\nclass A: pass\r\n",
    "#include <vector>\nint main() { std::vector<int> v{1, 2}; return v[0] != 1 ? -1 : 0; }\n",
    "\u4eca\u65e5\u306f\u3001\u4e16\u754c\uff01 \u4f60\u597d\uff0c\u4e16\u754c\u3002 \uc548\ub155\ud558\uc138\uc694",
    "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440! \u0393\u03b5\u03b9\u03ac \u03c3\u03bf\u03c5. "
    "\u0645\u0631\u062d\u0628\u0627",
    "\U0001f600\U0001f44d\U0001f3fd \U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 \U0001f1e9\U0001f1ea",
    "e\u0301 \u00e9 n\u0303o\u0308 Z\u0351\u036b\u0343a\u0328\u0332lgo \ufb01 \u2460 \u212b \uff21",
    "    four", "\t\ttabs\t", "\n\n\n\n", " \n \n  \n", "a\u00a0b\u3000c\u2028d\u180ee\u200bf\u0085g",
    "   leading and trailing   ", "it's I'll WE'RE they'd 's 'S \u2019s o'clock don't",
    "<s>", "</s>", "<s> Hello</s> there <unk>", "a<s>b<s><s>c </s>", "< s> <s", "<0x41><0x0A>",
    "\u2581under\u2581score \u2581\u2581 x", "a" * 200, "\u00e4" * 40 + "\u4e00" * 40,
    "supercalifragilisticexpialidocious" * 8, "!?!?...---***///", "\ufffd\ufffd \u0000 \u0001 \u007f",
    "https://example.org/a?b=c&d=%20#e", "CamelCase snake_case SCREAMING kebab-case 2nd x86_64",
    "\u0130stanbul \u017fi\u017f \u212a \u1e9e \u00df \u03a3\u03a3", "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35 \u0928\u092e\u0938\u094d\u0924\u0947",
]
COMPONENT_TEXTS = [
    "", " ", "Hello  world, it's 12 a.m.", " ab\n\tAB  42\u00bd x_y \u00e9e\u0301 ", "\u2581a \u2581 b", "<s>a b</s> c",
    "aaa bab--abba\na.b\nxxaxx", "\u4e16\u754c \ufb01\u212b\u0130\u00c9 \u24b6\u0661\u203f", "a\u180eb\u0085c \u00a0 d\u2028", "foo  bar FOO foobar bar",
    "The theft of \u017fofa", "...!? \u00bfque\u2014\u201cx\u201d $5+5=10 \U0001f600",
]
SPACES = "\t\n\r\x0b\x0c \x85\xa0\u1680\u180e\u2003\u200b\u2028\u2029\u202f\u205f\u3000"
RANGES = [(0x20, 0x7e), (0x20, 0x7e), (0xa1, 0x17f), (0x300, 0x36f), (0x370, 0x52f), (0x590, 0x6ff), (0x900, 0xdff),
          (0x1e00, 0x20ff), (0x2100, 0x2bff), (0x3040, 0x30ff), (0x4e00, 0x9fff), (0xac00, 0xd7a3),
          (0x1f300, 0x1f6ff), (0, 0xffff), (0x10000, 0x1ffff)]


def random_text(rng, length):
    out = []
    while len(out) < length:
        if rng.random() < 0.15:
            out.append(rng.choice(SPACES))
            continue
        c = chr(rng.randint(*rng.choice(RANGES)))
        # Unassigned code points differ between Unicode versions, surrogates are not text.
        if unicodedata.category(c) not in ("Cn", "Cs"):
            out.append(c)
    return "".join(out)


def random_bytes(rng):
    pool = [b"a", b" ", b"\xc3\xa9", b"\xe4\xb8\x80", b"\xf0\x9f\x98\x80", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80"]
    out = b""
    for _ in range(rng.randint(1, 4)):
        piece = rng.choice(pool) if rng.random() < 0.6 else bytes(rng.randrange(256) for _ in range(rng.randint(1, 3)))
        out += piece[:rng.randint(1, len(piece))]
    return out


def case(tokenizer, text, shown=None):
    entry = dict(shown or {"text": text})
    ids = tokenizer.encode(text).ids
    entry["ids"] = ids
    decoded = tokenizer.decode(ids)
    if decoded != text:
        entry["decoded"] = decoded
    kept = tokenizer.decode(ids, skip_special_tokens=False)
    if kept != decoded:
        entry["kept"] = kept
    return entry


def cases(tokenizer, seed):
    rng = random.Random(seed)
    out = [case(tokenizer, text) for text in TEXTS]
    letters = "".join(rng.choice("etaoinshrdlu") for _ in range(400))
    out.append(case(tokenizer, letters))
    out += [case(tokenizer, random_text(rng, rng.randint(1, 6))) for _ in range(300)]
    for _ in range(300):
        raw = random_bytes(rng)
        out.append(case(tokenizer, raw.decode("utf-8", "replace"), {"bytes": raw.hex()}))
    size = tokenizer.get_vocab_size()
    decodes = []
    for _ in range(100):
        # Low ids: special tokens, and the byte tokens or single bytes.
        ids = [rng.randrange(size if rng.random() < 0.4 else 259) for _ in range(rng.randint(1, 12))]
        decodes.append({"ids": ids, "decoded": tokenizer.decode(ids),
                        "kept": tokenizer.decode(ids, skip_special_tokens=False)})
    return {"cases": out, "decodes": decodes}


def train_byte_level(text):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(LLAMA3), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=1024, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator([text], trainer)
    tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])])
    return tokenizer


def patched(base, patch):
    out = json.loads(json.dumps(base))
    for key, value in patch.items():
        if key == "model":
            out["model"].update(value)
        elif key == "added_tokens":
            out[key] += value
        else:
            out[key] = value
    return out


def added(id, content, **flags):
    token = {"id": id, "content": content, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": False}
    return {**token, **flags}


def split(pattern, behavior="Isolated", invert=False):
    return {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert}


def regex(pattern):
    return {"Regex": pattern}


def normalizer_patches():
    replace = lambda pattern, content: {"type": "Replace", "pattern": pattern, "content": content}
    parts = [{"type": t} for t in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase")]
    parts += [{"type": "Strip", "strip_left": left, "strip_right": right}
              for left, right in ((True, True), (True, False), (False, True))]
    parts += [replace(regex(r"\s+"), "\u2581"), replace(regex("x*"), "-"), replace(regex(r"(?<=a)b"), ""),
              replace({"String": "a"}, "bab"), {"type": "Prepend", "prepend": "ab"},
              {"type": "Sequence", "normalizers": [{"type": "Strip", "strip_left": True, "strip_right": True},
                                                   {"type": "NFKC"}, {"type": "Lowercase"},
                                                   {"type": "Prepend", "prepend": "\u2581"},
                                                   replace({"String": " "}, "\u2581")]}]
    return [{"normalizer": part} for part in parts]


def pre_tokenizer_patches():
    parts = []
    for behavior in ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"):
        for invert in (False, True):
            parts.append(split(regex(r"\s|[,.ab]"), behavior, invert))
        parts.append(split({"String": "a"}, behavior))
    for pattern in (r"\w+|\W", r"\h+|\H", r"(?i)the|of|a\d{,2}|x", "^a|b$", "(?m:a.b)|.", r"[\S]+", r"[^\S]+",
                    r"\p{Han}+|[\w.]", "a(?i)b|c", r"\s+(?!\S)|\u0062", r"\d\D", "(?:aa?)++b*?", GPT4O, QWEN2):
        parts.append(split(regex(pattern)))
    for scheme in ("always", "first", "never"):
        for cut in (True, False):
            parts.append({"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": scheme, "split": cut})
    parts += [{"type": "Digits", "individual_digits": single} for single in (False, True)]
    parts += [{"type": "Whitespace"}, {"type": "WhitespaceSplit"}]
    parts += [{"type": "Punctuation", "behavior": b} for b in ("Isolated", "MergedWithPrevious", "Removed")]
    parts.append({"type": "Sequence", "pretokenizers": [
        {"type": "WhitespaceSplit"}, {"type": "Digits", "individual_digits": True},
        {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": True}]})
    patches = [{"normalizer": None, "pre_tokenizer": part} for part in parts]
    patches.append({"normalizer": {"type": "Strip", "strip_left": True, "strip_right": True},
                    "pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": True}})
    return patches


def model_and_decoder_patches():
    patches = [{"model": model} for model in (
        {"byte_fallback": False}, {"byte_fallback": False, "fuse_unk": False},
        {"byte_fallback": False, "unk_token": None}, {"ignore_merges": True})]
    patches.append({"model": {"ignore_merges": True}, "pre_tokenizer": {"type": "Whitespace"}, "normalizer": None})
    underline = {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}
    strip = lambda start, stop: {"type": "Strip", "content": " ", "start": start, "stop": stop}
    sequences = [[underline, {"type": "ByteFallback"}, strip(1, 0)], [underline, strip(1, 1), {"type": "Fuse"}],
                 [{"type": "Fuse"}, underline, strip(0, 2)],
                 [{"type": "Fuse"}, {"type": "Replace", "pattern": regex("\u2581(?=\\w)"), "content": "_"}],
                 [{"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Replace", "pattern": {"String": "\u2581a"}, "content": "A"}]]
    patches += [{"decoder": None}, {"decoder": underline}, {"decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}}]
    patches += [{"decoder": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": s, "split": True}} for s in ("always", "never")]
    patches += [{"decoder": {"type": "Sequence", "decoders": s}} for s in sequences]
    return patches


def added_token_patches(vocab):
    size = len(vocab)
    return [
        {"added_tokens": [added(size, "foo"), added(size + 1, "foobar", special=True), added(size + 2, "bar", single_word=True)]},
        {"added_tokens": [added(vocab["b"], "b", lstrip=True, rstrip=True), added(size, "bar", lstrip=True),
                          added(vocab.get("\u2581", size + 1), "\u2581", rstrip=True)]},
        {"added_tokens": [added(size, "a.m", normalized=True), added(size + 1, "foo", normalized=True, single_word=True)],
         "normalizer": {"type": "Lowercase"}},
        {"added_tokens": [added(size, "it's", special=True, rstrip=True), added(size + 1, "  ")],
         "pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": True}, "normalizer": None},
    ]


def byte_level_patches(vocab):
    flags = [(p, r) for p in (False, True) for r in (False, True)]
    parts = [{"type": "ByteLevel", "add_prefix_space": p, "use_regex": r, "trim_offsets": True} for p, r in flags]
    parts.append({"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, parts[3]]})
    patches = [{"pre_tokenizer": part} for part in parts]
    patches += added_token_patches(vocab)[:2]
    patches += [{"normalizer": {"type": "NFC"}}, {"model": {"ignore_merges": True}}, {"decoder": None}]
    template = lambda single: {"type": "TemplateProcessing", "single": single, "pair": [],
                               "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]},
                                                  "end": {"id": "end", "ids": [2, 0], "tokens": ["</s>", "<unk>"]}}}
    token = lambda name: {"SpecialToken": {"id": name, "type_id": 0}}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    patches += [{"post_processor": None}, {"post_processor": template([token("<s>"), text, token("end")])}]
    return patches


def decode_or_none(tokenizer, ids):
    """None where the oracle itself panics (Strip of more than a token has)."""
    try:
        return tokenizer.decode(ids)
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        return None


def component_cases(bases):
    def run(name, patches):
        out = []
        for patch in patches:
            tokenizer = Tokenizer.from_str(json.dumps(patched(bases[name], patch)))
            results = []
            for text in COMPONENT_TEXTS:
                ids = tokenizer.encode(text).ids
                results.append([ids] if "pre_tokenizer" in patch else [ids, decode_or_none(tokenizer, ids)])
            out.append({"base": name, "patch": patch, "results": results})
        return out

    spm = normalizer_patches() + pre_tokenizer_patches() + model_and_decoder_patches()
    spm += added_token_patches(bases[SPM]["model"]["vocab"])
    patches = run(SPM, spm) + run(BYTE_LEVEL, byte_level_patches(bases[BYTE_LEVEL]["model"]["vocab"]))
    return {"texts": COMPONENT_TEXTS, "patches": patches}


def write(path, content, oracle=True):
    if oracle:
        content = {"oracle": f"PyPI tokenizers {tokenizers.__version__}", **content}
    path.write_text(json.dumps(content, ensure_ascii=True, separators=(",", ":")) + "\n")
    print(path.name, path.stat().st_size, "bytes", file=sys.stderr)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train-text", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "tests/data/text")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    byte_level = train_byte_level(args.train_text.read_text(encoding="utf-8"))
    write(args.out / "byte_level_1k.json", json.loads(byte_level.to_str()), oracle=False)
    spm = Tokenizer.from_file(str(ROOT / SPM))
    write(args.out / "spm_cases.json", {"base": SPM, **cases(spm, 1)})
    write(args.out / "byte_level_cases.json", {"base": BYTE_LEVEL, **cases(byte_level, 2)})
    bases = {SPM: json.loads(spm.to_str()), BYTE_LEVEL: json.loads(byte_level.to_str())}
    write(args.out / "component_cases.json", component_cases(bases))


if __name__ == "__main__":
    main()
