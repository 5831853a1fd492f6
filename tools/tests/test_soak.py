"""Tests of tools/soak.py: python3 -m unittest discover -s tools/tests"""

import pathlib
import random
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import soak  # noqa: E402

MIB = 2**20


class Judge(unittest.TestCase):
    def grows(self, memory):
        rise, allowed = soak.judge([(t, memory(t)) for t in range(600)])
        return rise > allowed

    def test_growth_of_the_second_half_counts(self):
        noise = random.Random(1)
        self.assertFalse(self.grows(lambda t: 200 * MIB))
        self.assertFalse(self.grows(lambda t: (200 + 5 * noise.random()) * MIB))
        self.assertFalse(self.grows(lambda t: min(200, 50 + t) * MIB))  # fills, then stays
        self.assertFalse(self.grows(lambda t: (200 + (2 if t > 450 else 0)) * MIB))  # one more peak
        self.assertTrue(self.grows(lambda t: (200 + 0.02 * t) * MIB))
        self.assertTrue(self.grows(lambda t: (200 + 0.02 * t + noise.random()) * MIB))
        self.assertTrue(self.grows(lambda t: (200 + max(0, t - 250) * 0.05) * MIB))  # begins late

    def test_few_samples_say_nothing(self):
        self.assertEqual(soak.judge([(0, 1), (1, 5)]), (0.0, 0.0))


class Streams(unittest.TestCase):
    def test_ends(self):
        self.assertEqual(soak.check_stream('data: {"a":1}\n\ndata: [DONE]\n\n'), "done")
        self.assertEqual(soak.check_stream('data: {"a":1}\n\ndata: {"error":{}}\n\n'), "error")
        for cut in ("", 'data: {"a":1}\n\n', "data: [DONE]", 'data: {"a":1}\n\ndata: [DO', "x\n\ndata: [DONE]\n\n"):
            with self.assertRaises(soak.Lost):
                soak.check_stream(cut)


if __name__ == "__main__":
    unittest.main()
