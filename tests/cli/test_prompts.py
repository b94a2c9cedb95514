"""`gqa generate --prompts`: many prompts together, each as if it were alone."""
import json
import os
import re
import signal
import subprocess
import unittest

import gqa_case
from model_folder import SOURCE
from verb_case import VerbCase

STORY = ("Once upon a time there was a little girl who liked to play outside in the park with her "
         "big red ball. One day")
PROMPTS = ["Lily saw", STORY + " she saw", "Tom", STORY + " she lost", "größer 🦊", STORY, "Lily saw",
           " ", "--json", STORY + " she saw a dog"]


class PromptsTest(VerbCase):
    def generate(self, prompts, *args):
        file = self.file("prompts.txt", "".join(prompt + "\n" for prompt in prompts))
        return self.gqa("generate", SOURCE, "--prompts", file, "--max-tokens", "30", *args)

    def alone(self, prompt, *args):
        return self.json("generate", SOURCE, f"--prompt={prompt}", "--max-tokens", "30", *args)

    def test_json_lines_in_order(self):
        sampled = ["--temperature", "0.9", "--top-p", "0.95", "--seed", "3", "--kv-dtype", "bf16"]
        for options in [], sampled, ["--kv-dtype", "int8"], ["--kv-dtype", "int4"], [
                "--weight-dtype", "int8"]:
            alone = [self.alone(prompt, *options) for prompt in PROMPTS]
            for batch in "1", "3", "64":
                with self.subTest(options=options, batch=batch):
                    done = self.generate(PROMPTS, "--json", "--batch", batch, *options)
                    self.assertEqual(done.returncode, 0, done.stderr)
                    lines = done.stdout.decode().splitlines()
                    self.assertEqual([list(json.loads(line).items()) for line in lines],
                                     [[("prompt", prompt), ("text", one["text"]),
                                       ("tokens", one["tokens"])]
                                      for prompt, one in zip(PROMPTS, alone)])

    def test_text_and_summary(self):
        texts = [self.alone(prompt)["text"] for prompt in PROMPTS]
        done = self.generate(PROMPTS)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stdout.decode(), "\n".join(text + "\n" for text in texts))
        said = done.stderr.decode()
        match = re.fullmatch(
            r"10 prompts, (\d+) tokens read of which (\d+) shared, 300 made in \S+ m?s "
            r"\(\d+ tokens/s\), KV cache [\d.]+ MiB at most\n", said)
        self.assertTrue(match, said)
        read, shared = map(int, match.groups())
        self.assertEqual(read, sum(len(self.alone(p)["prompt_tokens"]) for p in PROMPTS))
        story = len(self.alone(STORY)["prompt_tokens"])
        self.assertTrue(3 * (story - 2) <= shared <= 3 * (story + 4), said)
        quiet = self.generate(PROMPTS, "--quiet", "--threads", "2")
        self.assertEqual((quiet.returncode, quiet.stdout, quiet.stderr), (0, done.stdout, b""))

    def test_line_breaks(self):
        expected = self.generate(["Tom", "Lily saw"], "--json").stdout
        for content in "Tom\nLily saw", "Tom\r\nLily saw\r\n", "Tom\r\nLily saw":
            with self.subTest(content):
                file = self.file("other.txt", content)
                self.assertEqual(self.ok("generate", SOURCE, "--prompts", file, "--max-tokens", "30",
                                         "--json").encode(), expected)
        found = self.json("generate", SOURCE, "--prompts", self.file("cr.txt", "a\rb\r"),
                          "--max-tokens", "1")
        self.assertEqual(found["prompt"], "a\rb\r", "a carriage return alone ends no line")

    def test_bad_files(self):
        def refused(code, content, *words, options=()):
            file = self.file("bad.txt", content)
            args = ["generate", SOURCE, "--prompts", file, *options]
            with self.subTest(content=content[:20], options=options):
                self.refused(code, args, words)
                self.refused(code, [*args, "--json"], words)

        refused(65, "", r"bad\.txt: ", "empty file")
        refused(65, "\n", r"bad\.txt:1: ", "empty line")
        refused(65, "a\n\nb\n", r"bad\.txt:2: ", "empty line")
        refused(65, "a\nb\n\r\n", r"bad\.txt:3: ", "empty line")
        refused(65, b"a\nbc\xff\n", r"bad\.txt:2: not UTF-8: byte 0xff at offset 2")
        refused(65, b"a\n\xe2\x82\n", r"bad\.txt:2: not UTF-8")
        refused(2, "a\nb\n" + "Once " * 600, r"bad\.txt:3: the prompt has \d+ tokens", "512")
        refused(2, "a\nOnce upon a time\n", r"bad\.txt:2: ", "509", "512",
                options=["--max-tokens", "509"])
        none = self.root / "none.txt"
        self.refused(66, ["generate", SOURCE, "--prompts", none], [r"none\.txt"])
        self.refused(66, ["generate", SOURCE, "--prompts", self.root], ["read"])
        self.refused(66, ["generate", none, "--prompts", self.text], [r"none\.txt"])

    def test_options_that_do_not_go_together(self):
        prompts = ["generate", SOURCE, "--prompts", self.text]
        for args, words in [
                ([*prompts, "--prompt", "a"], ["--prompt", "--prompts"]),
                ([*prompts, "--prompt-file", self.text], ["--prompt-file", "--prompts"]),
                (["generate", SOURCE, "--prompt", "a", "--batch", "2"], ["--batch", "--prompts"]),
                (["generate", SOURCE, "--batch", "2"], ["--batch", "--prompts"]),
                *[([*prompts, "--batch", bad], ["--batch"]) for bad in ("0", "-1", "x", "1.5", "")]]:
            with self.subTest(args[2:]):
                self.refused(2, args, words)

    def test_interrupted(self):
        """After the first line, with most of the work to do; what was printed stays."""
        file = self.file("many.txt", "Once upon a time\n" * 5000)
        for options in ["--json"], []:
            run = subprocess.Popen([gqa_case.GQA, "generate", SOURCE, "--prompts", file, *options],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            first = os.read(run.stdout.fileno(), 1 << 16)
            run.send_signal(signal.SIGINT)
            out, said = run.communicate(timeout=gqa_case.PATIENCE)
            self.assertEqual((run.returncode, said), (130, b"gqa: error: interrupted\n"))
            self.assertTrue((first + out).endswith(b"\n"))
            self.assertIn(b"Once upon a time", first)


if __name__ == "__main__":
    unittest.main()
