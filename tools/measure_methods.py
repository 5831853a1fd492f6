#!/usr/bin/env python3
"""Measures method best against the published one, in perplexity and KL divergence, and prints the table of
docs/accuracy.md.

    tools/measure_methods.py --atom build/release/atom --data DATA --work WORK [--models A,B] [--rows r1,r2]

DATA and WORK as in measure_accuracy.py; an interrupted run goes on. "share" is a recipe's loss (perplexity over that
of the source, less 1) or divergence over that of w4a4 (fp4: of fp4) by the published method with as many kept channels.
Needs the standard library only.
"""

import json
import sys

from measure_accuracy import CALIBRATION, TEXTS, parse_arguments, run_json

# row -> (options of `atom quantize`, the row that its shares refer to)
ROWS = {
    "published.w4a4": (["--method", "published", "--preset", "w4a4"], "published.w4a4"),
    "published.w4a4.kept32": (["--method", "published", "--preset", "w4a4", "--kept", "32"], "published.w4a4.kept32"),
    "best.w4a4": (["--preset", "w4a4"], "published.w4a4"),
    "best.w4a4.kept32": (["--preset", "w4a4", "--kept", "32"], "published.w4a4.kept32"),
    "best.w4a8": (["--preset", "w4a8"], "published.w4a4"),
    "best.w4a8.kept32": (["--preset", "w4a8", "--kept", "32"], "published.w4a4.kept32"),
    "published.fp4": (["--method", "published", "--preset", "fp4"], "published.fp4"),
    "best.fp4": (["--preset", "fp4"], "published.fp4"),
}


def measured(args, model, row, text):
    cache = args.work / f"kld.{model}.{row}.{text}.json"
    if not cache.exists():
        source, folder = args.data / model, args.work / f"{model}.{row}"
        if not folder.exists():
            report = run_json([args.atom, "quantize", source, folder, *ROWS[row][0], "--json", "--quiet",
                               "--calibration", args.data / CALIBRATION, *args.common])
            (args.work / f"quantize.{model}.{row}.json").write_text(json.dumps(report))
        windows = ["--windows", str(args.windows)] if args.windows else []
        cache.write_text(json.dumps(run_json(
            [args.atom, "eval", "kld", source, folder, "--text", args.data / TEXTS[text], "--json", "--quiet",
             *windows, *args.common])))
    return json.loads(cache.read_text())


def loss(result):
    return result["perplexity_b"] / result["perplexity_a"] - 1


def main():
    args = parse_arguments(__doc__, ROWS)
    for model in args.models.split(","):
        print(f"\n{model}\n\n| recipe | " + " | ".join(
            f"{text} perplexity | loss | share | KLD | share" for text in TEXTS) + " |")
        print("| --- |" + " --- |" * (5 * len(TEXTS)), flush=True)
        for row in args.rows.split(","):
            cells = []
            for text in TEXTS:
                result, base = measured(args, model, row, text), measured(args, model, ROWS[row][1], text)
                cells.append(f"{result['perplexity_b']:.3f} | {100 * loss(result):.2f} % | "
                             f"{100 * loss(result) / loss(base):.0f} % | {result['mean_kld']:.4f} | "
                             f"{100 * result['mean_kld'] / base['mean_kld']:.0f} %")
            print(f"| {row} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
