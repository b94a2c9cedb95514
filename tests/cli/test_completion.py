"""What shells offer: the scripts that `gqa completion` prints, in the shells that read them."""
import re
import shutil
import subprocess
import unittest

from gqa_case import PATIENCE
from model_folder import SOURCE
from shell_session import ShellSession
from verb_case import VERBS, VerbCase, bench_kinds

# Calls the function as bash does, and prints what it offers, a line each.
CALL = """
source "$1"; shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_gqa
((${#COMPREPLY[@]} == 0)) || printf '%s\\n' "${COMPREPLY[@]}"
"""


class CompletionCase(VerbCase):
    shell = "bash"

    def setUp(self):
        super().setUp()
        self.script = self.file(f"{self.shell}-script", self.ok("completion", self.shell))

    def options_in_help(self, *command):
        return set(re.findall(r"(?m)^  (?:-h,)?(--[a-z0-9-]+)", self.ok(*command, "--help")))

    def refused_names(self, option):
        """Those that the program lists where a method's name is wrong."""
        done = self.gqa("convert", SOURCE, "b", "--kv-heads", "4", f"--{option}", "zodiac")
        self.assertEqual(done.returncode, 2)
        said = re.search(r"choices: ([^()]*) \(", done.stderr.decode())
        self.assertTrue(said, done.stderr)
        return set(said[1].split(", "))


class UsageTest(VerbCase):
    def test_is_in_help(self):
        self.assertRegex(self.ok("--help"), r"(?m)^  completion +[A-Z]")
        self.assertIn("Usage: gqa completion ", self.ok("completion", "--help"))

    def test_other_shells(self):
        for shell in ["fish", "", "BASH"]:
            done = self.gqa("completion", shell)
            self.assertEqual((done.returncode, done.stdout), (2, b""))
            self.assertIn(f"expected bash or zsh, got '{shell}'", done.stderr.decode())
        done = self.gqa("completion")
        self.assertEqual((done.returncode, done.stdout), (2, b""))
        self.assertIn("SHELL", done.stderr.decode())


class BashTest(CompletionCase):
    def offered(self, *words):
        """Of a line whose last word is being typed."""
        done = subprocess.run(["bash", "--norc", "-c", CALL, "bash", self.script, "gqa", *words],
                              cwd=self.root, capture_output=True, text=True, timeout=PATIENCE)
        self.assertEqual(done.stderr, "")
        lines = done.stdout.splitlines()
        self.assertEqual(len(lines), len(set(lines)), "offered twice")
        return set(lines)

    def test_verbs(self):
        self.assertEqual(self.offered(""), {*VERBS, "completion"})
        self.assertEqual(self.offered("e"), {"expand", "export", "eval"})
        self.assertEqual(self.offered("completion", ""), {"bash", "zsh"})
        if bench_kinds():
            self.assertEqual(self.offered("bench", ""), set(bench_kinds()))
            self.assertEqual(self.offered("bench", "de"), {"decode"})

    def test_options_are_those_of_help(self):
        commands = [[], *([verb] for verb in VERBS), *(["bench", kind] for kind in bench_kinds())]
        for command in commands:
            with self.subTest(command):
                expected = self.options_in_help(*command)
                self.assertIn("--help", expected)
                self.assertEqual(self.offered(*command, "--"), expected)

    def test_options_that_are_there_already(self):
        line = ["convert", "a", "b", "--kv-heads", "4", "--merge=pca", "--force"]
        given = {"--kv-heads", "--merge", "--force"}
        self.assertEqual(self.offered(*line, "--"), self.options_in_help("convert") - given)
        self.assertEqual(self.offered(*line, "--f"), set())
        # A value may look like an option's name.
        self.assertIn("--max-tokens", self.offered("generate", "a", "--prompt", "--max-tokens", "--m"))

    def test_choices(self):
        for words, expected in [
            (["eval", "m", "--kv-dtype", ""], "f32 f16 bf16 int8 int4"),
            (["eval", "m", "--kv-dtype", "i"], "int8 int4"),
            (["eval", "m", "--weight-dtype", ""], "stored int8"),
            (["expand", "a", "b", "--dtype", "f"], "f32 f16"),
            (["export", "m", "m.gguf", "--dtype", "q"], "q8_0"),
            (["eval", "m", "--attention", "top"], "topk: topp:"),
            (["eval", "m", "--attention", "exact"], "exact"),
            (["tune", "m", "--merge", "mean,me"], "mean,mean mean,medoid"),
            (["eval", "m", "--kv-dtype", "="], "f32 f16 bf16 int8 int4"),
            (["eval", "m", "--kv-dtype", "=", "b"], "bf16"),
            (["eval", "m", "--attention", "window", ":", "6"], ""),
            (["eval", "m", "--context", ""], ""),
            (["eval", "m", "--json", "=", ""], ""),
            (["eval", "m", "--nonsense", "=", ""], ""),
        ]:
            with self.subTest(words):
                self.assertEqual(self.offered(*words), set(expected.split()))

    def test_methods_are_those_that_the_program_knows(self):
        for option in ["grouping", "merge"]:
            names = {name.replace("manual:FILE", "manual:") for name in self.refused_names(option)}
            self.assertGreater(len(names), 4)
            self.assertEqual(self.offered("convert", "a", "b", f"--{option}", ""), names)
            self.assertEqual(self.offered("tune", "a", f"--{option}", ""), names - {"manual:"})

    def test_paths(self):
        (self.root / "models").mkdir()
        self.file("groups.json", "[]")
        every = {path.name for path in self.root.iterdir()}
        self.assertEqual(self.offered("inspect", ""), {"models"})
        self.assertEqual(self.offered("convert", "models", ""), {"models"})
        self.assertEqual(self.offered("export", "models", ""), every)
        self.assertEqual(self.offered("eval", "models", "--text", "t"), {"text.txt"})
        self.assertEqual(self.offered("convert", "a", "b", "--calibrate", ""), every | {"self"})
        self.assertEqual(
            self.offered("convert", "a", "b", "--grouping", "manual", ":", "gr"), {"groups.json"})
        self.assertEqual(self.offered("generate", "m", "--prompt", ""), set())


