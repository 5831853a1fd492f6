#!/usr/bin/env python3
"""Makes tests/data/packed: one tiny LLaMA as GPTQ, AWQ and compressed-tensors store it, with the values that are meant.

  NAME/config.json, model.safetensors   a checkpoint: what stores it is in the name
  NAME/expected.json                    of every quantized tensor: sha256 of its F32 values [outputs, inputs]

Codes, scales and zeros are random; packing and values are written here from the formats' definitions, with numpy alone.
Same seed, same files:
  python tools/make_packed_fixtures.py [--out tests/data/packed] [--check]

--check decodes the compressed-tensors checkpoints with the PyPI package compressed-tensors (and torch), those of GPTQ with the
torch code of PyPI's auto-gptq, and those of AWQ with that of autoawq, and compares. Of the last two only single files are
loaded, so it is enough to unpack what `pip download --no-deps` fetches into folders of PYTHONPATH.

Compared last with compressed-tensors 0.20.0, auto-gptq 0.7.1 and autoawq 0.2.9: every value of every linear equal, but for
"pack-order", whose g_idx that package no longer reads, and with a zero more added for "gptq4-order", since auto-gptq knows
checkpoint_format gptq alone.
"""

import argparse
import hashlib
import importlib.util
import json
import pathlib
import struct
import sys

import numpy as np

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 16, "hidden_size": 32,
    "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 8, "hidden_act": "silu", "max_position_embeddings": 64, "rms_norm_eps": 1e-05,
    "tie_word_embeddings": True, "rope_theta": 10000.0, "bos_token_id": 1, "eos_token_id": 2,
}
LAYER = "model.layers.0."
LINEARS = {"self_attn.q_proj": (32, 32), "self_attn.k_proj": (16, 32), "self_attn.v_proj": (16, 32),
           "self_attn.o_proj": (32, 32), "mlp.gate_proj": (32, 32), "mlp.up_proj": (32, 32), "mlp.down_proj": (32, 32)}
TYPES = {np.dtype(np.int32): "I32", np.dtype(np.int64): "I64", np.dtype(np.int8): "I8", np.dtype(np.uint8): "U8",
         np.dtype(np.float16): "F16", np.dtype(np.float32): "F32", np.dtype(np.uint16): "BF16"}
E2M1 = np.array([0, .5, 1, 1.5, 2, 3, 4, 6, -0.0, -.5, -1, -1.5, -2, -3, -4, -6], np.float32)


class F8(np.ndarray):
    """Bytes of E4M3."""


def bf16(values):
    return (np.asarray(values, np.float32).view(np.uint32) >> 16).astype(np.uint16)  # cut, which is exact for what is drawn


def widened(values):
    if values.dtype == np.uint16:
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32)


