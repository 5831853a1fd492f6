"""Hugging Face checkpoints with numpy alone: reading and writing of safetensors, bf16 included.

  tensors = read_checkpoint(folder)            # name -> Tensor, values as f32
  write_safetensors(path, tensors)

For trusted files of our own tools; the program's reader (src/checkpoint) is the one that checks everything.
"""

import json
import pathlib
import shutil
import struct

import numpy as np


class Tensor:
    """Values in f32 and the type they are stored in: "F32", "F16" or "BF16"."""

    def __init__(self, dtype, values):
        self.dtype, self.values = dtype, values


def decode(dtype, raw, shape):
    if dtype == "BF16":
        bits = np.frombuffer(raw, "<u2").astype(np.uint32) << 16
        values = bits.view(np.float32)
    elif dtype in ("F16", "F32"):
        values = np.frombuffer(raw, "<f2" if dtype == "F16" else "<f4").astype(np.float32)
    else:
        raise SystemExit(f"dtype {dtype} is not one of F32, F16, BF16")
    return values.reshape(shape)


def encode(tensor, name):
    """Stored bytes. Refuses values that the type cannot hold exactly: these tools never round."""
    values = np.ascontiguousarray(tensor.values, np.float32)
    if tensor.dtype == "BF16":
        bits = values.view(np.uint32)
        if (bits & 0xFFFF).any():
            raise SystemExit(f"{name}: a value is not a bf16")
        return (bits >> 16).astype("<u2").tobytes()
    stored = values.astype("<f2" if tensor.dtype == "F16" else "<f4")
    if not np.array_equal(stored.astype(np.float32), values):
        raise SystemExit(f"{name}: a value is not an {tensor.dtype}")
    return stored.tobytes()


def round_to_bf16(values):
    """f32 values rounded (half to even) to what a bf16 holds."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return bits.astype(np.uint32).view(np.float32)


def read_safetensors(path):
    with open(path, "rb") as file:
        length = struct.unpack("<Q", file.read(8))[0]
        header = json.loads(file.read(length))
        data = file.read()
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            tensors[name] = Tensor(entry["dtype"], decode(entry["dtype"], data[begin:end], entry["shape"]))
    return tensors


def read_checkpoint(folder):
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return read_safetensors(folder / "model.safetensors")
    tensors = {}
    for shard in sorted(set(json.loads(index.read_text())["weight_map"].values())):
        tensors.update(read_safetensors(folder / shard))
    return tensors


def write_safetensors(path, tensors):
    header, parts, offset = {"__metadata__": {"format": "pt"}}, [], 0
    for name in sorted(tensors):
        raw = encode(tensors[name], name)
        header[name] = {"dtype": tensors[name].dtype, "shape": list(tensors[name].values.shape),
                        "data_offsets": [offset, offset + len(raw)]}
        offset += len(raw)
        parts.append(raw)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for raw in parts:
            file.write(raw)


def copy_other_files(source, target):
    """Tokenizer, configuration and notes: everything at the top of the folder that is no weight."""
    for path in sorted(pathlib.Path(source).iterdir()):
        weights = path.suffix == ".safetensors" or path.name == "model.safetensors.index.json"
        if path.is_file() and not weights:
            shutil.copyfile(path, pathlib.Path(target) / path.name)


def new_folder(path):
    path.mkdir(parents=True, exist_ok=True)
    if any(path.iterdir()):
        raise SystemExit(f"{path} exists and is not empty")
