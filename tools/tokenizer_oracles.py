#!/usr/bin/env python3
"""The PyPI packages `tokenizers` and `sentencepiece` as oracles of Atom's tokenizers.

    python3 tools/tokenizer_oracles.py fixtures TEXT
        trains a tiny tokenizer of each kind on TEXT and writes tests/data/text/kinds
    python3 tools/tokenizer_oracles.py spans
        writes spans.json there: characters behind the ids of some cases, and texts of random ids
    python3 tools/tokenizer_oracles.py long
        writes tests/data/text/long_text.json: how many ids the texts of examples/text have together, and the SHA-256 of
        these (int32, little-endian), for the kinds; for two tokenizers also those of 10 MB, the texts 19 times

tokenizer_compare.py compares larger ones with them.
"""
import hashlib
import json
import os
import pathlib
import random
import struct
import sys
import tempfile
import unicodedata

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("RAYON_NUM_THREADS", "1")
import sentencepiece
import tokenizers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

ROOT = pathlib.Path(__file__).resolve().parent.parent
KINDS = ROOT / "tests/data/text/kinds"
RULES = "FB01\t66 69\nFF21\t41\n2026\t2E 2E 2E\nA0\t20\n9\t20\nA\t20\n3000\t20\n200B\t\n65 301\tE9\n65 301 302\t1EC7\n"
TEXTS = [
    "", " ", "a", "Hello world", "  Hello   world  ", "The quick brown fox jumps over the lazy dog.",
    "In 1984, 3.14159 were numbers; don't we'll THEY'RE 's.", "def f(x):\n\treturn [i**2 for i in x]\r\n\r\n",
    "\u4eca\u65e5\u306f\u3001\u4e16\u754c\uff01", "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440! \u0393\u03b5\u03b9\u03ac",
    "\U0001f600\U0001f44d\U0001f3fd x \U0001f468\u200d\U0001f469\u200d\U0001f467", "e\u0301 e\u0301\u0302 \u00e9 n\u0303o\u0308 a\u0328\u0332 \ufb01 \uff21 \u2026 \u1ec7",
    "a\u00a0b\u3000c\u2028d\u200bf\u0085g \u200b \u00a0", "\t\n \n  ", "<s>", "a<s>b </s> c", "<sep>", "x<sep> <sep>y <sep><sep>",
    "\u2581under\u2581score \u2581\u2581 x", "a" * 60, "supercalifragilisticexpialidocious", "!?!?...---***///", "\ufffd \u0001 \u007f",
    "\u0130stanbul \u017fi\u017f \u212a \u1e9e \u00df \u03a3\u03a3", "<0x41> <unk> [UNK] [CLS]", "caf\u00e9 CAF\u00c9 na\u00efve \u00c5ngstr\u00f6m", "\u0915\u094d\u0937\u093f \u0e2a\u0e27\u0e31",
    "the theft of the there", "aab abb ab ba", "\u0000a", "fi \ufb01\ufb01 \ufb01n",
]
RANGES = [(0x20, 0x7e)] * 3 + [(0xa0, 0x17f), (0x300, 0x36f), (0x370, 0x52f), (0x590, 0x6ff), (0x900, 0xdff), (0x1e00, 0x20ff),
          (0x2100, 0x2bff), (0x3040, 0x30ff), (0x4e00, 0x9fff), (0xac00, 0xd7a3), (0xff00, 0xffef), (0x1f300, 0x1f6ff), (0, 0x1ffff)]
BERT_SPECIALS = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]


def random_text(rng, length):
    out = []
    while len(out) < length:
        c = rng.choice(" \n\t\u00a0\u3000") if rng.random() < 0.12 else chr(rng.randint(*rng.choice(RANGES)))
        if unicodedata.category(c) not in ("Cn", "Cs") and c != "\0":
            out.append(c)
    return "".join(out)


def random_bytes(rng):
    pool = [b"a", b" ", b"\xc3\xa9", b"\xe4\xb8\x80", b"\xf0\x9f\x98\x80", b"\xed\xa0\x80", b"\xc0\x80"]
    raw = b"".join(rng.choice(pool) if rng.random() < .5 else bytes([rng.randrange(1, 256)]) for _ in range(rng.randint(1, 12)))
    return raw.decode("utf-8", "replace")


