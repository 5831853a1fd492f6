#!/usr/bin/env python3
"""The library's side of `atom bench ops`: linears of torch at the shapes of LLaMA-7B and LLaMA-2-70B: f16 F.linear, INT8
_int_mm (more than 16 rows) and FP8 _scaled_mm, in CUDA graphs over more weights than the L2 cache holds; the least of 9
replays, after some load where products are long.

Usage: linear.py OUT.csv [7b] [70b]     lines "n,k,rows,f16|int8|fp8,us", to be read by atom bench ops --baseline OUT.csv
"""
import sys

import torch
import torch.nn.functional as functional

from graphs import graph_us

SHAPES = {"7b": ((12288, 4096), (4096, 4096), (22016, 4096), (4096, 11008)),
          "70b": ((10240, 8192), (8192, 8192), (57344, 8192), (8192, 28672))}
ROWS = (1, 8, 16, 32, 64, 128, 256, 1024, 4096)
ROTATED_BYTES = 450e6
WARM_SECONDS = 0.25


def half(rows, weights):
    x = torch.randn(rows, weights[0].shape[1], device="cuda", dtype=torch.float16)
    return [lambda w=w: functional.linear(x, w) for w in weights]


def integers(rows, weights):
    x = (32 * torch.randn(rows, weights[0].shape[1], device="cuda")).clamp(-127, 127).to(torch.int8)
    return [lambda w=w: torch._int_mm(x, w.t()) for w in weights]


def floats8(rows, weights):
    x = torch.randn(rows, weights[0].shape[1], device="cuda").to(torch.float8_e4m3fn)
    one = torch.ones((), device="cuda")
    return [lambda w=w: torch._scaled_mm(x, w.t(), scale_a=one, scale_b=one, out_dtype=torch.bfloat16,
                                         use_fast_accum=True) for w in weights]


FORMATS = (("f16", half, lambda w: w.half()), ("int8", integers, lambda w: (32 * w).clamp(-127, 127).to(torch.int8)),
           ("fp8", floats8, lambda w: w.to(torch.float8_e4m3fn)))


def main():
    wanted = sys.argv[2:] or list(SHAPES)
    with open(sys.argv[1], "w") as out:
        for n, k in (shape for name in wanted for shape in SHAPES[name]):
            for name, calls, narrow in FORMATS:
                bytes_each = n * k * (2 if name == "f16" else 1)
                copies = max(2, int(ROTATED_BYTES / bytes_each) + 1)
                weights = [narrow(torch.randn(n, k, device="cuda")) for _ in range(copies)]
                for rows in ROWS:
                    try:
                        us = graph_us(calls(rows, weights) * max(1, 8 // copies),
                                      warm_seconds=WARM_SECONDS if rows >= 1024 else 0.0)
                    except RuntimeError as error:
                        print(n, k, rows, name, error, file=sys.stderr)
                        continue
                    out.write(f"{n},{k},{rows},{name},{us:.3f}\n")
                    out.flush()
                del weights


main()
