"""--attention: what every spec gives, and what is refused."""
import unittest

from model_folder import SOURCE
from verb_case import HELDOUT, VerbCase

GRAMMAR = (
    "exact | block:B | window:W | clustered:C[,PAGES] | global-local:W,B | topk:P | topp:MASS | "
    "lowrank:R[,KEYS] | dynamic:LOSS"
)
# Specs that leave something out of a window of 512 tokens (but for one), and whether they choose.
SPECS = {
    "block:64": False,
    "window:64": False,
    "clustered:8": True,
    "clustered:8,2": True,
    "global-local:128,16": True,
    "topk:3": True,
    "topp:0.5": True,
    "lowrank:4": True,
    "lowrank:4,32": True,
    "dynamic:0.05": True,
}
FIGURES = ["keys_read_share", "kv_bytes_share", "select_seconds", "attend_seconds"]


class AttentionTest(VerbCase):
    def setUp(self):
        super().setUp()
        self.story = self.file("story.txt", HELDOUT.read_text()[:6000])

    def eval(self, *args):
        return self.json("eval", SOURCE, "--text", self.story, "--context", "512", *args)

    def test_eval_takes_every_spec(self):
        exact = self.eval()
        for spec, chooses in SPECS.items():
            with self.subTest(spec):
                found = self.eval("--attention", spec)
                self.assertEqual(found["attention"], spec)
                self.assertEqual(found["tokens"], exact["tokens"])
                whole = spec == "lowrank:4"  # all keys, exactly
                self.assertEqual(found["nll"] == exact["nll"], whole)
                self.assertEqual(found["keys_read_share"] == 1, whole)
                self.assertTrue(0 < found["keys_read_share"] <= 1)
                for figure in FIGURES:
                    self.assertGreaterEqual(found[figure], 0)
                self.assertEqual("chosen" in found, chooses)
                if chooses:
                    chosen = found["chosen"]
                    self.assertLessEqual(chosen["min"], chosen["mean"])
                    self.assertLessEqual(chosen["mean"], chosen["max"])

    def test_exact_is_the_default(self):
        found, exact = self.eval("--attention", "exact"), self.eval()
        self.assertEqual(found | {"seconds": 0}, exact | {"seconds": 0})
        self.assertNotIn("attention", found)

    def test_blocks_and_windows_read_less(self):
        exact = self.eval()["nll"]
        for spec in ["block:64", "window:64"]:
            found = self.eval("--attention", spec)
            self.assertGreater(abs(found["nll"] - exact), 1e-3)
            for share in ["keys_read_share", "kv_bytes_share"]:
                self.assertGreater(found[share], 0)
                self.assertLess(found[share], 1)

    def test_a_block_as_long_as_the_context_is_exact(self):
        found = self.eval("--attention", "block:512")
        self.assertAlmostEqual(found["nll"], self.eval()["nll"], places=6)
        self.assertEqual(found["keys_read_share"], 1)

    def test_against_compares_with_exact_attention(self):
        found = self.eval("--attention", "window:16", "--against", SOURCE)
        self.assertGreater(found["kl"], 1e-3)
        self.assertLess(found["top1_agreement"], 1)
        self.assertEqual(found["nll"], self.eval("--attention", "window:16")["nll"])

    def test_eval_prints_what_was_read(self):
        text = self.ok("eval", SOURCE, "--text", self.story, "--attention", "block:64")
        self.assertRegex(text, r"(?m)^attention +block:64$")
        self.assertRegex(text, r"(?m)^keys read +\d+\.\d+ %$")
        self.assertRegex(text, r"(?m)^KV bytes read +\d+\.\d+ %$")

    def test_generate(self):
        args = ["generate", SOURCE, "--prompt", "Once upon a time", "--max-tokens", "120"]
        plain = self.json(*args)
        self.assertEqual(self.json(*args, "--attention", "block:512")["tokens"], plain["tokens"])
        self.assertNotEqual(self.json(*args, "--attention", "block:64")["tokens"], plain["tokens"])

    def test_bad_specs(self):
        cases = {
            "tokp:8": "topk:8",
            "block:0": "block:1",
            "topp:1.5": "topp:1",
            "block": "block:64",
            "exact:1": "exact",
            "global-local:64": "global-local:64,64",
            "dynamic:inf": "dynamic:0.01",
            "window:99999999999999999999": "window:1099511627776",
            "": "exact",
        }
        for verb in (["eval", SOURCE, "--text", self.story],
                     ["generate", SOURCE, "--prompt", "a"]):
            for spec, nearest in cases.items():
                with self.subTest(verb=verb[0], spec=spec):
                    done = self.gqa(*verb, f"--attention={spec}")
                    said = done.stderr.decode()
                    self.assertEqual(done.returncode, 2, said)
                    self.assertEqual(done.stdout, b"")
                    self.assertTrue(said.startswith("gqa: error: --attention: "), said)
                    self.assertIn(f"expected {GRAMMAR}, got '{spec}'", said)
                    self.assertIn(f"; nearest: {nearest} (see gqa {verb[0]} --help)\n", said)

    def test_a_models_own_window_combines_with_masks_alone(self):
        def mistral(model):
            model.config |= {"model_type": "mistral", "sliding_window": 32}

        model = self.model(mistral)
        args = ["eval", model, "--text", self.story, "--attention"]
        self.ok(*args, "block:16")
        self.ok(*args, "window:64")
        self.refused(2, [*args, "topk:3"], ["window of its own", "32 tokens", "got topk:3"])

    def test_help_lists_the_specs(self):
        for verb in ["eval", "generate"]:
            text = self.ok(verb, "--help")
            for form in GRAMMAR.split(" | "):
                self.assertIn(form, text)


if __name__ == "__main__":
    unittest.main()
