"""`gqa bench` in a program that was built without it."""
import unittest

from verb_case import VerbCase


class NoBenchTest(VerbCase):
    def test_says_so(self):
        for args in [[], ["decode"], ["decode", "--kv-len", "64"], ["--json"], ["eval", "x"]]:
            with self.subTest(args):
                done = self.gqa("bench", *args)
                self.assertEqual((done.returncode, done.stdout), (2, b""))
                self.assertIn(b"built without `gqa bench` (GQA_BENCH=OFF)", done.stderr)

    def test_help(self):
        self.assertRegex(self.ok("--help"), r"(?m)^  bench +Not in this gqa.*GQA_BENCH=OFF")
        self.assertIn("GQA_BENCH=OFF", self.ok("bench", "--help"))


if __name__ == "__main__":
    unittest.main()