class TypedCase(CompletionCase):
    """Lines after Tab in a shell with a terminal."""

    def check(self, cases):
        (self.root / "tales").mkdir()
        (self.root / "two words").mkdir()
        self.file("groups.json", "[]")
        with ShellSession(self.shell, self.script, self.root) as shell:
            for typed, expected in cases:
                with self.subTest(typed):
                    self.assertEqual(shell.typed(typed), expected)

    # What both shells make of a line.
    COMMON = [
        ("gqa ins", "gqa inspect "),
        ("gqa completion b", "gqa completion bash "),
        ("gqa inspect ta", "gqa inspect tales/"),
        ("gqa inspect two", "gqa inspect two\\ words/"),
        ("gqa inspect ~/ta", "gqa inspect ~/tales/"),
        ("gqa eval tales --text te", "gqa eval tales --text text.txt "),
        ("gqa eval tales --text=te", "gqa eval tales --text=text.txt "),
        ("gqa eval tales --weight-dtype i", "gqa eval tales --weight-dtype int8 "),
        ("gqa eval tales --kv-dtype=b", "gqa eval tales --kv-dtype=bf16 "),
        ("gqa eval tales --attention win", "gqa eval tales --attention window:"),
        ("gqa eval tales --attention=win", "gqa eval tales --attention=window:"),
        ("gqa convert a b --calibrate se", "gqa convert a b --calibrate self "),
        ("gqa convert a b --calibrate te", "gqa convert a b --calibrate text.txt "),
        ("gqa convert a b --grouping man", "gqa convert a b --grouping manual:"),
        ("gqa convert a b --grouping manual:gr", "gqa convert a b --grouping manual:groups.json "),
        ("gqa convert a b --grouping=manual:gr", "gqa convert a b --grouping=manual:groups.json "),
        ("gqa completion z", "gqa completion zsh "),
        ("gqa frobnicate ", "gqa frobnicate "),
    ]


class TypedBashTest(TypedCase):
    def test_lines(self):
        self.check([
            *self.COMMON,
            ("gqa eval tales --weig", "gqa eval tales --weight-dtype "),
            ("gqa tune tales --merge mean,med", "gqa tune tales --merge mean,medoid "),
        ])


@unittest.skipUnless(shutil.which("zsh"), "zsh is not installed")
class TypedZshTest(TypedCase):
    shell = "zsh"

    def test_syntax(self):
        done = subprocess.run(["zsh", "-n", self.script], capture_output=True, timeout=PATIENCE)
        self.assertEqual((done.returncode, done.stderr), (0, b""))

    def test_lines(self):
        self.check([
            *self.COMMON,
            ("gqa eval tales --weig", "gqa eval tales --weight-dtype="),
            # A comma that goes when a space is typed.
            ("gqa tune tales --merge mean,med", "gqa tune tales --merge mean,medoid,"),
            # An option that another excludes is not offered beside it.
            ("gqa generate tales --prompt a --prompt-", "gqa generate tales --prompt a --prompt-"),
            ("gqa generate tales --prompt-", "gqa generate tales --prompt-file="),
        ])

    def test_choices(self):
        with ShellSession(self.shell, self.script, self.root, record=True) as shell:
            for typed, expected in [
                ("gqa eval m --kv-dtype ", "f32 f16 bf16 int8 int4"),
                ("gqa eval m --kv-dtype=i", "int8 int4"),
                ("gqa eval m --attention top", "topk: topp:"),
                ("gqa convert a b --merge ", "mean first random medoid aligned pca"),
                ("gqa completion ", "bash zsh"),
            ]:
                with self.subTest(typed):
                    self.assertEqual(shell.offered(typed), set(expected.split()))


if __name__ == "__main__":
    unittest.main()
