#!/usr/bin/env python3
"""Makes tests/data/gguf: tiny GGUF files with the values that the PyPI package gguf reads from them.

  llama-f32, -f16, -bf16, -q8_0, -q4_0.gguf   one tiny LLaMA with grouped heads, biases and a tied head
  llama/                                      the same weights as config.json and model.safetensors (BF16, vectors in F32)
  q8_0.f32, q4_0.f32                          gguf.quants.dequantize of blk.0.ffn_down.weight
  spm.gguf                                    the vocabulary of tests/data/text/kinds/llama.model
  bpe.gguf                                    the vocabulary of tests/data/text/byte_level_1k.json

Weights are random and round to BF16, so that F32, F16 and BF16 files hold equal values where they are small enough.
Same seed, same files. Needs gguf, numpy and safetensors:
  python tools/make_gguf_fixtures.py [--out tests/data/gguf] [--all MODEL_FOLDER TYPE FILE]

--all writes a whole LLaMA folder (config.json, model.safetensors, tokenizer.model) as one GGUF file.
"""

import argparse
import json
import pathlib
import struct

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import MODEL_ARCH, GGUFWriter, get_tensor_name_map, quants

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 40, "hidden_size": 32,
    "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 8, "hidden_act": "silu", "max_position_embeddings": 64, "rms_norm_eps": 1e-05,
    "tie_word_embeddings": True, "rope_theta": 10000.0, "attention_bias": True, "bos_token_id": 1, "eos_token_id": 2,
}


