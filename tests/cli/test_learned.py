#!/usr/bin/env python3
"""`gqa convert --grouping learned`: what it needs, what it tells, and that it is the same again."""

import json
import unittest

from model_folder import SOURCE
from verb_case import HELDOUT, VerbCase

QUICK = ["--grouping", "learned", "--calibrate-tokens", "96", "--sampled-tokens", "0", "--calibrate", HELDOUT]
FEW_STEPS = ["--refine", "4"]


class LearnedTest(VerbCase):
    def check_layers(self, result, names):
        for one in result["learned"]:
            tried = {trial["grouping"]: trial for trial in one["tried"]}
            self.assertEqual(list(tried), names)
            chosen = tried[one["chosen"]]
            self.assertEqual(chosen["groups"], result["groups"][one["layer"]])
            # Of one window that is held out, the least error wins.
            self.assertEqual(chosen["error"], min(trial["error"] for trial in one["tried"]))
            for trial in one["tried"]:
                self.assertEqual(sorted(sum(trial["groups"], [])), list(range(8)))
                self.assertLess(trial["error"], 1)
                if trial["groups"] == chosen["groups"]:
                    self.assertEqual(trial["error"], chosen["error"])

    def test_tells_what_was_tried_and_is_the_same_again(self):
        one, two = self.root / "one", self.root / "two"
        run = self.gqa("convert", SOURCE, one, "--kv-heads", "4", *QUICK, *FEW_STEPS, "--threads", "1", "--json")
        self.assertEqual(run.returncode, 0, run.stderr.decode())
        again = self.json("convert", SOURCE, two, "--kv-heads", "4", *QUICK, *FEW_STEPS, "--threads", "2")
        result = json.loads(run.stdout)
        self.assertEqual(result["learned"], again["learned"])
        self.assertEqual([layer["layer"] for layer in result["learned"]], list(range(6)))
        self.check_layers(result, ["neighbour", "price", "learned"])
        # What comes into the first layer is as it was: a trial is the refinement that follows.
        first = {trial["grouping"]: trial["error"] for trial in result["learned"][0]["tried"]}
        self.assertEqual(first[result["learned"][0]["chosen"]], result["refined"][0]["error_after"])
        self.assertTrue(any(trial["groups"] != one["tried"][0]["groups"]
                            for one in result["learned"] for trial in one["tried"][2:]))
        for name in ("model.safetensors", "gqa_recipe.json"):
            self.assertEqual((one / name).read_bytes(), (two / name).read_bytes())
        self.assertRegex(run.stderr.decode(),
                         r"layer 5: groups of `\w+`; error, held out: "
                         r"neighbour 0\.\d+, price 0\.\d+, learned 0\.\d+")

    def test_unequal_without_refining(self):
        run = self.gqa("convert", SOURCE, self.root / "out", "--kv-heads", "3", "--unequal", *QUICK,
                       "--refine", "0", "--json")
        self.assertEqual(run.returncode, 0, run.stderr.decode())
        result = json.loads(run.stdout)
        self.check_layers(result, ["price", "learned"])
        self.assertEqual([len(groups) for groups in result["groups"]], [3] * 6)

    def test_nothing_to_learn(self):
        for kv_heads in "8", "1":
            result = self.json("convert", SOURCE, self.root / kv_heads, "--kv-heads", kv_heads, *QUICK, *FEW_STEPS)
            self.assertNotIn("learned", result)
            self.assertEqual([len(groups) for groups in result["groups"]], [int(kv_heads)] * 6)

    def test_needs_a_text(self):
        out = self.root / "out"
        for kv_heads in (["--kv-heads", "4"], ["--kv-heads", "8"], ["--budget", "0.5"]):
            self.refused(2, ["convert", SOURCE, out, *kv_heads, "--grouping", "learned"],
                         ["learned", "--calibrate"])
        self.assertFalse(out.exists())


if __name__ == "__main__":
    unittest.main()