def train_piece_model(path, text, **options):
    defaults = {"vocab_size": 400, "character_coverage": 0.9995, "num_threads": 2, "minloglevel": 2,
                "hard_vocab_limit": False, "input_sentence_size": 20000, "max_sentence_length": 100000}
    with tempfile.TemporaryDirectory() as folder:
        sample = pathlib.Path(folder) / "text"
        sample.write_text("\n".join(line for line in text.splitlines() if line.strip()), encoding="utf-8")
        rules = pathlib.Path(folder) / "rules.tsv"
        rules.write_text(RULES, encoding="utf-8")
        if options.pop("own_rules", False):
            options["normalization_rule_tsv"] = str(rules)
        prefix = pathlib.Path(folder) / "m"
        sentencepiece.SentencePieceTrainer.train(input=str(sample), model_prefix=str(prefix), **{**defaults, **options})
        path.write_bytes(prefix.with_suffix(".model").read_bytes())


def piece_models(folder, text, size, rules):
    """Name -> file: the kinds of tokenizer.model."""
    own = {"own_rules": True} if rules else {"normalization_rule_name": "nmt_nfkc"}
    kinds = {
        "llama": dict(model_type="bpe", byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
                      split_digits=True, allow_whitespace_only_pieces=True),
        "bpe": dict(model_type="bpe", user_defined_symbols=["<sep>", "aab"], **own),
        "t5": dict(model_type="unigram", pad_id=0, eos_id=1, unk_id=2, bos_id=-1, **own),
        "gemma": dict(model_type="unigram", byte_fallback=True, add_dummy_prefix=False, remove_extra_whitespaces=False,
                      normalization_rule_name="identity", user_defined_symbols=["<sep>", "\n\n", "aab"]),
    }
    out = {}
    for name, options in kinds.items():
        out[name] = folder / f"{name}.model"
        if not out[name].exists():
            train_piece_model(out[name], text, vocab_size=size, **options)
    return out


def bert(text, size):
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.train_from_iterator(text.splitlines(), trainers.WordPieceTrainer(vocab_size=size, special_tokens=BERT_SPECIALS, show_progress=False))
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    return tokenizer


