"""Tests of tools/nvcc_checked.sh with a compiler that says what it is told."""
import pathlib
import subprocess
import tempfile
import unittest

SCRIPT = pathlib.Path(__file__).resolve().parents[1] / "nvcc_checked.sh"
CLEAN = "ptxas info    : Used 168 registers\n    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n"
SPILLS = "    8 bytes stack frame, 12 bytes spill stores, 16 bytes spill loads\n"
SERIAL = "ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized\n"


class NvccCheckedTest(unittest.TestCase):
    def compile(self, mode, says, status=0):
        """Exit status, stderr, whether the object is left."""
        with tempfile.TemporaryDirectory() as folder:
            compiler = pathlib.Path(folder) / "compiler"
            compiler.write_text('#!/bin/sh\ncat "$(dirname "$0")/says" >&2\n: > "$2"\n' f"exit {status}\n")
            compiler.chmod(0o755)
            (pathlib.Path(folder) / "says").write_text(says)
            made = pathlib.Path(folder) / "kernel.o"
            run = subprocess.run(["sh", SCRIPT, mode, compiler, "-o", made], capture_output=True, text=True)
            return run.returncode, run.stderr, made.exists()

    def test_clean_is_silent(self):
        self.assertEqual(self.compile("fail", CLEAN), (0, "", True))

    def test_spills_and_serialized_wgmma_fail(self):
        for line in (SPILLS, SERIAL):
            status, said, left = self.compile("fail", CLEAN + line)
            self.assertEqual((status, left), (1, False))
            self.assertIn(line.strip(), said)

    def test_show_only_tells(self):
        status, said, left = self.compile("show", CLEAN + SPILLS)
        self.assertEqual((status, left), (0, True))
        self.assertIn("12 bytes spill", said)

    def test_errors_and_warnings_pass_through(self):
        status, said, _ = self.compile("fail", "kernel.cu(1): error\n", 2)
        self.assertEqual(status, 2)
        self.assertIn("kernel.cu(1): error", said)
        self.assertIn("warning", self.compile("fail", CLEAN + "kernel.cu(1): warning\n")[1])


if __name__ == "__main__":
    unittest.main()
