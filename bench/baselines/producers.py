#!/usr/bin/env python3
"""The peers of producers_bench that do not quantize: torch's rms_norm and silu(gate) * up, all of it f16 (eager, and
compiled where that works), in CUDA graphs; from 1024 rows on over more data than the L2 cache holds. The least of 9
replays.

Usage: producers.py OUT.csv     lines "op,k,rows,us", op: rms_norm, silu_mul, silu_mul_compiled
"""
import sys
import time

import torch
import torch.nn.functional as functional

from graphs import graph_us

NORM_WIDTHS = (4096, 8192)
GATE_WIDTHS = (11008, 14336, 28672)
ROWS = (1, 8, 64, 1024, 4096)
COLD_ROWS = 1024
COLD_BYTES = 300e6
FEW_NODES = 60
COMPILE_SECONDS = 30


def silu_mul(x):
    gate, up = x.chunk(2, dim=-1)
    return functional.silu(gate) * up


def compiled_silu_mul():
    """None where there is no compiler, or it takes too long."""
    begin = time.monotonic()
    try:
        call = torch.compile(silu_mul, dynamic=True)
        for rows, k in ((8, 11008), (64, 14336)):
            call(torch.randn(rows, 2 * k, device="cuda", dtype=torch.float16))
        torch.cuda.synchronize()
    except Exception as error:  # any of the compiler's
        print(f"torch.compile: {error}", file=sys.stderr)
        return None
    seconds = time.monotonic() - begin
    print(f"torch.compile: {seconds:.1f} s", file=sys.stderr)
    return call if seconds < COMPILE_SECONDS else None


def op_us(op, rows, width):
    """op: of one tensor [rows, width]."""
    copies = max(2, int(COLD_BYTES / (2 * rows * width)) + 1) if rows >= COLD_ROWS else 4
    inputs = [torch.randn(rows, width, device="cuda", dtype=torch.float16) for _ in range(copies)]
    # Results keep their places for as long as the graph is captured, so that they rotate too.
    kept = [None] * copies

    def call(i):
        def run():
            kept[i] = op(inputs[i])
        return run

    calls = [call(i) for i in range(copies)]
    return graph_us(calls * max(1, (FEW_NODES if rows < COLD_ROWS else 12) // copies))


def main():
    compiled = compiled_silu_mul()
    gates = [("silu_mul", silu_mul)] + ([("silu_mul_compiled", compiled)] if compiled else [])
    with open(sys.argv[1], "w") as out:
        for k in NORM_WIDTHS:
            weight = torch.randn(k, device="cuda", dtype=torch.float16)
            for rows in ROWS:
                us = op_us(lambda x: functional.rms_norm(x, (k,), weight, 1e-5), rows, k)
                out.write(f"rms_norm,{k},{rows},{us:.3f}\n")
        for k in GATE_WIDTHS:
            for rows in ROWS:
                for name, op in gates:
                    out.write(f"{name},{k},{rows},{op_us(op, rows, 2 * k):.3f}\n")


main()
