#!/usr/bin/env python3
"""The f16 peer of decode_bench: scaled_dot_product_attention of torch (cuDNN and flash) for one query a
sequence over contiguous f16 KV, in CUDA graphs whose KV rotates over more than 200 MB; the least of 9 replays.

Usage: sdpa_decode.py OUT.csv [--all]     cuDNN, or all; lines "heads,kv_heads,batch,context,backend,us"
"""
import sys

import torch
import torch.nn.functional as functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from graphs import graph_us

HEADS = ((32, 32), (32, 8), (64, 8))
SIZES = ((1, 4096), (1, 32768), (8, 1024), (16, 1024), (64, 1024), (128, 1024), (16, 4096), (64, 4096))
BACKENDS = (("cudnn", SDPBackend.CUDNN_ATTENTION), ("flash", SDPBackend.FLASH_ATTENTION))
DIM = 128


def attention_us(heads, kv_heads, batch, context, keys, values, backend):
    count = batch * kv_heads * context * DIM
    copies = max(1, min(64, int(200e6 / (count * 4)) + 1, keys.numel() // count))
    query = torch.randn(batch, heads, 1, DIM, device="cuda", dtype=torch.float16)
    shape = (batch, kv_heads, context, DIM)

    def call(i):
        k, v = (x[i * count:(i + 1) * count].view(shape) for x in (keys, values))
        return lambda: functional.scaled_dot_product_attention(query, k, v, enable_gqa=heads != kv_heads)

    calls = [call(i) for i in range(copies)] * max(1, -(-8 // copies))
    with sdpa_kernel(backend):
        return graph_us(calls)


def main():
    base = torch.randn(64 * 32 * 4096 * DIM // 4, device="cuda", dtype=torch.float16)
    keys, values = base.repeat(4), base.repeat(4).roll(12345)
    with open(sys.argv[1], "w") as out:
        for heads, kv_heads in HEADS:
            for batch, context in SIZES:
                for name, backend in BACKENDS:
                    if name == "flash" and "--all" not in sys.argv:
                        continue
                    us = attention_us(heads, kv_heads, batch, context, keys, values, backend)
                    out.write(f"{heads},{kv_heads},{batch},{context},{name},{us:.3f}\n")


main()
