"""Layers with different numbers of KV heads, and unequal groups, through the program."""
import json
import pathlib
import unittest

from gqa_case import files
from model_folder import SOURCE
from verb_case import HELDOUT, VerbCase

CODE = pathlib.Path(__file__).resolve().parents[2] / "src/convert/modeling_gqa.py"
PAIRS = [[0, 1], [2, 3], [4, 5], [6, 7]]
HALVES = [[0, 1, 2, 3], [4, 5, 6, 7]]
PER_LAYER = [PAIRS, HALVES] * 3
UNEQUAL = [[[7, 0, 1], [2, 3, 4, 5, 6]], HALVES] * 3


class PerLayerTest(VerbCase):
    def groups(self, groups):
        return "manual:" + str(self.file("groups.json", json.dumps(groups)))

    def make(self, groups, *options):
        out = self.place()
        done = self.json("convert", SOURCE, out, "--grouping", self.groups(groups), *options)
        return out, done

    def check(self, out, kv_heads):
        """Every verb takes the result, and what expand makes of it computes the same."""
        found = self.json("inspect", out)
        self.assertEqual((found["model_type"], found["kv_heads"]), ("llama", kv_heads))
        self.assertEqual(found["kv_bytes_per_token"], sum(kv_heads) * 2 * 16 * 4)
        self.assertTrue(self.json("verify", out)["ok"])
        self.assertEqual((out / "modeling_gqa.py").read_bytes(), CODE.read_bytes())
        self.json("generate", out, "--prompt", "Once upon", "--max-tokens", "4")
        wide = self.place()
        self.assertEqual(self.json("expand", out, wide)["result_kv_heads"], [8] * 6)
        text = self.file("short.txt", HELDOUT.read_text()[:2000])
        before, after = (self.json("eval", m, "--text", text)["nll"] for m in (out, wide))
        self.assertAlmostEqual(before, after, delta=1e-6)
        return found

    def test_layers_with_different_numbers(self):
        out, done = self.make(PER_LAYER)
        self.assertEqual(done["result_kv_heads"], [4, 2] * 3)
        self.assertEqual(done["groups"], PER_LAYER)
        self.assertIn("trust_remote_code", "".join(done["notes"]))
        self.assertNotIn("group_sizes", self.check(out, [4, 2] * 3))

    def test_unequal_groups(self):
        out, done = self.make(UNEQUAL, "--unequal")
        self.assertEqual(done["result_kv_heads"], [2] * 6)
        found = self.check(out, [2] * 6)
        self.assertEqual(found["group_sizes"], [[3, 5], [4, 4]] * 3)
        text = self.ok("inspect", out)
        self.assertIn("unequal groups", text)
        self.assertRegex(text, r"\n +0 +2 .* 3 5\n")

    def test_unequal_groups_have_to_be_asked_for(self):
        args = ["convert", SOURCE, self.root / "out", "--grouping", self.groups(UNEQUAL)]
        self.refused(65, args, ["layer 0", "group 0 has 3 heads, expected 4", "--unequal"])
        args[4] = "random"
        self.refused(2, [*args, "--kv-heads", "2", "--unequal"], ["unequal", "manual:FILE", "random"])

    def test_kv_heads_must_match(self):
        args = ["convert", SOURCE, self.root / "out", "--grouping", self.groups(PER_LAYER)]
        self.refused(65, [*args, "--kv-heads", "4"], ["layer 1", "2 groups, expected 4"])
        self.refused(2, [*args, "--kv-heads", "3"], ["kv_heads 3", "choices: 1, 2, 4, 8"])
        self.refused(2, [*args[:3]], ["--kv-heads", "manual:FILE"])
        _, done = self.make(PAIRS, "--kv-heads", "4")
        self.assertEqual(done["result_kv_heads"], [4] * 6)

    def test_recipe(self):
        out, _ = self.make(UNEQUAL, "--unequal", "--dtype", "bf16")
        again = self.place()
        recipe = ["convert", SOURCE, again, "--recipe", out / "gqa_recipe.json"]
        self.refused(2, [*recipe, "--unequal"], ["--unequal"])
        self.ok(*recipe)
        self.assertEqual(files(out), files(again))

    def test_the_same_groups_everywhere_need_no_code(self):
        out, done = self.make(PAIRS, "--unequal")
        self.assertEqual(done["notes"], [])
        self.assertFalse((out / "modeling_gqa.py").exists())
        self.assertEqual(json.loads((out / "config.json").read_text())["model_type"], "llama")

    def test_sizes_that_do_not_fit_the_config(self):
        def change(folder):
            folder.config["gqa_group_sizes"] = [[1] * 7 + [2]]

        verbs = ["convert", "expand", "eval", "generate", "inspect", "verify"]
        words = ["config.json", r"gqa_group_sizes\[0\]", "sum of 8", "got 9"]
        self.all_refuse(65, self.model(change), words, verbs)


if __name__ == "__main__":
    unittest.main()
