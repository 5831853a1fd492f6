#!/usr/bin/env python3
"""Makes a checkpoint that computes the same as IN but has outlier channels, as large models grow them.

Pairs of a producer's row and its consumers' columns are scaled by s and 1 / s, s = 8, 16, 32 or 64:
  --norms F   input and post-attention norm gains x s; q, k, v and gate, up (router, every expert) columns / s
  --up F      up rows x s; down columns / s (every expert has its own channels)
  --v F       v rows x s; columns of o that read them / s
  --qk F      k rows x s, q rows / s, both dimensions of a RoPE pair alike
F is the share of channels. s is a power of two, so that no weight is rounded and the result of the model in
floating point stays the same to the last bit or nearly so; 4-bit rounding without kept channels collapses.
LLaMA and Mixtral shapes. Same seed, same bytes. Needs numpy.
  python tools/make_rescaled_model.py IN OUT [--seed 0] [--norms 0.015] [--up 0.015] [--v 0] [--qk 0]
"""

import argparse
import json
import pathlib

import numpy as np

import checkpoint_files

FACTORS = (8.0, 16.0, 32.0, 64.0)


class Rescaler:
    def __init__(self, config, tensors, generator):
        self.config, self.tensors, self.generator = config, tensors, generator
        self.heads = config["num_attention_heads"]
        self.kv_heads = config.get("num_key_value_heads", self.heads)
        self.head_dim = config.get("head_dim") or config["hidden_size"] // self.heads
        self.changed = 0

    def factors(self, size, share):
        """[size] mostly ones; share of them (at least one) a random power of two."""
        factors = np.ones(size, np.float32)
        if share > 0:
            count = max(1, round(share * size))
            chosen = self.generator.choice(size, count, replace=False)
            factors[chosen] = self.generator.choice(FACTORS, count)
            self.changed += count
        return factors

    def rows(self, module, factors):
        """Scales outputs of a linear (and its bias), or the gain of a norm."""
        for suffix in (".weight", ".bias"):
            tensor = self.tensors.get(module + suffix)
            if tensor is not None:
                shape = (-1,) + (1,) * (tensor.values.ndim - 1)
                tensor.values = tensor.values * factors.reshape(shape)

    def columns(self, module, factors):
        tensor = self.tensors[module + ".weight"]
        tensor.values = tensor.values / factors

    def experts(self, layer):
        """Per MLP: (gate, up, down) names."""
        if f"{layer}.mlp.up_proj.weight" in self.tensors:
            return [tuple(f"{layer}.mlp.{x}_proj" for x in ("gate", "up", "down"))]
        count = self.config["num_local_experts"]
        names = (f"{layer}.block_sparse_moe.experts.{e}." for e in range(count))
        return [(name + "w1", name + "w3", name + "w2") for name in names]

    def norms(self, layer, share):
        hidden = self.config["hidden_size"]
        factors = self.factors(hidden, share)
        self.rows(f"{layer}.input_layernorm", factors)
        for x in "qkv":
            self.columns(f"{layer}.self_attn.{x}_proj", factors)
        factors = self.factors(hidden, share)
        self.rows(f"{layer}.post_attention_layernorm", factors)
        for gate, up, _ in self.experts(layer):
            self.columns(gate, factors)
            self.columns(up, factors)
        if f"{layer}.block_sparse_moe.gate.weight" in self.tensors:
            self.columns(f"{layer}.block_sparse_moe.gate", factors)

    def up(self, layer, share):
        for _, up, down in self.experts(layer):
            factors = self.factors(self.tensors[up + ".weight"].values.shape[0], share)
            self.rows(up, factors)
            self.columns(down, factors)

    def v(self, layer, share):
        factors = self.factors(self.kv_heads * self.head_dim, share)
        self.rows(f"{layer}.self_attn.v_proj", factors)
        self.columns(f"{layer}.self_attn.o_proj", self.by_query_head(factors))

    def qk(self, layer, share):
        pairs = self.factors(self.kv_heads * self.head_dim // 2, share).reshape(self.kv_heads, -1)
        factors = np.concatenate([pairs, pairs], axis=1).ravel()  # RoPE pairs i with i + head_dim / 2
        self.rows(f"{layer}.self_attn.k_proj", factors)
        self.rows(f"{layer}.self_attn.q_proj", 1 / self.by_query_head(factors))

    def by_query_head(self, factors):
        """From one factor per KV head's channel to one per query head's channel."""
        by_head = factors.reshape(self.kv_heads, self.head_dim)
        return np.repeat(by_head, self.heads // self.kv_heads, axis=0).ravel()


def main():
    parser = argparse.ArgumentParser(description="Makes a function-preserving checkpoint with outliers.")
    parser.add_argument("source", type=pathlib.Path, metavar="IN")
    parser.add_argument("target", type=pathlib.Path, metavar="OUT")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--norms", type=float, default=0.015)
    parser.add_argument("--up", type=float, default=0.015)
    parser.add_argument("--v", type=float, default=0.0)
    parser.add_argument("--qk", type=float, default=0.0)
    options = parser.parse_args()
    shares = {name: getattr(options, name) for name in ("norms", "up", "v", "qk")}
    for name, share in shares.items():
        if not 0 <= share <= 1:
            parser.error(f"--{name} {share} is not a share between 0 and 1")
    checkpoint_files.new_folder(options.target)
    config = json.loads((options.source / "config.json").read_text())
    tensors = checkpoint_files.read_checkpoint(options.source)
    rescaler = Rescaler(config, tensors, np.random.default_rng(options.seed))
    for i in range(config["num_hidden_layers"]):
        for name, share in shares.items():
            if share > 0:
                getattr(rescaler, name)(f"model.layers.{i}", share)
    checkpoint_files.copy_other_files(options.source, options.target)
    checkpoint_files.write_safetensors(options.target / "model.safetensors", tensors)
    print(f"{options.target}: {rescaler.changed} channels scaled in {config['num_hidden_layers']} layers")


if __name__ == "__main__":
    main()
