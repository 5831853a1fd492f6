#!/usr/bin/env python3
"""Makes tests/data/model: tiny random checkpoints, and the logits that transformers computes in FP32.

Every checkpoint folder holds
  config.json, model.safetensors (or shards and model.safetensors.index.json)
  expected.json   ids, the position of each row of logits, and the versions that computed them
  logits.f32      little-endian f32 [positions, vocab_size], row-major
Of the families beside LLaMA 2 and Mixtral no tensors are stored: expected.json lists their shapes, and the tests make the
values as seeded_values() does (testing/seeded_checkpoint.h).

With --reference DIR (a folder of real models), also NAME.json and NAME.f32 for each of them, with the
logits of four positions; those models themselves are not stored.

The weights are drawn wider than a fresh model's, so that attention is not uniform and logits are not
small. Same seed, same files. Needs torch, transformers 5 and safetensors:
  python tools/make_model_fixtures.py [--out tests/data/model] [--reference DIR]
"""

import argparse
import json
import pathlib
import tempfile

import numpy as np
import torch
import transformers
from safetensors.torch import save_file

IDS = 32  # length of the id sequence of a tiny checkpoint
LONG = 150  # of one whose length matters
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

# Other families: tiny, with inputs that can be cut into groups of 32 and 16 kept channels.
TINY = {
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_act": "silu",
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LLAMA3 = {**TINY, "model_type": "llama", "architectures": ["LlamaForCausalLM"], "head_dim": 16,
          "tie_word_embeddings": True}
# head_dim * heads != hidden; a window that most of the ids are beyond.
MISTRAL = {**TINY, "model_type": "mistral", "architectures": ["MistralForCausalLM"], "head_dim": 12,
           "sliding_window": 8}
QWEN2 = {**TINY, "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "use_sliding_window": False,
         "sliding_window": 8, "max_window_layers": 1}
QWEN3 = {**TINY, "model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "head_dim": 24,
         "use_sliding_window": False, "sliding_window": None, "attention_bias": False,
         "tie_word_embeddings": True}
QWEN3_MOE = {**TINY, "model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"], "hidden_size": 48,
             "head_dim": 16, "moe_intermediate_size": 24, "num_experts": 4, "num_experts_per_tok": 2,
             "norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": [],
             "use_sliding_window": False, "sliding_window": None, "attention_bias": False,
             "tie_word_embeddings": True}
PHI3 = {**TINY, "model_type": "phi3", "architectures": ["Phi3ForCausalLM"], "sliding_window": None,
        "pad_token_id": 0}
# The ids go beyond the 64 positions that these models "were trained with", and beyond a page of the KV-cache.
LLAMA3_ROPE = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 64}
YARN_ROPE = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
# As Phi-3 with 128k has it; texts up to the original length have the short factors.
LONG_ROPE = {"type": "longrope", "short_factor": [1.0 + 0.1 * i for i in range(8)],
             "long_factor": [2.0 + 0.5 * i for i in range(8)]}


def seeded(base, theta, spelling, change={}, rope=None, ids=IDS):
    """A fixture whose tensors are not stored."""
    fixture = dict(base=base, change=change, theta=theta, spelling=spelling, dtype="bfloat16", seeded=True, ids=ids)
    return {**fixture, "rope": rope} if rope else fixture


