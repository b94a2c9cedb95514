"""Help, version, and wrong arguments."""
import unittest

from model_folder import SOURCE
from verb_case import HELDOUT, VERBS, VerbCase, bench_kinds


class UsageTest(VerbCase):
    def test_help_lists_every_verb(self):
        text = self.ok("--help")
        for verb in VERBS:
            self.assertRegex(text, rf"(?m)^  {verb} +[A-Z]")

    def test_help_of_each_verb(self):
        kinds = [f"bench {kind}" for kind in bench_kinds()]
        for verb in [*(verb for verb in VERBS if verb != "bench"), *kinds]:
            with self.subTest(verb):
                text = self.ok(*verb.split(), "--help")
                self.assertIn(f"Usage: gqa {verb} ", text)
                for option in ["--json", "--quiet", "--threads", "--isa", "--help"]:
                    self.assertIn(option, text)
                self.assertLessEqual(max(map(len, text.splitlines())), 100)

    def test_help_of_bench(self):
        text = self.ok("bench", "--help")
        self.assertIn("Usage: gqa bench ", text)
        for kind in bench_kinds():
            self.assertRegex(text, rf"(?m)^  {kind} +[A-Z]")

    def test_version(self):
        self.assertRegex(self.ok("--version"), r"^gqa \d+\.\d+\.\d+\n$")

    def test_usage_errors(self):
        model, out, text = str(SOURCE), str(self.place()), str(HELDOUT)
        convert = ["convert", model, out]
        generate = ["generate", model]
        cases = {
            "verb is missing": [],
            "unknown verb 'train'": ["train"],
            "--frobnicate": ["inspect", model, "--frobnicate"],
            "MODEL": ["inspect"],
            "OUT": ["convert", model],
            "--kv-heads": convert,
            "'four'": [*convert, "--kv-heads", "four"],
            "'4.0'": [*convert, "--kv-heads", "4.0"],
            "grouping": [*convert, "--kv-heads", "4", "--grouping", "zodiac"],
            "merge": [*convert, "--kv-heads", "4", "--merge", "median"],
            "'int4'": [*convert, "--kv-heads", "4", "--dtype", "int4"],
            "'-1'": [*convert, "--kv-heads", "4", "--seed", "-1"],
            "'0'": [*convert, "--kv-heads", "4", "--max-shard-size", "0"],
            "'0GB'": [*convert, "--kv-heads", "4", "--max-shard-size", "0GB"],
            "'5XB'": [*convert, "--kv-heads", "4", "--max-shard-size", "5XB"],
            "'GB'": [*convert, "--kv-heads", "4", "--max-shard-size", "GB"],
            "'-5GB'": [*convert, "--kv-heads", "4", "--max-shard-size", "-5GB"],
            "'9223372036854775807KB'":
                [*convert, "--kv-heads", "4", "--max-shard-size", "9223372036854775807KB"],
            "--recipe": [*convert, "--kv-heads", "4", "--recipe", "gqa_recipe.json"],
            "--text": ["eval", model],
            "--context": ["eval", model, "--text", text, "--context", "1"],
            "expected f32, f16, bf16, int8 or int4, got '8'":
                ["eval", model, "--text", text, "--kv-dtype", "8"],
            "expected stored or int8, got 'bf16'":
                ["eval", model, "--text", text, "--weight-dtype", "bf16"],
            "bf16, int8 or int4, got 'int2'": [*generate, "--prompt", "a", "--kv-dtype", "int2"],
            "prompt is missing": generate,
            "--prompt is empty": [*generate, "--prompt", ""],
            "prompt is empty:": [*generate, "--prompt=", "--json"],
            "--prompt-file": [*generate, "--prompt", "a", "--prompt-file", text],
            "--max-tokens": [*generate, "--prompt", "a", "--max-tokens", "-1"],
            "'nan'": [*generate, "--prompt", "a", "--temperature", "nan"],
            "temperature": [*generate, "--prompt", "a", "--temperature", "-1"],
            "top.p": [*generate, "--prompt", "a", "--top-p", "1.5"],
            "repetition.penalty": [*generate, "--prompt", "a", "--repetition-penalty", "0"],
            "--threads": ["doctor", "--threads", "0"],
            "'quantum'": ["doctor", "--isa", "quantum"],
        }
        for words, args in cases.items():
            with self.subTest(args[1:] or args):
                done = self.gqa(*args)
                said = done.stderr.decode()
                self.assertEqual(done.returncode, 2, said)
                self.assertEqual(done.stdout, b"")
                self.assertRegex(said, r"\Agqa: error: [^\n]*--help\)\n\Z")
                self.assertRegex(said, words)
        self.assertEqual(list(self.root.iterdir()), [self.text], "a usage error left something")


if __name__ == "__main__":
    unittest.main()