def write_safetensors(path, tensors):
    header, data = {}, b""
    for name, values in sorted(tensors.items(), key=lambda item: -item[1].dtype.itemsize):
        raw = np.ascontiguousarray(values).tobytes()
        kind = "F8_E4M3" if isinstance(values, F8) else TYPES[values.dtype]
        header[name] = {"dtype": kind, "shape": list(values.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def streamed(codes, bits):
    """Codes [m, k] as words [m, ceil(k bits / 32)] of one stream of bits a row, lowest first."""
    codes = np.asarray(codes, np.int64)
    each = (codes[:, :, None] >> np.arange(bits)) & 1
    stream = each.reshape(codes.shape[0], -1)
    stream = np.pad(stream, ((0, 0), (0, -stream.shape[1] % 32)))
    words = (stream.reshape(codes.shape[0], -1, 32) << np.arange(32)).sum(-1)
    return words.astype(np.uint32).view(np.int32)


def scales_of(rng, shape):
    """Of 8 bits of mantissa, so that BF16 and F16 have them."""
    return widened(bf16(np.exp(rng.uniform(-4.5, -3, shape)).astype(np.float32)))


def meant(codes, zeros, scales, group_of):
    return ((codes.astype(np.float32) - zeros.astype(np.float32)[:, group_of]) * scales[:, group_of]).astype(np.float32)


def gptq(rng, name, shape, bits, group, sym, order, v1):
    n, k = shape
    group = k if group < 0 else group
    groups = k // group
    codes, scales = rng.integers(0, 1 << bits, (n, k)), scales_of(rng, (n, groups))
    zeros = np.full((n, groups), 1 << (bits - 1)) if sym else rng.integers(1, 1 << bits, (n, groups))
    group_of = np.arange(k) // group
    if order:
        group_of = group_of[rng.permutation(k)]
    tensors = {"qweight": streamed(codes, bits).T,
               "qzeros": streamed((zeros - (1 if v1 else 0)).T, bits), "scales": scales.T.astype(np.float16),
               "g_idx": group_of.astype(np.int32)}
    return tensors, meant(codes, zeros, scales, group_of)


def awq_words(codes):
    """[rows, outputs]: nibble i of a word is output 0 2 4 6 1 3 5 7 of its eight."""
    words = np.zeros((codes.shape[0], codes.shape[1] // 8), np.uint32)
    for nibble, output in enumerate([0, 2, 4, 6, 1, 3, 5, 7]):
        words |= codes[:, output::8].astype(np.uint32) << np.uint32(4 * nibble)
    return words.view(np.int32)


def awq(rng, name, shape, group, zero):
    n, k = shape
    codes, scales = rng.integers(0, 16, (n, k)), scales_of(rng, (n, k // group))
    zeros = rng.integers(0, 16, (n, k // group)) if zero is None else np.full((n, k // group), zero)
    tensors = {"qweight": awq_words(codes.T), "qzeros": awq_words(zeros.T), "scales": scales.T.astype(np.float16)}
    return tensors, meant(codes, zeros, scales, np.arange(k) // group)


def packed(rng, name, shape, bits=4, group=32, sym=True, order=False, half=bf16):
    n, k = shape
    group = k if group < 0 else group
    codes, scales = rng.integers(0, 1 << bits, (n, k)), scales_of(rng, (n, k // group))
    middle = 1 << (bits - 1)
    zeros = np.full(scales.shape, middle) if sym else rng.integers(0, 1 << bits, scales.shape)
    group_of = np.arange(k) // group
    if order:
        group_of = group_of[rng.permutation(k)]
    tensors = {"weight_packed": streamed(codes, bits), "weight_scale": half(scales),
               "weight_shape": np.array(shape, np.int64)}
    if not sym:
        tensors["weight_zero_point"] = streamed(zeros.T, bits).T
    if order:
        tensors["weight_g_idx"] = group_of.astype(np.int32)
    return tensors, meant(codes, zeros, scales, group_of)


def int8(rng, name, shape, group=-1, sym=True, lowest=-127):
    n, k = shape
    group = k if group < 0 else group
    codes, scales = rng.integers(lowest, 128, (n, k)), scales_of(rng, (n, k // group)) / 16
    zeros = np.zeros(scales.shape, int) if sym else rng.integers(-128, 128, scales.shape)
    tensors = {"weight": codes.astype(np.int8), "weight_scale": bf16(scales)}
    if not sym:
        tensors["weight_zero_point"] = zeros.astype(np.int8)
    return tensors, meant(codes, zeros, scales, np.arange(k) // group)


def e4m3(bits):
    bits = bits.astype(np.int64)
    exponent, mantissa = bits >> 3 & 15, bits & 7
    value = np.where(exponent == 0, mantissa * 2.0**-9, (8 + mantissa) * 2.0 ** (exponent - 10.0))
    return np.where(bits & 128, -value, value).astype(np.float32)


def float8(rng, name, shape, rows, columns, kind=np.float32):
    """One scale a block of rows x columns; the last blocks may be short."""
    n, k = shape
    rows, columns = rows or n, columns or k
    codes = rng.integers(0, 0x70, shape) | rng.integers(0, 2, shape) << 7
    scales = scales_of(rng, (-(-n // rows), -(-k // columns))) / 16
    tensors = {"weight": codes.astype(np.uint8).view(F8), "weight_scale": scales.astype(kind)}
    if rows == n and columns == k:
        tensors["weight_scale"] = tensors["weight_scale"].reshape(1)
        tensors["input_scale"] = np.array([0.5], np.float32)
    return tensors, (e4m3(codes) * scales[np.arange(n) // rows][:, np.arange(k) // columns]).astype(np.float32)


def float4(rng, name, shape, nv):
    n, k = shape
    codes = rng.integers(0, 16, shape)
    tensors = {"weight_packed": (codes[:, ::2] | codes[:, 1::2] << 4).astype(np.uint8)}
    if nv:
        bits, together = rng.integers(0x30, 0x70, (n, k // 16)), np.float32(75.5)
        tensors["weight_scale"] = bits.astype(np.uint8).view(F8)
        tensors["weight_global_scale"] = np.array([together])
        scales = e4m3(bits) / together
    else:
        bits = rng.integers(118, 124, (n, k // 32))
        tensors["weight_scale"] = bits.astype(np.uint8)
        scales = (2.0 ** (bits - 127.0)).astype(np.float32)
    return tensors, (E2M1[codes] * scales[:, np.arange(k) // (16 if nv else 32)] + np.float32(0)).astype(np.float32)


def weights(bits=4, kind="int", strategy="group", symmetric=True, **more):
    return {"num_bits": bits, "type": kind, "symmetric": symmetric, "strategy": strategy, "dynamic": False, **more}


TOKENS = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "token", "dynamic": True, "observer": None}


def compressed(form, *groups, ignore=("lm_head",)):
    return {"quant_method": "compressed-tensors", "format": form, "quantization_status": "compressed",
            "kv_cache_scheme": None, "ignore": list(ignore), "version": "0.12.2", "sparsity_config": {},
            "transform_config": {}, "config_groups": {
                f"group_{i}": {"targets": targets, "weights": w, "input_activations": a, "output_activations": None,
                               **({"format": f} if f else {})} for i, (targets, w, a, f) in enumerate(groups)}}


def gptq_config(bits, group, sym, act, form):
    return {"quant_method": "gptq", "bits": bits, "group_size": group, "sym": sym, "desc_act": act,
            "checkpoint_format": form, "damp_percent": 0.01, "true_sequential": True}


def all_of(make, *args, kv_rows=16, **more):
    shapes = {name: (kv_rows, 32) if name[10:] in ("k_proj", "v_proj") else shape for name, shape in LINEARS.items()}
    return lambda rng: {name: make(rng, name, shape, *args, **more) for name, shape in shapes.items()}


def mixed(rng):
    s = LINEARS
    q, k, v, o, gate, up, down = s
    return {q: packed(rng, q, s[q], 8, -1, False), k: float8(rng, k, s[k], 0, 0), v: int8(rng, v, s[v], 16, False),
            o: int8(rng, o, s[o], lowest=-128), gate: float8(rng, gate, s[gate], 24, 20),
            up: float4(rng, up, s[up], True), down: float4(rng, down, s[down], False)}


MIXED = compressed(
    "mixed-precision",
    ([LAYER + "self_attn.q_proj"], weights(8, strategy="channel", symmetric=False), None, "pack-quantized"),
    (["re:.*k_proj$"], weights(8, "float", "tensor"),
     {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "tensor", "dynamic": False}, "float-quantized"),
    (["re:.*v_proj$"], weights(8, group_size=16, symmetric=False), None, "naive-quantized"),
    (["Linear"], weights(8, strategy="channel"), TOKENS, "int-quantized"),
    (["re:.*gate_proj"], weights(8, "float", "block", block_structure=[24, 20]), None, "float-quantized"),
    (["re:.*up_proj"], weights(4, "float", "tensor_group", group_size=16), None, "nvfp4-pack-quantized"),
    (["re:.*down_proj"], weights(4, "float", "group", group_size=32), None, "mxfp4-pack-quantized"))

FIXTURES = {
    "gptq4": (gptq_config(4, 32, True, False, "gptq"), all_of(gptq, 4, 32, True, False, True)),
    "gptq4-order": (gptq_config(4, 8, False, True, "gptq_v2"), all_of(gptq, 4, 8, False, True, False)),
    "gptq8-row": (gptq_config(8, -1, False, False, "gptq"), all_of(gptq, 8, -1, False, False, True)),
    "gptq3": (gptq_config(3, 16, False, False, "gptq"), all_of(gptq, 3, 16, False, False, True, kv_rows=32)),
    "awq": ({"quant_method": "awq", "bits": 4, "group_size": 16, "zero_point": True, "version": "gemm",
             "modules_to_not_convert": None}, all_of(awq, 16, None)),
    "awq-middle": ({"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "GEMM"},
                   all_of(awq, 32, 8)),
    "pack": (compressed("pack-quantized", (["Linear"], weights(group_size=32, observer="minmax"), None, None)),
             all_of(packed)),
    "pack-zeros": (compressed("pack-quantized", (["Linear"], weights(group_size=16, symmetric=False), None, None)),
                   all_of(packed, 4, 16, False, half=np.float16)),
    "pack-order": (compressed("pack-quantized", (["Linear"], weights(group_size=8, actorder="group"), None, None)),
                   all_of(packed, 4, 8, order=True)),
    "int8": (compressed("int-quantized", (["Linear"], weights(8, strategy="channel"), TOKENS, None)), all_of(int8)),
    "fp8-rows": (compressed("float-quantized", (["Linear"], weights(8, "float", "channel"), {
        **TOKENS, "type": "float"}, None)), all_of(float8, 1, 0)),
    "mixed": (MIXED, mixed),
}


def write(folder, quantization, linears, plain):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({
        **CONFIG, "num_key_value_heads": len(linears["self_attn.k_proj"][1]) // 8,
        "quantization_config": quantization}) + "\n")
    tensors, expected = dict(plain), {}
    for name, (parts, values) in linears.items():
        tensors.update({f"{LAYER}{name}.{part}": data for part, data in parts.items()})
        raw = np.ascontiguousarray(values, "<f4").tobytes()
        expected[f"{LAYER}{name}.weight"] = hashlib.sha256(raw).hexdigest()
    write_safetensors(folder / "model.safetensors", tensors)
    (folder / "expected.json").write_text(json.dumps(expected, indent=0) + "\n")


def check_compressed(quantization, linears):
    """compressed-tensors decodes in the type of the scales, to which ours are rounded."""
    import torch
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationScheme
    groups = list(quantization["config_groups"].values())
    for name, (parts, values) in linears.items():
        if "weight_g_idx" in parts:  # no longer read by the package
            continue
        group = next((g for g in groups if any(t != "Linear" and (t in LAYER + name or t[5:].rstrip("$") in name)
                                               for t in g["targets"])),
                     next((g for g in groups if "Linear" in g["targets"]), None))
        form = group.get("format") or quantization["format"]
        state = {}
        for part, data in parts.items():
            tensor = torch.from_numpy(np.array(data))
            if isinstance(data, F8):
                tensor = tensor.view(torch.float8_e4m3fn)
            elif data.dtype == np.uint16:
                tensor = tensor.view(torch.bfloat16)
            state[part] = tensor
        scheme = QuantizationScheme(targets=["Linear"], weights=group["weights"])
        got = BaseCompressor.get_value_from_registry(form).decompress(state, scheme)["weight"]
        want = torch.from_numpy(values).to(got.dtype)
        assert torch.equal(got.float() + 0, want.float() + 0), (name, form, got, want)
        print("  compressed-tensors decodes", name, "as", got.dtype)


def module_at(path):
    """The one file of a package, without the package and what that wants; None: not on the path."""
    for folder in map(pathlib.Path, sys.path):
        if (folder / path).is_file():
            spec = importlib.util.spec_from_file_location(pathlib.Path(path).stem, folder / path)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module
    return None


def check_gptq(quantization, linears):
    module = module_at("auto_gptq/nn_modules/qlinear/qlinear_cuda.py")
    if module is None:
        return print("  no auto-gptq: not checked")
    import torch
    for name, (parts, values) in linears.items():
        n, k = values.shape
        layer = module.QuantLinear(quantization["bits"], quantization["group_size"], k, n, bias=False)
        for part in ("qweight", "qzeros", "g_idx"):
            setattr(layer, part, torch.from_numpy(np.array(parts[part])))
        scales = parts["scales"].astype(np.float32)
        layer.scales = torch.from_numpy(scales)
        got = layer(torch.eye(k)).T.detach().numpy()  # rows of the identity pick columns
        if quantization["checkpoint_format"] == "gptq_v2":
            got = got + scales.T[:, parts["g_idx"]]
        assert np.array_equal(got, values), name
    print("  auto-gptq decodes all", len(linears))


def check_awq(linears):
    module = module_at("awq/utils/packing_utils.py")
    if module is None:
        return print("  no autoawq: not checked")
    import torch
    for name, (parts, values) in linears.items():
        q, z, s = (torch.from_numpy(np.array(parts[part])) for part in ("qweight", "qzeros", "scales"))
        got = module.dequantize_gemm(q, z, s.float(), 4, values.shape[1] // s.shape[0]).T.numpy()
        assert np.array_equal(got, values), name
    print("  autoawq decodes all", len(linears))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    root = pathlib.Path(__file__).resolve().parent.parent
    parser.add_argument("--out", type=pathlib.Path, default=root / "tests/data/packed")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    rng = np.random.default_rng(11)
    plain = {"model.embed_tokens.weight": rng.standard_normal((16, 32)).astype(np.float16),
             "model.norm.weight": np.ones(32, np.float16), LAYER + "input_layernorm.weight": np.ones(32, np.float16),
             LAYER + "post_attention_layernorm.weight": np.ones(32, np.float16)}
    for name, (quantization, make) in FIXTURES.items():
        linears = make(np.random.default_rng([11, len(name), ord(name[-1])]))
        write(args.out / name, quantization, linears, plain)
        if not args.check:
            continue
        print(name)
        if quantization["quant_method"] == "compressed-tensors":
            check_compressed(quantization, linears)
        elif quantization["quant_method"] == "gptq":
            check_gptq(quantization, linears)
        elif quantization["quant_method"] == "awq":
            check_awq(linears)


if __name__ == "__main__":
    main()
