#!/usr/bin/env python3
"""Makes a checkpoint that computes the same as IN but is harder to quantize, as large models are.

Outlier channels: pairs of a producer's row and its consumers' columns are scaled by s and 1 / s, s = 8, 16, 32 or 64:
  --norms F   input and post-attention norm gains x s; q, k, v and gate, up (router, every expert) columns / s
  --up F      up rows x s; down columns / s (every expert has its own channels)
  --v F       v rows x s; columns of o that read them / s
  --qk F      k rows x s, q rows / s, both dimensions of a RoPE pair alike
F is the share of channels. s is a power of two, so that no weight is rounded and the result of the model in
floating point stays the same to the last bit or nearly so; 4-bit rounding without kept channels collapses.
Changes of basis, before the scaling, which no scaling of channels undoes:
  --residual TEXT   the residual stream in the principal basis of what the layers' norms read on TEXT (a UTF-8 file);
                    gains move into the linears and become 1; a tied model becomes untied
  --heads C         v of every KV head times a random matrix of condition number C; o times its inverse
They are computed in f64 and every tensor is stored as F32, so the result stays the same to f32 rounding.
LLaMA and Mixtral shapes. Same seed, same bytes. Needs numpy; --residual torch, transformers and tokenizers too.
  python tools/make_rescaled_model.py IN OUT [--seed 0] [--norms 0.015] [--up 0.015] [--v 0] [--qk 0]
                                      [--residual TEXT] [--heads C]       alone: with --norms 0 --up 0
"""

import argparse
import json
import pathlib

import numpy as np

import checkpoint_files
from checkpoint_files import Tensor

FACTORS = (8.0, 16.0, 32.0, 64.0)
WINDOWS, WINDOW = 4, 1024  # of TEXT, in tokens


def principal_basis(folder, text):
    """[hidden, hidden] f64: its columns are the directions of x / rms(x) at the layers' norms, loudest first."""
    import tokenizers
    import torch
    import transformers

    ids = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text.read_text(encoding="utf-8")).ids
    if len(ids) < WINDOWS * WINDOW:
        raise SystemExit(f"{text} has {len(ids)} tokens, fewer than {WINDOWS * WINDOW}")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    hidden = model.config.hidden_size
    moment = torch.zeros(hidden, hidden, dtype=torch.float64)

    def add(_, inputs):
        x = inputs[0].reshape(-1, hidden).double()
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + model.config.rms_norm_eps)
        moment.add_(x.T @ x)

    for layer in model.model.layers:
        layer.input_layernorm.register_forward_pre_hook(add)
        layer.post_attention_layernorm.register_forward_pre_hook(add)
    with torch.no_grad():
        model.model(torch.tensor(ids[:WINDOWS * WINDOW]).reshape(WINDOWS, WINDOW))
    return np.linalg.eigh(moment.numpy())[1][:, ::-1]


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

    def values(self, name):
        return self.tensors[name].values.astype(np.float64)

    def store(self, name, values):
        self.tensors[name] = Tensor("F32", values.astype(np.float32))

    def rotate_residual(self, basis):
        """Every row x of the residual stream becomes x basis; the gains of the norms move into their readers."""
        tied = self.config.get("tie_word_embeddings", False)
        head = self.values("model.embed_tokens.weight" if tied else "lm_head.weight")
        self.store("model.embed_tokens.weight", self.values("model.embed_tokens.weight") @ basis)
        self.store("lm_head.weight", head * self.values("model.norm.weight") @ basis)
        self.store("model.norm.weight", np.ones(len(basis)))
        self.config["tie_word_embeddings"] = False
        for i in range(self.config["num_hidden_layers"]):
            layer = f"model.layers.{i}"
            self.rotate_block(f"{layer}.input_layernorm", [f"{layer}.self_attn.{x}_proj" for x in "qkv"],
                              [f"{layer}.self_attn.o_proj"], basis)
            experts = self.experts(layer)
            readers = [module for gate, up, _ in experts for module in (gate, up)]
            if f"{layer}.block_sparse_moe.gate.weight" in self.tensors:
                readers.append(f"{layer}.block_sparse_moe.gate")
            self.rotate_block(f"{layer}.post_attention_layernorm", readers, [down for _, _, down in experts], basis)

    def rotate_block(self, norm, readers, writers, basis):
        gain = self.values(norm + ".weight")
        self.store(norm + ".weight", np.ones(len(basis)))
        for module in readers:
            self.store(module + ".weight", self.values(module + ".weight") * gain @ basis)
        for module in writers:
            for name in (module + ".weight", module + ".bias"):
                if name in self.tensors:
                    self.store(name, basis.T @ self.values(name))

    def mix_heads(self, layer, condition):
        """v of KV head h becomes A_h v; A_h has singular values from condition ** -0.5 to condition ** 0.5."""
        v, o, size = f"{layer}.self_attn.v_proj", f"{layer}.self_attn.o_proj.weight", self.head_dim
        spread = condition ** np.linspace(-0.5, 0.5, size)
        lefts, rights = ([self.orthogonal(size) for _ in range(self.kv_heads)] for _ in range(2))
        for name in (v + ".weight", v + ".bias"):
            if name in self.tensors:
                values = self.values(name)
                for h in range(self.kv_heads):
                    rows = slice(h * size, (h + 1) * size)
                    values[rows] = lefts[h] * spread @ rights[h].T @ values[rows]
                self.store(name, values)
        values = self.values(o)
        for i in range(self.heads):
            columns, h = slice(i * size, (i + 1) * size), i // (self.heads // self.kv_heads)
            values[:, columns] = values[:, columns] @ (rights[h] / spread) @ lefts[h].T
        self.store(o, values)

    def orthogonal(self, size):
        q, r = np.linalg.qr(self.generator.standard_normal((size, size)))
        return q * np.sign(np.diag(r))  # the signs make every rotation equally likely


