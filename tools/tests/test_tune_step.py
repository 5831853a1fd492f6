"""Tests of tools/tune_step.py, with a program that knows its times: python3 -m unittest discover -s tools/tests"""

import json
import os
import pathlib
import stat
import subprocess
import sys
import tempfile
import unittest

TOOL = pathlib.Path(__file__).resolve().parent.parent / "tune_step.py"

# A step of 5 ms; qkv is faster by clusters of two, o by blocks of two. Kernels have one block, or two without a cluster.
PROGRAM = """#!/usr/bin/env python3
import json, sys
words = sys.argv[1:]
if {fails}:
    sys.exit("atom: no device")
ms = 5.0
for plan in json.load(open(words[words.index("--tuned") + 1]))["plans"]:
    if plan["kind"] != "few" or plan["groups"] > 2 or plan["blocks"] > 2 or plan["blocks"] * plan["cluster"] > 2:
        sys.exit("atom: f.json: the fields must be a kernel of f16, but are others")
    if plan["n"] == 12288 and plan["cluster"] == 2:
        ms -= 0.25
    if plan["n"] == plan["k"] and plan["blocks"] == 2:
        ms -= 0.125
    if plan["n"] == 22016:
        ms -= 0.001
print(json.dumps({{"steps": [{{"ms": ms}}]}}))
"""


class TuneStep(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.root = pathlib.Path(self.folder.name)
        self.write("nvidia-smi", "#!/bin/sh\nprintf 'Device A\\nDevice A\\n'\n")

    def tearDown(self):
        self.folder.cleanup()

    def write(self, name, text):
        path = self.root / name
        path.write_text(text, encoding="utf-8")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def run_tool(self, fails=False):
        self.write("atom", PROGRAM.format(fails=fails))
        words = [sys.executable, str(TOOL), str(self.root / "atom"), str(self.root / "out.json"), "--preset", "fp", "--batch", "8"]
        environment = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
        environment["PATH"] = f"{self.root}:{environment['PATH']}"
        return subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, check=False)

    def test_keeps_what_makes_a_step_faster(self):
        done = self.run_tool()
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(b"step 4.625 ms with 2 other plans", done.stdout)
        file = json.loads((self.root / "out.json").read_text())
        self.assertEqual(file["device"], "Device A")
        found = {(p["n"], p["k"]): (p["rows"], p["tile"], p["blocks"], p["cluster"]) for p in file["plans"]}
        self.assertEqual(found, {(12288, 4096): (8, 8, 1, 2), (4096, 4096): (8, 8, 2, 1)})

    def test_a_failure_is_told_and_writes_nothing(self):
        done = self.run_tool(fails=True)
        self.assertEqual(done.returncode, 1)
        self.assertEqual(done.stderr, b"tune_step: atom: no device\n")
        self.assertFalse((self.root / "out.json").exists())


if __name__ == "__main__":
    unittest.main()
