#!/usr/bin/env python3
"""Makes a synthetic LLaMA checkpoint of many layers, to show that memory does not grow with depth.

Random weights (bf16), the tokenizer of another checkpoint, shards of a few layers each. Needs numpy.
  python tools/make_deep_checkpoint.py TOKENIZER_FROM OUT [--layers 64] [--hidden 128] [--inner 352]
                                       [--head-dim 32] [--seed 0] [--shards 4]
"""

import argparse
import json
import pathlib
import shutil

import numpy as np

import checkpoint_files
from checkpoint_files import Tensor

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json",
                   "generation_config.json")


def shapes_of_layer(i, options):
    hidden, inner = options.hidden, options.inner
    layer = f"model.layers.{i}."
    linears = {f"self_attn.{x}_proj": (hidden, hidden) for x in "qkvo"}
    linears.update({"mlp.gate_proj": (inner, hidden), "mlp.up_proj": (inner, hidden),
                    "mlp.down_proj": (hidden, inner)})
    shapes = {f"{layer}{name}.weight": shape for name, shape in linears.items()}
    shapes[f"{layer}input_layernorm.weight"] = (hidden,)
    shapes[f"{layer}post_attention_layernorm.weight"] = (hidden,)
    return shapes


def random_tensor(name, shape, layers, generator):
    if len(shape) == 1:
        return Tensor("BF16", np.ones(shape, np.float32))
    values = generator.standard_normal(shape, np.float32) / np.sqrt(np.float32(shape[1]))
    if name.endswith(("o_proj.weight", "down_proj.weight")):
        values /= np.sqrt(np.float32(2 * layers))  # keeps the residual stream's size in a deep model
    return Tensor("BF16", checkpoint_files.round_to_bf16(values))


def write_shards(options, vocab, generator):
    weight_map, total = {}, 0
    for shard in range(options.shards):
        file = f"model-{shard + 1:05d}-of-{options.shards:05d}.safetensors"
        shapes = {}
        if shard == 0:
            shapes["model.embed_tokens.weight"] = (vocab, options.hidden)
        if shard == options.shards - 1:
            shapes["model.norm.weight"] = (options.hidden,)
            shapes["lm_head.weight"] = (vocab, options.hidden)
        for i in range(options.layers):
            if i * options.shards // options.layers == shard:
                shapes.update(shapes_of_layer(i, options))
        tensors = {n: random_tensor(n, s, options.layers, generator) for n, s in shapes.items()}
        checkpoint_files.write_safetensors(options.target / file, tensors)
        weight_map.update({name: file for name in tensors})
        total += sum(2 * t.values.size for t in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (options.target / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")
    return total


def main():
    parser = argparse.ArgumentParser(description="Makes a deep synthetic checkpoint.")
    parser.add_argument("source", type=pathlib.Path, metavar="TOKENIZER_FROM")
    parser.add_argument("target", type=pathlib.Path, metavar="OUT")
    parser.add_argument("--layers", type=int, default=64)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--inner", type=int, default=352)
    parser.add_argument("--head-dim", type=int, default=32)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.hidden % options.head_dim or not 1 <= options.shards <= options.layers:
        parser.error("--head-dim must divide --hidden, and --shards be 1 to --layers")
    source = json.loads((options.source / "config.json").read_text())
    checkpoint_files.new_folder(options.target)
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": source["vocab_size"],
        "hidden_size": options.hidden, "intermediate_size": options.inner,
        "num_hidden_layers": options.layers, "num_attention_heads": options.hidden // options.head_dim,
        "num_key_value_heads": options.hidden // options.head_dim, "head_dim": options.head_dim,
        "hidden_act": "silu", "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "tie_word_embeddings": False, "attention_bias": False, "mlp_bias": False,
        "bos_token_id": source["bos_token_id"], "eos_token_id": source["eos_token_id"],
        "torch_dtype": "bfloat16",
    }
    (options.target / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    for name in TOKENIZER_FILES:
        if (options.source / name).is_file():
            shutil.copyfile(options.source / name, options.target / name)
    total = write_shards(options, source["vocab_size"], np.random.default_rng(options.seed))
    print(f"{options.target}: {options.layers} layers, {total / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
