#!/usr/bin/env python3
"""Compares how Atom, compressed-tensors and transformers read a checkpoint that Atom wrote as compressed-tensors.

  python tools/check_compressed_tensors.py FOLDER [--atom build/dev/atom --text FILE] [--fixture OUT]

Weights: every linear is decoded by the PyPI package compressed-tensors and by docs/formats.md (code times scale in F32,
rounded once to the type of the scales, in which the package multiplies); all bits must agree.
Perplexity, with --atom: the mean NLL of each window of 512 tokens of FILE, by `atom eval ppl` and by transformers in FP32.
--fixture writes what tests/model/compressed_tensors_test.cc reads: config.json, two rows of two linears, and their values as
the package decodes them.

Needs torch, transformers, safetensors and compressed-tensors.
"""

import argparse
import json
import pathlib
import subprocess

import numpy as np
import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationScheme
from safetensors import safe_open
from safetensors.torch import save_file

WINDOW = 512


def read(folder):
    with safe_open(folder / "model.safetensors", "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}


def by_package(form, weights, state):
    scheme = QuantizationScheme(targets=["Linear"], weights=weights)
    return BaseCompressor.get_value_from_registry(form).decompress(dict(state), scheme)["weight"]


def by_definition(weights, state):
    scale = state["weight_scale"].numpy().astype(np.float32)
    if "weight_packed" in state:
        words = state["weight_packed"].numpy().view(np.uint32)
        codes = (words[:, :, None] >> np.arange(0, 32, 4, dtype=np.uint32) & 15).reshape(len(words), -1).astype(int) - 8
        codes = codes[:, :int(state["weight_shape"][1])]
    else:
        codes = state["weight"].numpy()
    columns = np.arange(codes.shape[1]) // (weights.get("group_size") or codes.shape[1])
    return codes.astype(np.float32) * scale[:, columns]


def compare_weights(tensors, config):
    weights = config["config_groups"]["group_0"]["weights"]
    modules = sorted(name[:-len(".weight_scale")] for name in tensors if name.endswith(".weight_scale"))
    for module in modules:
        state = {name[len(module) + 1:]: t for name, t in tensors.items() if name.startswith(module + ".")}
        got = by_package(config["format"], weights, state)
        want = torch.from_numpy(by_definition(weights, state)).to(got.dtype)
        assert torch.equal(got, want), module
    print(f"weights: {len(modules)} linears, all bits equal, in {got.dtype}")


def compare_perplexity(folder, atom, text):
    from transformers import AutoModelForCausalLM, AutoTokenizer
    out = subprocess.run([atom, "eval", "ppl", folder, "--text", text, "--context", str(WINDOW), "--kv", "f32", "--json", "-q"],
                         check=True, capture_output=True)
    ours = np.array(json.loads(out.stdout)["window_nll"])
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = AutoTokenizer.from_pretrained(folder)(text.read_text(), return_tensors="pt").input_ids[0]
    theirs = []
    for begin in range(0, len(ids) - WINDOW + 1, WINDOW):
        window = ids[None, begin:begin + WINDOW]
        with torch.no_grad():
            logits = model(window).logits[0, :-1]
        theirs.append(torch.nn.functional.cross_entropy(logits, window[0, 1:]).item())
    theirs = np.array(theirs)
    print("NLL of the windows, atom:        ", ours.round(6))
    print("NLL of the windows, transformers:", theirs.round(6), "largest difference", abs(ours - theirs).max())


def write_fixture(out, folder, tensors, config):
    out.mkdir(parents=True, exist_ok=True)
    weights, rows, kept = config["config_groups"]["group_0"]["weights"], 2, {}
    for module in ["model.layers.0.self_attn.q_proj", "model.layers.0.mlp.up_proj"]:
        state = {name[len(module) + 1:]: t for name, t in tensors.items() if name.startswith(module + ".")}
        state = {part: torch.tensor([rows, t[1]]) if part == "weight_shape" else t[:rows].clone() for part, t in state.items()}
        kept.update({f"{module}.{part}": t for part, t in state.items()})
        kept[f"{module}.decoded"] = by_package(config["format"], weights, state)
    save_file(kept, out / "model.safetensors")
    (out / "model.safetensors").chmod(0o644)
    (out / "config.json").write_text((folder / "config.json").read_text())


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--atom", type=pathlib.Path)
    parser.add_argument("--text", type=pathlib.Path, default=pathlib.Path("examples/text/wiki_eval.txt"))
    parser.add_argument("--fixture", type=pathlib.Path)
    args = parser.parse_args()
    config = json.loads((args.folder / "config.json").read_text())["quantization_config"]
    assert config["quant_method"] == "compressed-tensors", config["quant_method"]
    tensors = read(args.folder)
    compare_weights(tensors, config)
    if args.fixture:
        write_fixture(args.fixture, args.folder, tensors, config)
    if args.atom:
        compare_perplexity(args.folder, args.atom, args.text)


if __name__ == "__main__":
    main()
