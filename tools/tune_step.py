#!/usr/bin/env python3
"""Finds the plans of linears (docs/benchmarks.md, Tuning) with which a whole decoding step is fastest.

    python3 tools/tune_step.py PROGRAM OUT.json --preset fp --kv f16 --batch 8 --context 640 [--shape llama-7b]
        [--linears 12288x4096,4096x4096,22016x4096,4096x11008] [--gain 0.003] [--rounds 2]

`atom bench ops --tune` times a linear alone, where launches of one kernel fill each other's gaps. Here each linear of a layer
in turn (--linears: outputs x inputs) gets every plan that its kernels have for --batch rows, the others keep theirs, and
`atom bench step` says what a step takes; the fastest stays where that is more than --gain of a step. Steps run at once on all
GPUs, or on those of CUDA_VISIBLE_DEVICES, a program each: they should be alike. OUT.json holds the plans that stayed, for
--tuned. Exit status: 0, or 1 when the program fails.
"""
import argparse
import concurrent.futures
import itertools
import json
import os
import pathlib
import queue
import subprocess
import sys
import tempfile

KERNELS = {"fp": "f16", "w16a16": "f16", "w4a16": "w4a16", "w8a8": "w8a8", "w4a8": "w4a8", "w4a4": "w4a4"}
TILES = [8, 16, 32, 64, 128, 256]
NO_KERNEL = "must be a kernel of"  # what the program says of a plan that does not exist


def plans_to_try(rows):
    """(kind, tile, blocks, groups, cluster), those without a kernel among them."""
    tile = next((t for t in TILES if t >= rows), TILES[-1])
    few = itertools.product(["few"], [tile], [1, 2, 4], range(1, 9), [1, 2, 4])
    many = itertools.product(["many"], [t for t in TILES[3:] if t <= 2 * tile], [2], [1, 2], [1, 2])
    return (list(few) if tile <= 128 else []) + (list(many) if tile >= 64 else [])


class Steps:
    """Steps of one model on several GPUs."""

    def __init__(self, arguments):
        self.arguments = arguments
        named = os.environ.get("CUDA_VISIBLE_DEVICES")
        found = subprocess.run(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], stdout=subprocess.PIPE, check=True)
        names = found.stdout.decode().split("\n")
        self.device = names[0].strip()
        self.gpus = named.split(",") if named else [str(i) for i, name in enumerate(names) if name.strip()]
        self.free = queue.Queue()
        for gpu in self.gpus:
            self.free.put(gpu)
        self.folder = tempfile.TemporaryDirectory()

    def file_of(self, plans, path):
        a = self.arguments
        entries = [{"kernels": KERNELS[a.preset], "n": n, "k": k, "rows": a.batch, "kind": plan[0], "tile": plan[1],
                    "blocks": plan[2], "groups": plan[3], "cluster": plan[4]} for (n, k), plan in plans.items()]
        text = json.dumps({"atom_plans": 1, "device": self.device, "multiprocessors": a.multiprocessors, "plans": entries}, indent=1)
        pathlib.Path(path).write_text(text + "\n", encoding="utf-8")

    def milliseconds(self, plans):
        """Of a step, or None where a plan has no kernel."""
        a = self.arguments
        gpu = self.free.get()
        try:
            path = pathlib.Path(self.folder.name) / f"{gpu}.json"
            self.file_of(plans, path)
            command = [a.program, "bench", "step", "--backend", "cuda", "--shapes", a.shape, "--preset", a.preset, "--batch", str(a.batch),
                       "--context", str(a.context), "--rounds", str(a.rounds), "--json", "--tuned", str(path)] + (["--kv", a.kv] if a.kv else [])
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "CUDA_VISIBLE_DEVICES": gpu})
        finally:
            self.free.put(gpu)
        said = done.stderr.decode()
        if done.returncode != 0:
            if NO_KERNEL in said:
                return None
            raise RuntimeError(said.strip().split("\n")[-1])
        return json.loads(done.stdout)["steps"][0]["ms"]

    def all(self, lists):
        with concurrent.futures.ThreadPoolExecutor(len(self.gpus)) as pool:
            return list(pool.map(self.milliseconds, lists))


def tune(steps, linears, rows, gain):
    """The plans that stay, of linears (n, k), and the time of a step with them."""
    kept = {}
    least = min(steps.all([{}] * len(steps.gpus)))
    print(f"step {least:.3f} ms with the plans in use", flush=True)
    plans = plans_to_try(rows)
    for linear in linears:
        times = steps.all([{**kept, linear: plan} for plan in plans])
        tried = sorted((ms, plan) for ms, plan in zip(times, plans) if ms is not None)
        if not tried:
            raise RuntimeError(f"no plan of {linear[0]}x{linear[1]} has a kernel")
        plans = [plan for _, plan in tried]  # the others have none for the next linear either
        for ms, plan in tried[:4]:
            print(f"  {linear[0]}x{linear[1]} {'/'.join(map(str, plan))} {ms:.3f}", flush=True)
        if tried[0][0] < least * (1 - gain):
            least, kept[linear] = tried[0]
    return kept, least


def main(words):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("out")
    parser.add_argument("--shape", default="llama-7b")
    parser.add_argument("--linears", default="12288x4096,4096x4096,22016x4096,4096x11008")
    parser.add_argument("--preset", choices=sorted(KERNELS), required=True)
    parser.add_argument("--kv")
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--gain", type=float, default=0.003)
    parser.add_argument("--multiprocessors", type=int, default=132)
    arguments = parser.parse_args(words)
    linears = [tuple(map(int, linear.split("x"))) for linear in arguments.linears.split(",")]
    try:
        steps = Steps(arguments)
        kept, least = tune(steps, linears, arguments.batch, arguments.gain)
    except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
        print(f"tune_step: {error}", file=sys.stderr)
        return 1
    steps.file_of(kept, arguments.out)
    print(f"step {least:.3f} ms with {len(kept)} other plans, in {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