def bf16_bits(values):
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bf16(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


def gguf_name(name, layers):
    """As the package maps Hugging Face's names."""
    return get_tensor_name_map(MODEL_ARCH.LLAMA, layers).get_name(name, try_suffixes=(".weight", ".bias"))


def interleaved(values, heads):
    """The order of rows in which llama.cpp keeps q and k."""
    shape = values.shape
    return values.reshape(heads, 2, shape[0] // heads // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def draw(seed):
    c, rng = CONFIG, np.random.default_rng(seed)
    h, f, q, k = c["hidden_size"], c["intermediate_size"], 32, 16
    shapes = {"model.embed_tokens.weight": (c["vocab_size"], h), "model.norm.weight": (h,)}
    for module, shape in {"self_attn.q_proj": (q, h), "self_attn.k_proj": (k, h), "self_attn.v_proj": (k, h),
                          "self_attn.o_proj": (h, q), "mlp.gate_proj": (f, h), "mlp.up_proj": (f, h),
                          "mlp.down_proj": (h, f), "input_layernorm": (h,),
                          "post_attention_layernorm": (h,)}.items():
        shapes[f"model.layers.0.{module}.weight"] = shape
        if module[10:] in ("q_proj", "k_proj", "v_proj"):
            shapes[f"model.layers.0.{module}.bias"] = shape[:1]
    tensors = {}
    for name, shape in shapes.items():
        norm = name.endswith("norm.weight")
        values = rng.standard_normal(shape) * (0.1 if norm else 0.15) + (1 if norm else 0)
        tensors[name] = from_bf16(bf16_bits(values))
    return tensors


def read_safetensors(path):
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    out = {}
    for name, info in json.loads(data[8:8 + length]).items():
        if name == "__metadata__":
            continue
        begin, end = info["data_offsets"]
        raw = data[8 + length + begin:8 + length + end]
        if info["dtype"] == "BF16":
            values = from_bf16(np.frombuffer(raw, np.uint16))
        else:
            values = np.frombuffer(raw, {"F32": np.float32, "F16": np.float16}[info["dtype"]]).astype(np.float32)
        out[name] = values.reshape(info["shape"])
    return out


def write_safetensors(path, tensors):
    header, data = {}, b""
    for name, values in tensors.items():
        vector = values.ndim == 1  # F32, as GGUF files have them
        raw = values.astype("<f4").tobytes() if vector else bf16_bits(values).tobytes()
        header[name] = {"dtype": "F32" if vector else "BF16", "shape": list(values.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def add_sizes(writer, c):
    writer.add_context_length(c["max_position_embeddings"])
    writer.add_embedding_length(c["hidden_size"])
    writer.add_block_count(c["num_hidden_layers"])
    writer.add_feed_forward_length(c["intermediate_size"])
    writer.add_head_count(c["num_attention_heads"])
    writer.add_head_count_kv(c["num_key_value_heads"])
    writer.add_key_length(c["head_dim"])
    writer.add_value_length(c["head_dim"])
    writer.add_rope_dimension_count(c["head_dim"])
    writer.add_rope_freq_base(c["rope_theta"])
    writer.add_layer_norm_rms_eps(c["rms_norm_eps"])


def add_pieces(writer, path):
    from sentencepiece import SentencePieceProcessor
    model = SentencePieceProcessor(model_file=str(path))
    ids = range(model.vocab_size())
    kinds = [2 if model.is_unknown(i) else 3 if model.is_control(i) else 6 if model.is_byte(i) else 1 for i in ids]
    writer.add_tokenizer_model("llama")
    writer.add_token_list([model.id_to_piece(i).encode() for i in ids])
    writer.add_token_scores([model.get_score(i) for i in ids])
    writer.add_token_types(kinds)
    writer.add_bos_token_id(model.bos_id())
    writer.add_eos_token_id(model.eos_id())
    writer.add_unk_token_id(model.unk_id())


def write_model(path, config, tensors, kind, pieces=None):
    writer = GGUFWriter(str(path), "llama")
    add_sizes(writer, config)
    if pieces:
        add_pieces(writer, pieces)
    else:
        writer.add_bos_token_id(config["bos_token_id"])
        writer.add_eos_token_id(config["eos_token_id"])
    for name, values in tensors.items():
        for module, heads in (("q_proj", "num_attention_heads"), ("k_proj", "num_key_value_heads")):
            if f".{module}." in name:
                values = interleaved(values, config[heads])
        stored = gguf_name(name, config["num_hidden_layers"])
        if values.ndim == 1 or kind == Type.F32:
            writer.add_tensor(stored, np.ascontiguousarray(values, np.float32))
        elif kind == Type.F16:
            writer.add_tensor(stored, values.astype(np.float16))
        else:
            writer.add_tensor(stored, quants.quantize(np.ascontiguousarray(values), kind), raw_dtype=kind)
    finish(writer)


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def with_table(writer, rows):
    """What makes a file with a tokenizer a model that opens."""
    add_sizes(writer, {**CONFIG, "hidden_size": 2, "head_dim": 2, "num_attention_heads": 1, "num_key_value_heads": 1})
    writer.add_tensor("token_embd.weight", np.zeros((rows, 2), np.float16))


def write_spm(path, pieces):
    writer = GGUFWriter(str(path), "llama")
    add_pieces(writer, pieces)
    from sentencepiece import SentencePieceProcessor
    with_table(writer, SentencePieceProcessor(model_file=str(pieces)).vocab_size())
    finish(writer)


def write_bpe(path, source):
    tokenizer = json.loads(source.read_text())
    added = {token["id"]: token for token in tokenizer["added_tokens"]}
    by_id = {i: text for text, i in tokenizer["model"]["vocab"].items()}
    by_id.update({i: token["content"] for i, token in added.items()})
    writer = GGUFWriter(str(path), "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list([by_id[i].encode() for i in range(len(by_id))])
    writer.add_token_types([1 if i not in added else 3 if added[i]["special"] else 4 for i in range(len(by_id))])
    merges = tokenizer["model"]["merges"]
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in merges])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template("{{ messages[0].content }}")
    with_table(writer, len(by_id))
    finish(writer)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    root = pathlib.Path(__file__).resolve().parent.parent
    parser.add_argument("--out", type=pathlib.Path, default=root / "tests/data/gguf")
    parser.add_argument("--all", nargs=3, metavar=("FOLDER", "TYPE", "FILE"))
    args = parser.parse_args()
    if args.all:
        folder = pathlib.Path(args.all[0])
        write_model(args.all[2], json.loads((folder / "config.json").read_text()),
                    read_safetensors(folder / "model.safetensors"), Type[args.all[1]], folder / "tokenizer.model")
        return
    out = args.out
    (out / "llama").mkdir(parents=True, exist_ok=True)
    tensors = draw(7)
    for kind in (Type.F32, Type.F16, Type.BF16, Type.Q8_0, Type.Q4_0):
        write_model(out / f"llama-{kind.name.lower()}.gguf", CONFIG, tensors, kind)
    (out / "llama/config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    write_safetensors(out / "llama/model.safetensors", tensors)
    for kind in (Type.Q8_0, Type.Q4_0):
        stored = quants.quantize(tensors["model.layers.0.mlp.down_proj.weight"], kind)
        quants.dequantize(stored, kind).astype("<f4").tofile(out / f"{kind.name.lower()}.f32")
    write_spm(out / "spm.gguf", root / "tests/data/text/kinds/llama.model")
    write_bpe(out / "bpe.gguf", root / "tests/data/text/byte_level_1k.json")


if __name__ == "__main__":
    main()
