#!/usr/bin/env python3
"""`gqa convert --kv-rank`: fewer numbers per key and value."""

import unittest

from gqa_case import files
from model_folder import SOURCE
from verb_case import HELDOUT, VerbCase

TEXT = ["--calibrate", HELDOUT, "--calibrate-tokens", "512", "--sampled-tokens", "512", "--refine", "40"]


class KvRankTest(VerbCase):
    def test_bytes_fall_and_are_told(self):
        before = self.json("inspect", SOURCE)["kv_bytes_per_token"]
        out = self.place()
        args = ["convert", SOURCE, out, "--kv-rank", "12"]
        plan = self.json(*args, "--dry-run")
        self.assertEqual((plan["source_head_dim"], plan["result_head_dim"]), (16, 12))
        self.assertEqual(len(plan["planes"]), 6)
        self.assertEqual(plan["result_kv_bytes_per_token"], before * 12 // 16)
        self.assertRegex(self.ok(*args, "--dry-run"), "head size +16 -> 12\n")
        self.assertEqual(self.json(*args), plan | {"dry_run": False})
        found = self.json("inspect", out)
        self.assertEqual(found["kv_bytes_per_token"], before * 12 // 16)
        self.assertEqual((found["head_dim"], found["kv_heads"]), (12, [8] * 6))
        self.ok("verify", out)
        self.ok("expand", out, self.place())
        self.ok("export", out, self.root / "out.gguf")
        fewer = self.place()
        done = self.gqa("convert", SOURCE, fewer, "--kv-rank", "8", "--kv-heads", "4")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("KV heads 8 -> 4, head size 16 -> 8", done.stderr.decode())
        self.assertEqual(self.json("inspect", fewer)["kv_bytes_per_token"], before // 4)

    def test_text_keeps_more(self):
        judged = self.file("judge.txt", HELDOUT.read_text()[-6000:])
        kl = []
        for options in ([], TEXT):
            out = self.place()
            self.ok("convert", SOURCE, out, "--kv-rank", "12", *options)
            kl.append(self.json("eval", out, "--text", judged, "--against", SOURCE)["kl"])
        self.assertLess(kl[1], 0.85 * kl[0])
        again = self.place()
        self.ok("convert", SOURCE, again, "--recipe", out / "gqa_recipe.json", "--calibrate", HELDOUT)
        self.assertEqual(files(out), files(again))

    def test_refusals(self):
        convert = ["convert", SOURCE, self.root / "out"]
        for rank in ("0", "-2", "x", "", "1.5"):
            self.refused(2, [*convert, "--kv-rank", rank], ["--kv-rank"])
        for rank in ("7", "16", "18"):
            self.refused(2, [*convert, "--kv-rank", rank], ["--kv-rank", "even number from 2 to 14", rank])
        self.refused(2, [*convert, "--kv-rank", "8", "--budget", "0.5"], ["--kv-rank", "--budget"])
        self.refused(2, [*convert, "--kv-rank", "8", "--merge", "mean"], ["--kv-rank", "pca"])
        self.refused(2, [*convert, "--kv-rank", "8", "--recipe", "r.json"], ["--recipe"])
        self.refused(2, convert, ["--kv-heads", "--kv-rank"])


if __name__ == "__main__":
    unittest.main()