# name -> base, changes, RoPE base frequency and the rest of its object, spelling of config.json, dtype, shards
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
    "llama3-rope": seeded(LLAMA3, theta=10.0, rope=LLAMA3_ROPE, spelling="old", ids=LONG),
    "llama-linear": seeded(LLAMA3, theta=10000.0, rope={"type": "linear", "factor": 4.0}, spelling="old"),
    "llama-dynamic": seeded(LLAMA3, change=dict(max_position_embeddings=IDS), theta=10000.0,
                            rope={"type": "dynamic", "factor": 4.0}, spelling="old"),
    "llama-yarn": seeded(LLAMA3, theta=10.0, rope=YARN_ROPE, spelling="new", ids=LONG),
    # head_dim * heads != hidden, and a bias of every linear.
    "llama-wide-bias": seeded(LLAMA3, change=dict(head_dim=24, attention_bias=True, mlp_bias=True), theta=10000.0,
                              spelling="old"),
    "mistral-window": seeded(MISTRAL, theta=10000.0, spelling="old"),
    "mistral-pages": seeded(MISTRAL, change=dict(sliding_window=70), theta=10000.0, spelling="new", ids=LONG),
    "mixtral-window": seeded(MIXTRAL, change=dict(sliding_window=8, intermediate_size=48), theta=10000.0,
                             spelling="old"),
    "qwen2": seeded(QWEN2, theta=1000000.0, spelling="old"),
    "qwen2-window": seeded(QWEN2, change=dict(use_sliding_window=True, tie_word_embeddings=True), theta=10000.0,
                           spelling="new"),
    "qwen3": seeded(QWEN3, theta=1000000.0, spelling="new"),
    "qwen3-moe": seeded(QWEN3_MOE, theta=1000000.0, spelling="new"),
    "phi3": seeded(PHI3, theta=10000.0, spelling="old"),
    "phi3-window": seeded(PHI3, change=dict(sliding_window=8, tie_word_embeddings=True, num_key_value_heads=4),
                          theta=10000.0, spelling="new"),
    "phi3-longrope": seeded(PHI3, change=dict(original_max_position_embeddings=64), theta=10000.0, rope=LONG_ROPE,
                            spelling="old"),
    # Beyond the original length, where the long factors hold for every position.
    "phi3-long": seeded(PHI3, change=dict(original_max_position_embeddings=64), theta=10000.0, rope=LONG_ROPE,
                        spelling="new", ids=LONG),
    # Beyond max_position_embeddings, where the base of dynamic is that of the length.
    "llama-dynamic-long": seeded(LLAMA3, change=dict(max_position_embeddings=64), theta=10000.0,
                                 rope={"type": "dynamic", "factor": 4.0}, spelling="old", ids=LONG),
    "llama-linear-long": seeded(LLAMA3, change=dict(max_position_embeddings=64), theta=10000.0,
                                rope={"rope_type": "linear", "factor": 4.0}, spelling="new", ids=LONG),
}


def config_json(fixture):
    """config.json in one of the two spellings that checkpoints come in."""
    config = {**fixture["base"], **fixture["change"]}
    if fixture["spelling"] == "old":
        return {**config, "rope_theta": fixture["theta"], "rope_scaling": fixture.get("rope"),
                "torch_dtype": fixture["dtype"], "transformers_version": "4.38.0"}
    rope = {"rope_theta": fixture["theta"], **fixture.get("rope", {"rope_type": "default"})}
    return {**config, "rope_parameters": rope, "dtype": fixture["dtype"],
            "transformers_version": transformers.__version__}


def head_dim_of(config):
    return config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]


def attention_linears(config):
    hidden, head_dim = config["hidden_size"], head_dim_of(config)
    queries, keys = config["num_attention_heads"] * head_dim, config["num_key_value_heads"] * head_dim
    out = {"self_attn.o_proj": (hidden, queries)}
    if config["model_type"] == "phi3":
        return {"self_attn.qkv_proj": (queries + 2 * keys, hidden), **out}
    return {"self_attn.q_proj": (queries, hidden), "self_attn.k_proj": (keys, hidden),
            "self_attn.v_proj": (keys, hidden), **out}


def feed_forward_linears(config):
    hidden, inner, kind = config["hidden_size"], config["intermediate_size"], config["model_type"]
    if kind == "mixtral":
        experts = {f"block_sparse_moe.experts.{e}.{name}": (hidden, inner) if name == "w2" else (inner, hidden)
                   for e in range(config["num_local_experts"]) for name in ("w1", "w2", "w3")}
        return {"block_sparse_moe.gate": (config["num_local_experts"], hidden), **experts}
    if kind == "qwen3_moe":
        inner = config["moe_intermediate_size"]
        experts = {f"mlp.experts.{e}.{name}": (hidden, inner) if name == "down_proj" else (inner, hidden)
                   for e in range(config["num_experts"]) for name in ("gate_proj", "up_proj", "down_proj")}
        return {"mlp.gate": (config["num_experts"], hidden), **experts}
    if kind == "phi3":
        return {"mlp.gate_up_proj": (2 * inner, hidden), "mlp.down_proj": (hidden, inner)}
    return {"mlp.gate_proj": (inner, hidden), "mlp.up_proj": (inner, hidden), "mlp.down_proj": (hidden, inner)}


