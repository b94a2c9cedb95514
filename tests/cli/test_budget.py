#!/usr/bin/env python3
"""Budgets of KV heads, through the program."""
import json
import unittest

from gqa_case import files
from model_folder import SOURCE
from verb_case import HELDOUT, VerbCase

SOME_TEXT = ["--calibrate-tokens", "256", "--sampled-tokens", "128", "--refine", "1"]


class BudgetTest(VerbCase):
    def test_weights_alone(self):
        out = self.place()
        args = ["convert", SOURCE, out, "--budget", "0.6"]
        plan = self.json(*args, "--dry-run")
        heads = plan["result_kv_heads"]
        self.assertEqual(plan["budget"], 0.6)
        self.assertLessEqual(sum(heads), 28)
        self.assertGreater(len(set(heads)), 1)
        self.assertEqual([len(layer) for layer in plan["groups"]], heads)
        self.assertRegex(self.ok(*args, "--dry-run"),
                         "layer by layer +" + " ".join(map(str, heads)) + "\n")
        self.assertEqual(self.json(*args), plan | {"dry_run": False})
        self.assertEqual(self.json("inspect", out)["kv_heads"], heads)
        self.assertEqual(json.loads((out / "gqa_recipe.json").read_text())["options"]["budget"], 0.6)

    def test_beats_as_many_heads_in_every_layer(self):
        text = self.file("cal.txt", HELDOUT.read_text()[:3000])
        judged = self.file("judge.txt", HELDOUT.read_text()[-3000:])
        kl = []
        for option in (["--budget", "0.5"], ["--kv-heads", "4"]):
            out = self.place()
            self.ok("convert", SOURCE, out, *option, "--calibrate", text, *SOME_TEXT)
            found = self.json("eval", out, "--text", judged, "--against", SOURCE)
            self.assertLessEqual(self.json("inspect", out)["kv_bytes_per_token"], 3072)
            kl.append(found["kl"])
            if option[0] == "--budget":
                again = self.place()
                self.ok("convert", SOURCE, again, "--recipe", out / "gqa_recipe.json", "--calibrate", text)
                self.assertEqual(files(out), files(again))
        self.assertLess(kl[0], kl[1])

    def test_refusals(self):
        out = self.root / "out"
        for ratio in ("0", "-0.5", "1.5", "nan", "x", ""):
            self.refused(2, ["convert", SOURCE, out, "--budget", ratio], ["--budget"])
        self.refused(2, ["convert", SOURCE, out, "--budget", "0.1"], ["budget", "at least 0.125"])
        self.refused(2, ["convert", SOURCE, out, "--budget", "0.5", "--kv-heads", "2"], ["--kv-heads"])
        groups = self.file("groups.json", "[[0,1,2,3],[4,5,6,7]]")
        self.refused(2, ["convert", SOURCE, out, "--budget", "0.5", "--grouping", f"manual:{groups}"],
                     ["grouping"])


if __name__ == "__main__":
    unittest.main()
