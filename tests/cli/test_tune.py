#!/usr/bin/env python3
"""Sweeps over conversions, through the program."""
import json
import os
import signal
import subprocess
import time
import unittest
import xml.dom.minidom

import gqa_case
from model_folder import SOURCE
from verb_case import HELDOUT, VerbCase

QUICK = ["--calibrate-tokens", "128"]


class TuneTest(VerbCase):
    def setUp(self):
        super().setUp()
        self.words = self.file("words.txt", HELDOUT.read_text()[:6000])
        self.work = self.root / "work"

    def args(self, *more):
        return ["tune", SOURCE, "--text", self.words, *QUICK, *more]

    def test_sweep(self):
        plot = self.root / "plot.svg"
        choices = ["--kv-heads", "4,2", "--budget", "0.5", "--grouping", "neighbour,similarity"]
        found = self.json(*self.args(*choices, "--plot", plot))
        points = {p["name"]: p for p in found["points"]}
        self.assertEqual(set(points), {"original"} | {
            f"{heads}-{grouping}-pca" for heads in ("kv4", "kv2", "budget0.5")
            for grouping in ("neighbour", "similarity")})
        self.assertEqual(found["reused"], 0)
        self.assertTrue(points["original"]["front"])  # nothing is as good
        for name, p in points.items():
            beaten = any(q["kv_bytes_per_token"] <= p["kv_bytes_per_token"] and q["ppl"] <= p["ppl"]
                         and (q["kv_bytes_per_token"], q["ppl"]) != (p["kv_bytes_per_token"], p["ppl"])
                         for q in points.values())
            self.assertEqual(p["front"], not beaten, name)
            self.assertEqual(p["kv_bytes_per_token"], sum(p["kv_heads"]) * 2 * 16 * 4)
        self.assertEqual(points["kv2-neighbour-pca"]["kv_heads"], [2] * 6)
        self.assertLessEqual(sum(points["budget0.5-similarity-pca"]["kv_heads"]), 24)
        xml.dom.minidom.parse(str(plot))
        self.assertEqual({p.name for p in self.root.iterdir()}, {"text.txt", "words.txt", "plot.svg"})

    def test_measures_what_eval_measures(self):
        found = self.json(*self.args("--kv-heads", "4", "--work", self.work, "--keep"))
        text = self.words.read_bytes()
        judged = self.file("judged.txt", text[found["calibration_bytes"]:])
        self.assertEqual(text[found["calibration_bytes"] - 1:][:1], b"\n")
        self.assertAlmostEqual(found["calibration_bytes"] / len(text), 0.9, delta=0.1)
        one = found["points"][1]
        self.assertEqual(one["name"], "kv4-similarity-pca")
        kept = self.json("eval", self.work / one["name"], "--text", judged, "--against", SOURCE)
        self.assertEqual((one["ppl"], one["kl"], found["judged_tokens"]),
                         (kept["ppl"], kept["kl"], kept["tokens"]))

    def test_goes_on(self):
        args = self.args("--work", self.work, "--kv-heads")
        first = self.json(*args, "4")
        both = self.json(*args, "4,1")
        self.assertEqual(both["reused"], 1)
        self.assertEqual(both["points"][:2], first["points"])
        self.assertEqual(os.listdir(self.work), ["tune.jsonl"])
        self.assertEqual(self.json(*args, "4,1", "--seed", "1")["reused"], 0)
        self.words.write_text(HELDOUT.read_text()[:5000])
        self.assertEqual(self.json(*args, "4,1")["reused"], 0)
        self.assertRegex(self.ok(*args, "4,1"), r"\* +original +8 +6,144 +100.0 %")

    def test_ctrl_c(self):
        for code, more in ((75, ["--work", self.work]), (130, [])):
            run = subprocess.Popen([gqa_case.GQA, *self.args(*more, "--quiet", "--refine", "1000")],
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, env=os.environ | {"TMPDIR": str(self.root)})
            while run.poll() is None and not list(self.root.glob("*/calibration.txt")):
                time.sleep(0.01)
            run.send_signal(signal.SIGINT)
            _, said = run.communicate(timeout=gqa_case.PATIENCE)
            self.assertEqual(run.returncode, code, said)
            self.assertEqual(b"goes on" in said, code == 75, said)
            self.assertEqual(list(self.root.glob("gqa-tune-*")), [])
            for left in self.root.glob("work/calibration.txt"):
                left.unlink()

    def test_refusals(self):
        for options, words in (
                (["--kv-heads", "3"], ["3", "8"]), (["--kv-heads", "4,,2"], ["kv-heads", "list"]),
                (["--kv-heads", "x"], ["kv-heads"]), (["--budget", "0.05"], ["at least 0.125"]),
                (["--budget", "2"], ["budget"]), (["--grouping", "nonsense"], ["grouping", "nonsense"]),
                (["--merge", "nonsense"], ["merge", "nonsense"]), (["--grouping", ""], ["grouping"]),
                (["--keep"], ["folder"]), (["--refine", "-1"], ["refine"])):
            with self.subTest(options=options):
                self.refused(2, self.args(*options), words)
        self.refused(66, ["tune", SOURCE, "--text", self.root / "none.txt"], ["none.txt"])
        self.refused(66, ["tune", self.root / "none", "--text", self.words], ["none"])
        self.refused(65, ["tune", SOURCE, "--text", self.file("x", "a")], ["too short"])
        self.refused(73, self.args("--plot", self.root / "none/p.svg"), ["none/p.svg"])
        self.refused(73, self.args("--work", self.words), ["words.txt"])
        self.work.mkdir()
        (self.work / "tune.jsonl").write_text("{}\n")
        done = self.gqa(*self.args("--work", self.work))
        self.assertEqual(done.returncode, 65, done.stderr)
        self.assertIn(b"tune.jsonl:1", done.stderr)


if __name__ == "__main__":
    unittest.main()