def roberta(text, size):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(text.splitlines(), trainers.BpeTrainer(
        vocab_size=size, special_tokens=["<s>", "<pad>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return tokenizer


def unigram_json(path, byte_fallback=False):
    """The tokenizer.json that transformers makes of a unigram tokenizer.model."""
    processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
    proto = __import__("sentencepiece.sentencepiece_model_pb2", fromlist=["ModelProto"]).ModelProto()
    proto.ParseFromString(path.read_bytes())
    tokenizer = Tokenizer(models.Unigram([(p.piece, p.score) for p in proto.pieces], processor.unk_id(), byte_fallback))
    charsmap = proto.normalizer_spec.precompiled_charsmap
    parts = [normalizers.Precompiled(charsmap)] if charsmap else []
    tokenizer.normalizer = normalizers.Sequence(parts + [normalizers.Replace(tokenizers.Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


def word_level(text):
    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKD(), normalizers.StripAccents()])
    tokenizer.pre_tokenizer = pre_tokenizers.CharDelimiterSplit(" ")
    tokenizer.decoder = decoders.CTC(pad_token="the", word_delimiter_token="|")
    tokenizer.train_from_iterator(text.splitlines(), trainers.WordLevelTrainer(vocab_size=200, special_tokens=["[UNK]"], show_progress=False))
    return tokenizer


def suffix_words(text):
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.ByteLevel()
    tokenizer.decoder = decoders.BPEDecoder(suffix="e")
    tokenizer.train_from_iterator(text.splitlines(), trainers.BpeTrainer(vocab_size=300, special_tokens=["[UNK]"], show_progress=False))
    return tokenizer


def json_tokenizers(text, size, unigrams):
    out = {"bert": bert(text, size), "roberta": roberta(text, size), "words": word_level(text), "suffix": suffix_words(text)}
    for name, path in unigrams.items():
        out[f"unigram_{name}"] = unigram_json(path, byte_fallback=name == "gemma")
    cased = bert(text, size)
    cased.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=True, handle_chinese_chars=False)
    cased.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    out["bert_cased"] = cased
    return out


class PieceOracle:
    """sentencepiece, without the texts in which special pieces are written (found as such only by Atom)."""

    def __init__(self, path):
        self.processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
        special = [i for i in range(self.processor.get_piece_size()) if self.processor.is_control(i) or self.processor.is_unknown(i)]
        self.special = [self.processor.id_to_piece(i) for i in special]
        self.unknown = self.processor.unk_id()

    def encode(self, text):
        return None if any(piece in text for piece in self.special) else self.processor.encode(text)

    def encode_spans(self, text):  # begin and end in characters
        if self.encode(text) is None:
            return None
        index = [i for i, c in enumerate(text) for _ in c.encode()] + [len(text)]
        proto = self.processor.encode(text, return_type="proto")
        return [(piece.id, index[piece.begin], index[piece.end]) for piece in proto.pieces]

    def decode(self, ids):  # unknown pieces are special tokens here, and left out
        return self.processor.decode([i for i in ids if i != self.unknown])

    def size(self):
        return self.processor.get_piece_size()


class JsonOracle:
    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def encode(self, text):
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def encode_spans(self, text):  # begin and end in characters
        encoding = self.tokenizer.encode(text, add_special_tokens=False)
        return [(i, *span) for i, span in zip(encoding.ids, encoding.offsets)]

    def decode(self, ids):
        return self.tokenizer.decode(ids)

    def size(self):
        return self.tokenizer.get_vocab_size()


def cases_of(oracle, texts):
    out = []
    for text in texts:
        ids = oracle.encode(text)
        if ids is not None:
            out.append({"text": text, "ids": ids, "decoded": oracle.decode(ids)})
    return out


def fixtures(sample):
    text = "\n".join(TEXTS[3:] * 3) + "\n" + sample.read_text(encoding="utf-8")[:200000]
    KINDS.mkdir(parents=True, exist_ok=True)
    rng = random.Random(5)
    texts = TEXTS + [random_text(rng, rng.randint(1, 8)) for _ in range(20)] + [random_bytes(rng) for _ in range(10)]
    paths = piece_models(KINDS, text, 400, rules=True)
    found = {path.name: PieceOracle(path) for path in paths.values()}
    for name, tokenizer in json_tokenizers(text, 300, {k: paths[k] for k in ("t5", "gemma")}).items():
        (KINDS / f"{name}.json").write_text(json.dumps(json.loads(tokenizer.to_str()), separators=(",", ":")) + "\n")
        found[f"{name}.json"] = JsonOracle(Tokenizer.from_file(str(KINDS / f"{name}.json")))
    result = {"oracle": f"PyPI tokenizers {tokenizers.__version__}, sentencepiece {sentencepiece.__version__}",
              "files": {name: cases_of(oracle, texts) for name, oracle in found.items()}}
    (KINDS / "cases.json").write_text(json.dumps(result, separators=(",", ":")) + "\n")
    print(sum(f.stat().st_size for f in KINDS.iterdir()), "bytes in", KINDS)


def spans():
    cases = json.loads((KINDS / "cases.json").read_text())["files"]
    rng = random.Random(7)
    out = {}
    for name, entries in cases.items():
        oracle = PieceOracle(KINDS / name) if name.endswith(".model") else JsonOracle(Tokenizer.from_file(str(KINDS / name)))
        found = [(i, oracle.encode_spans(entries[i]["text"])) for i in range(3, len(entries), 2)]
        lists = [[rng.randrange(oracle.size()) for _ in range(rng.randint(1, 12))] for _ in range(20)]
        out[name] = {"spans": [[i, [at for _, *span in tokens for at in span]] for i, tokens in found if len(tokens) < 40],
                     "random": [[ids, oracle.decode(ids)] for ids in lists]}
    (KINDS / "spans.json").write_text(json.dumps(out, separators=(",", ":")) + "\n")


def long_text():
    names = ["examples/text/calibration.txt", "examples/text/wiki_eval.txt"]
    text = "".join((ROOT / name).read_bytes().decode() for name in names)

    def digest(path, times):
        oracle = PieceOracle(path) if path.suffix == ".model" else JsonOracle(Tokenizer.from_file(str(path)))
        ids = oracle.encode(text * times)
        return {"file": str(path.relative_to(ROOT)), "times": times, "ids": len(ids),
                "sha256": hashlib.sha256(struct.pack(f"<{len(ids)}i", *ids)).hexdigest()}

    large = [ROOT / "models/ref-dense-11m/tokenizer.json", ROOT / "tests/data/text/byte_level_1k.json"]
    kinds = sorted(path for path in KINDS.iterdir() if path.name not in ("cases.json", "spans.json"))
    result = {"oracle": f"PyPI tokenizers {tokenizers.__version__}, sentencepiece {sentencepiece.__version__}", "texts": names,
              "cases": [digest(path, 1) for path in large + kinds] + [digest(path, 19) for path in large]}
    (KINDS.parent / "long_text.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:] == ["spans"]:
        spans()
    elif sys.argv[1:] == ["long"]:
        long_text()
    elif len(sys.argv) == 3 and sys.argv[1] == "fixtures":
        fixtures(pathlib.Path(sys.argv[2]))
    else:
        sys.exit(__doc__)
