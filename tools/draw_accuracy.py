#!/usr/bin/env python3
"""Draws docs/images/accuracy.svg from the results of tools/measure_accuracy.py and tools/measure_methods.py: for each
preset the perplexity lost against 16 bits on the two texts, and the size of the weights.

    tools/draw_accuracy.py WORK > docs/images/accuracy.svg

WORK is the folder given to both. Needs the standard library only.
"""

import json
import pathlib
import sys

# Those of method best are of measure_methods.py.
ROWS = [("best.w4a8", "W4A8, INT4 KV"), ("best.w4a4", "W4A4, INT4 KV"), ("best.w4a4.kept32", "W4A4, INT4 KV, 32 kept"),
        ("w8a8", "published W8A8"), ("w4a16", "published W4A16"), ("w4a4kv4", "published W4A4, INT4 KV"),
        ("w4a4kv4.kept32", "the same, 32 kept")]
MODELS = [("ref-dense-28m", "ref-dense-28m", "#3b6fb6"), ("ref-dense-11m", "ref-dense-11m", "#2f9e77"),
          ("ref-moe-24m", "ref-moe-24m (8 experts)", "#c2702d")]
TEXTS = ("wt2", "wiki")

STYLE = """
  text { font: 13px system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif; fill: #1c2430; }
  .title { font-size: 17px; font-weight: 600; }
  .note { font-size: 12px; fill: #5a6675; }
  .value { font-size: 11px; }
  .grid { stroke: #d6dce4; stroke-width: 1; }
  .paper { fill: #ffffff; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6ebf2; } .note { fill: #9aa7b8; } .grid { stroke: #38424f; } .paper { fill: #12161c; }
  }
"""


def loss(work, model, row):
    """Mean over the texts of perplexity / 16-bit perplexity - 1; None where it was not measured."""
    def ratio(text):
        both = work / f"kld.{model}.{row}.{text}.json"
        if both.exists():
            result = json.loads(both.read_text())
            return result["perplexity_b"] / result["perplexity_a"]
        mine, source = (json.loads((work / f"{model}.{name}.{text}.json").read_text()) for name in (row, "fp"))
        return mine["perplexity"] / source["perplexity"]
    try:
        return sum(ratio(text) - 1 for text in TEXTS) / len(TEXTS)
    except FileNotFoundError:
        return None


def bits(work, model, row):
    for file in (work / f"{model}.{row}.q.json", work / f"quantize.{model}.{row}.json"):
        if file.exists():
            return json.loads(file.read_text())["bits_per_weight"]
    return None


def main():
    work = pathlib.Path(sys.argv[1])
    left, top, bar, gap, width = 220, 76, 13, 16, 820
    scale = 480 / 0.25  # pixels per unit of loss
    height = top + len(ROWS) * (len(MODELS) * bar + gap) + 58
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
           'aria-label="Perplexity lost by each preset on three models">', f"<style>{STYLE}</style>",
           f'<rect class="paper" width="{width}" height="{height}"/>',
           '<text class="title" x="20" y="30">Perplexity lost against 16 bits</text>']
    for i, (_, label, colour) in enumerate(MODELS):
        x = 20 + 190 * i
        out.append(f'<rect x="{x}" y="43" width="12" height="12" fill="{colour}"/>'
                   f'<text x="{x + 18}" y="54">{label}</text>')
    bottom = top + len(ROWS) * (len(MODELS) * bar + gap)
    for percent in range(0, 26, 5):
        x = left + percent / 100 * scale
        out.append(f'<line class="grid" x1="{x}" y1="{top - 8}" x2="{x}" y2="{bottom - 8}"/>'
                   f'<text class="note" x="{x}" y="{bottom + 8}" text-anchor="middle">{percent} %</text>')
    y = top
    for row, label in ROWS:
        out.append(f'<text x="{left - 10}" y="{y + 17}" text-anchor="end">{label}</text>')
        sizes = [b for b in (bits(work, model, row) for model, _, _ in MODELS) if b]
        if sizes:
            words = " to ".join(dict.fromkeys(f"{size:.1f}" for size in (min(sizes), max(sizes))))
            out.append(f'<text class="note" x="{left - 10}" y="{y + 33}" text-anchor="end">{words} bits/weight</text>')
        for model, _, colour in MODELS:
            value = loss(work, model, row)
            if value is None:
                out.append(f'<text class="note" x="{left + 5}" y="{y + 10}">not measured</text>')
                y += bar
                continue
            out.append(f'<rect x="{left}" y="{y}" width="{max(1, value * scale):.1f}" height="{bar - 2}" fill="{colour}"/>'
                       f'<text class="value" x="{left + max(1, value * scale) + 5:.1f}" y="{y + 10}">{100 * value:.1f} %</text>')
            y += bar
        y += gap
    out.append(f'<text class="note" x="20" y="{height - 16}">Mean of WikiText-2 and Wikipedia test texts; method best and '
               "128 kept channels unless named (25 to 50 % of these small models).</text>")
    out.append("</svg>")
    print("\n".join(out))


if __name__ == "__main__":
    main()
