#!/usr/bin/env python3
"""Measures what each preset costs in perplexity with the published method and prints the tables of docs/accuracy.md.

    tools/measure_accuracy.py --atom build/release/atom --data DATA --work WORK [--models A,B] [--rows r1,r2]

DATA holds the model folders (ref-dense-28m, ref-dense-11m, ref-moe-24m), wikitext2-raw/wiki.test.raw,
wiki-en/wiki_en_test.txt, wiki-en/wiki_en_calibration.txt and oracle/fp_window_nll.json. Quantized checkpoints
go to WORK (kept, so that an interrupted run goes on). Needs the standard library only.

The figures beside ours come from an independent simulation of the published method in FP32 torch
(own implementation, same texts, same protocol); "limit" is that figure + 1 %.
"""

import argparse
import json
import pathlib
import shutil
import subprocess
import sys
import time

MODELS = ["ref-dense-28m", "ref-dense-11m", "ref-moe-24m"]
TEXTS = {"wt2": "wikitext2-raw/wiki.test.raw", "wiki": "wiki-en/wiki_en_test.txt"}
CALIBRATION = "wiki-en/wiki_en_calibration.txt"

PUBLISHED = ["--method", "published"]
# row -> options of `atom quantize`; None: the source itself.
ROWS = {
    "fp": None,
    "w8a8": [*PUBLISHED, "--preset", "w8a8"],
    "w4a16": [*PUBLISHED, "--preset", "w4a16"],
    "kv4": [*PUBLISHED, "--preset", "w16a16", "--kv", "int4"],
    "w4a4": [*PUBLISHED, "--preset", "w4a4", "--kv", "f16"],
    "w4a4kv4": [*PUBLISHED, "--preset", "w4a4", "--kv", "int4"],
    "w4a4kv4.kept32": [*PUBLISHED, "--preset", "w4a4", "--kv", "int4", "--kept", "32"],
}

# Perplexities of the independent simulation: model -> row -> (wt2, wiki).
SIMULATED = {
    "ref-dense-28m": {
        "fp": (29.5085, 16.8574), "w8a8": (29.6686, 16.9208), "w4a16": (31.5135, 17.5962),
        "kv4": (30.4396, 17.2434), "w4a4": (32.3212, 18.2691), "w4a4kv4": (33.3843, 18.7387),
        "w4a4kv4.kept32": (34.2528, 19.1687)},
    "ref-dense-11m": {
        "fp": (24.4257, 13.7287), "w8a8": (24.5724, 13.7922), "w4a16": (25.9832, 14.6190),
        "kv4": (25.6388, 14.3341), "w4a4": (27.3592, 15.1614), "w4a4kv4": (28.9652, 15.9315),
        "w4a4kv4.kept32": (29.9795, 16.5575)},
    "ref-moe-24m": {
        "fp": (39.7405, 20.7742), "w8a8": (39.8076, 20.8367), "w4a16": (42.8790, 22.0803),
        "kv4": (42.0393, 21.7843), "w4a4": (43.9564, 22.4582), "w4a4kv4": (46.4133, 23.6830),
        "w4a4kv4.kept32": (48.8172, 24.5867)},
}


def run_json(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"failed ({done.returncode}): {' '.join(map(str, command))}")
    return json.loads(done.stdout)


def quantized(args, model, row):
    """Folder of the row's checkpoint, made if needed; and seconds of the quantization, if made now."""
    source = args.data / model
    if ROWS[row] is None:
        return source, None
    folder = args.work / f"{model}.{row}"
    seconds = None
    if not folder.exists():
        begin = time.time()
        run_json([args.atom, "quantize", source, folder, *ROWS[row], "--json", "--quiet",
                  "--calibration", args.data / CALIBRATION, *args.common])
        seconds = time.time() - begin
    return folder, seconds


def evaluate(args, model, row, text):
    cache = args.work / f"{model}.{row}.{text}.json"
    if not cache.exists():
        folder, seconds = quantized(args, model, row)
        windows = ["--windows", str(args.windows)] if args.windows else []
        result = run_json([args.atom, "eval", "ppl", folder, "--text", args.data / TEXTS[text], "--json",
                           "--quiet", *windows, *args.common])
        result["quantize_seconds"] = seconds
        cache.write_text(json.dumps(result))
        if args.drop and ROWS[row] is not None and text == list(TEXTS)[-1]:
            shutil.rmtree(folder)
    return json.loads(cache.read_text())


def check_fp_windows(args, model, text, result):
    """Largest difference to the simulated NLL of a window, nats per token."""
    oracle = json.loads((args.data / "oracle/fp_window_nll.json").read_text())["nll"][model][text]
    ours = result["window_nll"]
    if not args.windows and len(ours) != len(oracle):
        sys.exit(f"{model} {text}: {len(ours)} windows, the simulation has {len(oracle)}")
    return max(abs(a - b) for a, b in zip(ours, oracle))


def parse_arguments(description, rows, more=()):
    """Options of a measuring tool; `more`: further flags with their help."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--atom", type=pathlib.Path, required=True)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--rows", default=",".join(rows))
    parser.add_argument("--windows", type=int, default=0, help="only the first N windows (0: all)")
    for flag, text in more:
        parser.add_argument(flag, action="store_true", help=text)
    parser.add_argument("common", nargs="*", help="options for every call, after --")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    return args


def main():
    args = parse_arguments(__doc__, ROWS, [("--drop", "remove a checkpoint once it is scored")])
    failures = 0
    for model in args.models.split(","):
        print(f"\n{model}\n\n| row | wt2 | simulated | change | wiki | simulated | change |\n"
              "| --- | --- | --- | --- | --- | --- | --- |", flush=True)
        for row in args.rows.split(","):
            cells = []
            for i, text in enumerate(TEXTS):
                result = evaluate(args, model, row, text)
                ours, simulated = result["perplexity"], SIMULATED[model][row][i]
                change = ours / simulated - 1
                if not args.windows and change > 0.01:
                    failures += 1
                cells.append(f"{ours:.4f} | {simulated:.4f} | {100 * change:+.2f} %")
                if row == "fp":
                    worst = check_fp_windows(args, model, text, result)
                    failures += worst >= 1e-4
                    cells[-1] += f" (windows within {worst:.1e})"
            print(f"| {row} | " + " | ".join(cells) + " |", flush=True)
    print(f"\n{failures} figures beyond their limit")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