def has_bias(config, name):
    if config["model_type"] == "qwen2":
        return name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    return bool(name.startswith("self_attn") and config.get("attention_bias") or
                name.startswith("mlp") and config.get("mlp_bias"))


def tensor_shapes(config):
    """Names and shapes as the checkpoints of the family have them (transformers fuses experts in memory)."""
    hidden, vocab = config["hidden_size"], config["vocab_size"]
    shapes = {"model.embed_tokens.weight": (vocab, hidden), "model.norm.weight": (hidden,)}
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (vocab, hidden)
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{layer}{norm}.weight"] = (hidden,)
        if config["model_type"] in ("qwen3", "qwen3_moe"):
            for norm in ("self_attn.q_norm", "self_attn.k_norm"):
                shapes[f"{layer}{norm}.weight"] = (head_dim_of(config),)
        for name, shape in {**attention_linears(config), **feed_forward_linears(config)}.items():
            shapes[f"{layer}{name}.weight"] = shape
            if has_bias(config, name):
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


def seeded_values(name, shape):
    """bf16 values of a tensor, a function of its name: FNV-1a, then SplitMix64 (Steele et al. 2014) of every element; the sum of two
    numbers of 7 bits, about normal, has 8 bits. As in testing/seeded_checkpoint.h."""
    mask = (1 << 64) - 1
    state = 0xCBF29CE484222325
    for byte in name.encode():
        state = ((state ^ byte) * 0x100000001B3) & mask
    with np.errstate(over="ignore"):
        z = np.uint64(state) + np.arange(1, int(np.prod(shape)) + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    value = ((z & np.uint64(127)) + ((z >> np.uint64(7)) & np.uint64(127))).astype(np.int64) - 127
    if name.endswith("norm.weight"):
        value, exponent = 128 + (value >> 1), -7  # about 1
    elif len(shape) == 1:
        exponent = -8
    elif name == "model.embed_tokens.weight":
        exponent = -6
    else:
        exponent = -8 if shape[1] >= 32 else -7
    return torch.from_numpy((value * 2.0**exponent).astype(np.float32).reshape(shape)).to(torch.bfloat16)


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
    text = json.dumps(value, indent=1) + "\n"
    if "tensors" in value:  # no line for each of many numbers
        text = "{\n" + ",\n".join(f" {json.dumps(key)}: {json.dumps(value[key])}" for key in value) + "\n}\n"
    path.write_text(text, encoding="ascii")


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
    extra = {"about": f"random weights, seed {seed}"}
    if fixture.get("seeded"):
        shapes = tensor_shapes(config)
        ids, model = make_seeded(config, shapes, generator, fixture["ids"])
        extra = {"about": "weights of seeded_values()", "tensors": {k: list(v) for k, v in shapes.items()}}
    else:
        write_tensors(folder, random_tensors(config, fixture["dtype"], generator), fixture.get("shards", 1))
        ids = [1] + generator.integers(3, config["vocab_size"], IDS - 1).tolist()
        model = load_model(folder)
    if model.config.rope_parameters["rope_theta"] != fixture["theta"]:
        raise SystemExit(f"{folder}: transformers read another rope_theta")
    positions = list(range(len(ids)))
    if fixture.get("seeded"):  # the first and last ones, and those around a page's and a window's end
        positions = [p for p in positions if p in (0, 1, 7, 8, 9, 15, 16, 31, 63, 64, 70, 71, 127, 128, len(ids) - 1)]
    write_expected(folder / "expected.json", folder / "logits.f32", ids, positions, logits_of(model, ids), extra)


def make_seeded(config, shapes, generator, count):
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        write_json(folder / "config.json", config)
        save({key: seeded_values(key, shape) for key, shape in shapes.items()}, folder / "model.safetensors")
        return [1] + generator.integers(3, config["vocab_size"], count - 1).tolist(), load_model(folder)


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
    parser.add_argument("--only", nargs="*", choices=list(FIXTURES), help="make these alone")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(FIXTURES, 1):
        if options.only is None or name in options.only:
            make_tiny(options.out, name, seed)
    if options.reference:
        for name in ("ref-dense-11m", "ref-dense-28m", "ref-moe-24m"):
            make_reference(options.out, options.reference / name)


if __name__ == "__main__":
    main()
