#!/usr/bin/env python3
"""`gqa convert --calibrate`: what it needs, and that it is the same again."""

import json
import unittest

from model_folder import SOURCE
from gqa_case import files
from verb_case import HELDOUT, VerbCase

QUICK = ["--kv-heads", "4", "--calibrate-tokens", "512", "--sampled-tokens", "512", "--refine", "40"]


class CalibrateTest(VerbCase):
    def ppl(self, folder):
        return self.json("eval", folder, "--text", self.text)["ppl"]

    def setUp(self):
        super().setUp()
        self.text = self.root / "text.txt"
        self.text.write_text("".join(HELDOUT.read_text("utf-8").splitlines(keepends=True)[:60]), "utf-8")

    def test_keeps_more_and_is_the_same_again(self):
        one, two, again = self.root / "one", self.root / "two", self.root / "again"
        self.ok("convert", SOURCE, one, *QUICK, "--calibrate", HELDOUT, "--threads", "1")
        self.ok("convert", SOURCE, two, *QUICK, "--calibrate", HELDOUT, "--threads", "2")
        self.assertEqual(files(one), files(two))
        self.ok("convert", SOURCE, again, "--recipe", one / "gqa_recipe.json", "--calibrate", HELDOUT)
        self.assertEqual(files(one), files(again))
        self.ok("convert", SOURCE, self.root / "plain", "--kv-heads", "4")
        self.assertLess(self.ppl(one), 0.9 * self.ppl(self.root / "plain"))
        recipe = json.loads((one / "gqa_recipe.json").read_text())
        self.assertEqual(recipe["options"]["calibration"]["sampled_tokens"], 512)
        self.assertIn("512 tokens of a text", (one / "README.md").read_text())

    def test_recipes_know_their_text(self):
        out = self.root / "out"
        self.ok("convert", SOURCE, out, *QUICK, "--calibrate", self.text)
        recipe = ["convert", SOURCE, self.root / "again", "--recipe", out / "gqa_recipe.json"]
        self.refused(2, recipe, ["text_sha256", "--calibrate"])
        self.refused(65, [*recipe, "--calibrate", HELDOUT], ["SHA-256", "heldout.txt"])

    def test_tells_how_refining_went(self):
        run = self.gqa("convert", SOURCE, self.root / "out", *QUICK, "--calibrate", HELDOUT, "--json")
        self.assertEqual(run.returncode, 0, run.stderr.decode())
        layers = json.loads((self.root / "out" / "config.json").read_text())["num_hidden_layers"]
        result = json.loads(run.stdout)
        self.assertEqual([one["layer"] for one in result["refined"]], list(range(layers)))
        for one in result["refined"]:
            self.assertLess(one["error_after"], one["error_before"])
            self.assertEqual(one["steps"], 40)
            self.assertGreater(one["kept_after"], 0)
            self.assertFalse(one["diverged"])
            self.assertRegex(run.stderr.decode(), rf"layer {one['layer']}: error [0-9.]+ -> [0-9.]+, held out")
        model = result["held_out_divergence"]
        self.assertLess(model["refined"], model["merged"])
        self.assertTrue(model["kept"])
        self.assertRegex(run.stderr.decode(), rf"KL .* {model['merged']:.4f} .* merged, {model['refined']:.4f} refined")
        # 2 * (8 + 4) heads of 16 numbers, four tokens for each.
        self.assertRegex(" ".join(result["notes"]), "1024 tokens are few .* 1536 would do")
        plain = self.json("convert", SOURCE, self.root / "merged", *QUICK[:-1], "0", "--calibrate", HELDOUT)
        self.assertNotIn("refined", plain)
        self.assertNotIn("held_out_divergence", plain)
        self.assertNotIn("are few", " ".join(plain["notes"]))

    def test_a_dry_run_estimates_the_time(self):
        def dry(*args):
            return self.json("convert", SOURCE, self.root / "out", "--kv-heads", "4", "--calibrate", HELDOUT,
                             "--calibrate-tokens", "8192", *args, "--dry-run")
        all_of_it = dry("--refine", "600")
        self.assertNotIn("groups", all_of_it)
        self.assertIn("the text decides which heads become one", all_of_it["notes"])
        self.assertEqual(all_of_it["result_kv_heads"], [4] * 6)
        known = dry("--refine", "0", "--grouping", "neighbour", "--sampled-tokens", "0")
        self.assertEqual(known["groups"], [[[0, 1], [2, 3], [4, 5], [6, 7]]] * 6)
        self.assertGreater(known["estimated_seconds"], 0)
        # Hundreds of passes over two windows against a few over sixteen.
        self.assertGreater(all_of_it["estimated_seconds"], 4 * known["estimated_seconds"])
        self.assertRegex(self.ok("convert", SOURCE, self.root / "out", *QUICK, "--calibrate", "self", "--dry-run"),
                         r"time +about \d+ (s|min)\n")
        fewer = dry("--kv-rank", "8")
        self.assertEqual((fewer["result_head_dim"], "planes" in fewer), (8, False))
        self.assertNotIn("estimated_seconds", self.json("convert", SOURCE, self.root / "out", "--kv-heads", "4", "--dry-run"))
        self.assertFalse((self.root / "out").exists())

    def test_needs_no_text(self):
        out = self.root / "out"
        # Fewer tokens are followed too closely.
        self.ok("convert", SOURCE, out, "--kv-heads", "4", "--calibrate", "self",
                "--sampled-tokens", "3072", "--refine", "40")
        self.ok("convert", SOURCE, self.root / "plain", "--kv-heads", "4")
        self.assertLess(self.ppl(out), 0.9 * self.ppl(self.root / "plain"))

    def test_as_many_heads_as_before_change_nothing(self):
        out = self.root / "out"
        self.ok("convert", SOURCE, out, "--kv-heads", "8", *QUICK[2:], "--calibrate", "self")
        weights = "model.safetensors"
        self.assertEqual((out / weights).stat().st_size, (SOURCE / weights).stat().st_size)
        self.assertAlmostEqual(self.ppl(out), self.ppl(SOURCE), places=9)

    def test_writes_the_directions_of_keys(self):
        out = self.root / "out"
        self.ok("convert", SOURCE, out, *QUICK, "--calibrate", self.text)
        directions = out / "key_directions.safetensors"
        data = directions.read_bytes()
        start = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(data[8:start])
        del header["__metadata__"]
        layers = json.loads((out / "config.json").read_text())["num_hidden_layers"]
        self.assertEqual(sorted(header), sorted(f"model.layers.{l}.key_directions" for l in range(layers)))
        for tensor in header.values():
            self.assertEqual((tensor["dtype"], tensor["shape"]), ("F32", [4, 16, 16]))
        recipe = json.loads((out / "gqa_recipe.json").read_text())
        self.assertIn(directions.name, recipe["output"]["sha256"])
        self.assertIn(directions.name, (out / "README.md").read_text())
        self.assertIn("orthonormal", self.ok("verify", out))
        first = int.from_bytes(data[start:start + 4], "little") ^ 0x3f000000  # not the same number
        directions.write_bytes(data[:start] + first.to_bytes(4, "little") + data[start + 4:])
        self.refused(65, ["verify", out], [directions.name])
        directions.unlink()
        self.refused(65, ["verify", out], [directions.name, "missing"])

    def test_refusals(self):
        out = self.root / "out"
        empty = self.root / "empty.txt"
        empty.write_text("")
        convert = ["convert", SOURCE, out, "--kv-heads", "4"]
        self.refused(2, [*convert, "--refine", "2"], ["--calibrate"])
        self.refused(2, [*convert, "--calibrate", "self", "--sampled-tokens", "0"], ["sampled"])
        self.refused(2, [*convert, "--calibrate", self.text, "--calibrate-tokens", "0"],
                     ["--calibrate-tokens"])
        self.refused(65, [*convert, "--calibrate", empty], ["empty.txt", "no tokens"])
        self.refused(66, [*convert, "--calibrate", self.root / "none.txt"], ["none.txt"])
        self.assertFalse(out.exists())


if __name__ == "__main__":
    unittest.main()
