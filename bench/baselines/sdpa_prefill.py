#!/usr/bin/env python3
"""The f16 peer of prefill_bench: causal scaled_dot_product_attention of torch (cuDNN and flash) over whole prompts with
contiguous f16 KV, in CUDA graphs; the least of 9 replays.

Usage: sdpa_prefill.py OUT.csv [--all]     cuDNN, or all; lines "heads,kv_heads,head_dim,batch,tokens,backend,us"
"""
import sys

import torch
import torch.nn.functional as functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from graphs import graph_us

SHAPES = ((32, 32, 128), (32, 8, 128), (32, 8, 64), (32, 8, 256))
SIZES = ((1, 1024), (1, 4096), (4, 4096), (1, 8192), (1, 16384), (1, 32768))
BACKENDS = (("cudnn", SDPBackend.CUDNN_ATTENTION), ("flash", SDPBackend.FLASH_ATTENTION))
WARM_SECONDS = 0.06


def attention_us(heads, kv_heads, dim, batch, tokens, backend):
    def tensor(count):
        return torch.randn(batch, count, tokens, dim, device="cuda", dtype=torch.float16)

    query, keys, values = tensor(heads), tensor(kv_heads), tensor(kv_heads)
    flops = 2.0 * dim * heads * batch * tokens * tokens

    def call():
        return functional.scaled_dot_product_attention(query, keys, values, is_causal=True,
                                                       enable_gqa=heads != kv_heads)

    with sdpa_kernel(backend):
        return graph_us([call] * (20 if flops < 1e11 else 2), warm_seconds=WARM_SECONDS)


def main():
    with open(sys.argv[1], "w") as out:
        for heads, kv_heads, dim in SHAPES:
            for batch, tokens in SIZES:
                for name, backend in BACKENDS:
                    if name == "flash" and "--all" not in sys.argv:
                        continue
                    try:
                        us = attention_us(heads, kv_heads, dim, batch, tokens, backend)
                    except RuntimeError as error:
                        print(heads, kv_heads, dim, batch, tokens, name, error, file=sys.stderr)
                        continue
                    out.write(f"{heads},{kv_heads},{dim},{batch},{tokens},{name},{us:.3f}\n")
                    out.flush()


main()
