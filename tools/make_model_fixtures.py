#!/usr/bin/env python3
"""Makes tests/data/model: tiny random checkpoints, and the logits that transformers computes in FP32.

Every checkpoint folder holds
  config.json, model.safetensors (or shards and model.safetensors.index.json)
  expected.json   ids, the position of each row of logits, and the versions that computed them
  logits.f32      little-endian f32 [positions, vocab_size], row-major

With --reference DIR (a folder of real models), also NAME.json and NAME.f32 for each of them, with the
logits of four positions; those models themselves are not stored.

The weights are drawn wider than a fresh model's, so that attention is not uniform and logits are not
small. Same seed, same files. Needs torch, transformers 5 and safetensors:
  python tools/make_model_fixtures.py [--out tests/data/model] [--reference DIR]
"""

import argparse
import json
import pathlib

import numpy as np
import torch
import transformers
from safetensors.torch import save_file

IDS = 32  # length of the id sequence of a tiny checkpoint
REFERENCE_IDS = 48
REFERENCE_POSITIONS = [0, 7, 23, 47]
REFERENCE_TEXT = (
    "The river rises in the northern hills and flows south for about two hundred kilometres before it "
    "reaches the sea. In 1846 the first bridge across it was opened, and the town grew quickly: by the "
    "end of the century it had a railway station, two schools and a small university."
)

# Small enough to store, and every dimension different, so that a swapped one shows.
LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 101,
    "hidden_size": 64,
    "intermediate_size": 88,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 16,
    "hidden_act": "silu",
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "mlp_bias": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
MIXTRAL = {
    "model_type": "mixtral",
    "architectures": ["MixtralForCausalLM"],
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "hidden_act": "silu",
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "sliding_window": None,
    "router_jitter_noise": 0.0,
    "output_router_logits": False,
}

# name -> base, changes, RoPE base frequency, spelling of config.json, dtype, shards
FIXTURES = {
    "llama-mha": dict(base=LLAMA, change={}, theta=10000.0, spelling="old", dtype="bfloat16"),
    # head_dim * heads != hidden: q_proj is [96, 64], o_proj [64, 96].
    "llama-gqa": dict(base=LLAMA, change=dict(num_attention_heads=8, num_key_value_heads=2, head_dim=12),
                      theta=500000.0, spelling="old", dtype="float16"),
    "llama-tied": dict(base=LLAMA, change=dict(tie_word_embeddings=True, num_key_value_heads=1,
                                               intermediate_size=72),
                       theta=10000.0, spelling="new", dtype="float32"),
    "llama-bias": dict(base=LLAMA, change=dict(attention_bias=True, mlp_bias=True, num_key_value_heads=2),
                       theta=10000.0, spelling="new", dtype="bfloat16"),
    "llama-sharded": dict(base=LLAMA, change=dict(num_key_value_heads=2, hidden_size=80, head_dim=20),
                          theta=20000.0, spelling="new", dtype="bfloat16", shards=3),
    "mixtral-4of2": dict(base=MIXTRAL, change={}, theta=1000000.0, spelling="old", dtype="bfloat16"),
    "mixtral-6of3": dict(base=MIXTRAL, change=dict(num_local_experts=6, num_experts_per_tok=3,
                                                   num_key_value_heads=4, intermediate_size=24),
                         theta=10000.0, spelling="new", dtype="bfloat16", shards=2),
}


def config_json(fixture):
    """config.json in one of the two spellings that checkpoints come in."""
    config = {**fixture["base"], **fixture["change"]}
    if fixture["spelling"] == "old":
        return {**config, "rope_theta": fixture["theta"], "rope_scaling": None,
                "torch_dtype": fixture["dtype"], "transformers_version": "4.38.0"}
    rope = {"rope_theta": fixture["theta"], "rope_type": "default"}
    return {**config, "rope_parameters": rope, "dtype": fixture["dtype"],
            "transformers_version": transformers.__version__}