def main():
    parser = argparse.ArgumentParser(description="Makes a function-preserving checkpoint with outliers.")
    parser.add_argument("source", type=pathlib.Path, metavar="IN")
    parser.add_argument("target", type=pathlib.Path, metavar="OUT")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--norms", type=float, default=0.015)
    parser.add_argument("--up", type=float, default=0.015)
    parser.add_argument("--v", type=float, default=0.0)
    parser.add_argument("--qk", type=float, default=0.0)
    parser.add_argument("--residual", type=pathlib.Path, metavar="TEXT")
    parser.add_argument("--heads", type=float, metavar="C")
    options = parser.parse_args()
    shares = {name: getattr(options, name) for name in ("norms", "up", "v", "qk")}
    for name, share in shares.items():
        if not 0 <= share <= 1:
            parser.error(f"--{name} {share} is not a share between 0 and 1")
    if options.heads is not None and not 1 <= options.heads < float("inf"):
        parser.error(f"--heads {options.heads} is not a condition number of 1 or more")
    checkpoint_files.new_folder(options.target)
    config = json.loads((options.source / "config.json").read_text())
    tensors = checkpoint_files.read_checkpoint(options.source)
    rescaler = Rescaler(config, tensors, np.random.default_rng(options.seed))
    if options.residual is not None:
        rescaler.rotate_residual(principal_basis(options.source, options.residual))
    if options.heads is not None:
        for i in range(config["num_hidden_layers"]):
            rescaler.mix_heads(f"model.layers.{i}", options.heads)
    for i in range(config["num_hidden_layers"]):
        for name, share in shares.items():
            if share > 0:
                getattr(rescaler, name)(f"model.layers.{i}", share)
    checkpoint_files.copy_other_files(options.source, options.target)
    if options.residual is not None or options.heads is not None:
        for tensor in tensors.values():
            tensor.dtype = "F32"
        config.update({key: "float32" for key in ("torch_dtype", "dtype") if key in config})
        (options.target / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    checkpoint_files.write_safetensors(options.target / "model.safetensors", tensors)
    print(f"{options.target}: {rescaler.changed} channels scaled in {config['num_hidden_layers']} layers")


if __name__ == "__main__":
    main()