def tensor_shapes(config):
    """Names and shapes as the checkpoints of the family have them (transformers fuses experts in memory)."""
    hidden, inner, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    queries = config["num_attention_heads"] * config["head_dim"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    shapes = {"model.embed_tokens.weight": (vocab, hidden), "model.norm.weight": (hidden,)}
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (vocab, hidden)
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{layer}{norm}.weight"] = (hidden,)
        linears = {"self_attn.q_proj": (queries, hidden), "self_attn.k_proj": (keys, hidden),
                   "self_attn.v_proj": (keys, hidden), "self_attn.o_proj": (hidden, queries)}
        if config["model_type"] == "mixtral":
            linears["block_sparse_moe.gate"] = (config["num_local_experts"], hidden)
            for e in range(config["num_local_experts"]):
                expert = f"block_sparse_moe.experts.{e}."
                linears.update({expert + "w1": (inner, hidden), expert + "w2": (hidden, inner),
                                expert + "w3": (inner, hidden)})
        else:
            linears.update({"mlp.gate_proj": (inner, hidden), "mlp.up_proj": (inner, hidden),
                            "mlp.down_proj": (hidden, inner)})
        for name, shape in linears.items():
            shapes[f"{layer}{name}.weight"] = shape
            attention = name.startswith("self_attn") and config.get("attention_bias")
            if attention or name.startswith("mlp") and config.get("mlp_bias"):
                shapes[f"{layer}{name}.bias"] = shape[:1]
    return shapes


def random_tensors(config, dtype, generator):
    tensors = {}
    for name, shape in tensor_shapes(config).items():
        if len(shape) == 1 and name.endswith("norm.weight"):
            value = 1.0 + 0.2 * generator.standard_normal(shape)
        elif len(shape) == 1:  # bias
            value = 0.2 * generator.standard_normal(shape)
        elif name == "model.embed_tokens.weight":
            value = generator.standard_normal(shape)
        else:
            value = 1.5 * generator.standard_normal(shape) / np.sqrt(shape[1])
        tensors[name] = torch.from_numpy(value.astype(np.float32)).to(getattr(torch, dtype))
    return tensors


def save(tensors, path):
    save_file(tensors, path, metadata={"format": "pt"})
    path.chmod(0o644)  # the library makes files that only their owner reads


def write_tensors(folder, tensors, shards):
    if shards == 1:
        save(tensors, folder / "model.safetensors")
        return
    names = sorted(tensors)
    weight_map, total = {}, 0
    for i in range(shards):
        file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        part = {name: tensors[name] for name in names[i::shards]}
        save(part, folder / file)
        weight_map.update({name: file for name in part})
        total += sum(t.numel() * t.element_size() for t in part.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    write_json(folder / "model.safetensors.index.json", index)


def write_json(path, value):
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="ascii")


def load_model(folder):
    """The model in FP32 with the plain attention; fails when a tensor was ignored or made up."""
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True,
        local_files_only=True)
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        keys = set(info[kind]) - {"lm_head.weight"} if kind == "missing_keys" else info[kind]
        if keys:
            raise SystemExit(f"{folder}: {kind}: {sorted(keys)}")
    return model.eval()


def logits_of(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids]), use_cache=False).logits[0].numpy().astype("<f4")


def write_expected(json_path, raw_path, ids, positions, logits, extra):
    rows = np.ascontiguousarray(logits[positions])
    if not np.isfinite(rows).all():
        raise SystemExit(f"{json_path}: logits are not finite")
    raw_path.write_bytes(rows.tobytes())
    write_json(json_path, {
        **extra,
        "ids": ids,
        "positions": positions,
        "vocab_size": int(rows.shape[1]),
        "logits": raw_path.name,
        "max_abs_logit": float(np.abs(rows).max()),
        "dtype": "float32",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    })
    print(f"{json_path}: {len(ids)} ids, max |logit| {np.abs(rows).max():.3f}, std {rows.std():.3f}")


def make_tiny(out, name, seed):
    fixture = FIXTURES[name]
    generator = np.random.default_rng(seed)
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    config = config_json(fixture)
    write_json(folder / "config.json", config)
    write_tensors(folder, random_tensors(config, fixture["dtype"], generator), fixture.get("shards", 1))
    ids = [1] + generator.integers(3, config["vocab_size"], IDS - 1).tolist()
    model = load_model(folder)
    if model.config.rope_parameters["rope_theta"] != fixture["theta"]:
        raise SystemExit(f"{folder}: transformers read another rope_theta")
    logits = logits_of(model, ids)
    write_expected(folder / "expected.json", folder / "logits.f32", ids, list(range(IDS)), logits,
                   {"about": f"random weights, seed {seed}"})


def make_reference(out, folder):
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    ids = tokenizer(REFERENCE_TEXT)["input_ids"][:REFERENCE_IDS]
    if len(ids) != REFERENCE_IDS:
        raise SystemExit(f"{folder}: the text has {len(ids)} tokens, {REFERENCE_IDS} are needed")
    logits = logits_of(load_model(folder), ids)
    write_expected(out / f"{folder.name}.json", out / f"{folder.name}.f32", ids, REFERENCE_POSITIONS,
                   logits, {"about": f"logits of the trained model {folder.name}",
                            "text": REFERENCE_TEXT})


def main():
    parser = argparse.ArgumentParser(description="Makes the fixtures of the model tests.")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("tests/data/model"))
    parser.add_argument("--reference", type=pathlib.Path,
                        help="a folder with ref-dense-11m, ref-dense-28m, ref-moe-24m")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(FIXTURES, 1):
        make_tiny(options.out, name, seed)
    if options.reference:
        for name in ("ref-dense-11m", "ref-dense-28m", "ref-moe-24m"):
            make_reference(options.out, options.reference / name)


if __name__ == "__main__":
    main()
