"""The demo, with a script in the program's place: what it shows, when, and how it ends."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEMO = ROOT / "examples" / "demo.py"
PATIENCE = 60  # seconds: only what hangs takes so long

# Answers as gqa does. What is converted to N heads waits for the file go-N in the folder STAGE, and appends to the
# file told there what it does. A file fail-N there makes it fail.
GQA = """#!/usr/bin/python3
import json, os, pathlib, signal, sys, time

stage = pathlib.Path(os.environ["STAGE"])
verb, words = sys.argv[1], sys.argv[2:]
option = dict(zip(words, words[1:]))

def tell(text):
    with open(stage / "told", "a") as told:
        told.write(text + "\\n")

def answer(**found):
    print(json.dumps(found))
    sys.exit(0)

def heads_of(model):
    name = pathlib.Path(model).name
    return int(name.split("-")[1]) if "-" in name else json.loads((stage / "heads").read_text())

def interrupted(*_):
    tell(f"{n} interrupted")
    print("gqa: error: interrupted", file=sys.stderr)
    sys.exit(130)

if verb == "inspect":
    heads = heads_of(words[0])
    answer(kv_heads=[heads] * 6, kv_bytes_per_token=768 * heads)
if verb == "eval":
    ppl = 6 - heads_of(words[0]) / 16 + 60 * ("averaged" in words[0])
    answer(nll=1.5, ppl=ppl, **({"top1_agreement": 0.5, "kl": 0.25} if "--against" in words else {}))
if verb == "generate":
    answer(decode_tokens_per_s=100 * heads_of(words[0]), text=f"{words[0]}. A cat. A dog. A cow.")
if verb == "doctor":
    answer(cpu="A cpu", threads=2, isa="avx9", version="1.2.3")
n = int(option["--kv-heads"])
if "--dry-run" in words:
    answer(estimated_seconds=600)
if "--calibrate" in words:
    signal.signal(signal.SIGINT, interrupted)
    tell(f"{n} begins in session {os.getsid(0)}, nice {os.nice(0)}")
    print(f"layer 0: error 0.1 -> 0.0 of {n}", file=sys.stderr, flush=True)
    print(f"warning: {n} heads are few", file=sys.stderr, flush=True)
    while not (stage / f"go-{n}").exists():
        if (stage / f"fail-{n}").exists():
            print(f"gqa: error: {words[1]}: no space", file=sys.stderr)
            sys.exit(74)
        time.sleep(0.02)
pathlib.Path(words[1]).mkdir()
answer()
"""


class Demo(unittest.TestCase):
    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory()
        self.addCleanup(self.temporary.cleanup)
        self.folder = pathlib.Path(self.temporary.name)
        self.stage, self.tmp = self.folder / "stage", self.folder / "tmp"
        self.stage.mkdir()
        self.tmp.mkdir()
        self.gqa, self.text, self.json = self.folder / "gqa", self.folder / "text", self.folder / "found.json"
        self.gqa.write_text(GQA, "utf-8")
        self.gqa.chmod(0o755)
        self.text.touch()
        self.heads(8)

    def heads(self, n):
        (self.stage / "heads").write_text(json.dumps(n), "utf-8")

    def allow(self, *heads, what="go"):
        for n in heads:
            (self.stage / f"{what}-{n}").touch()

    def run_demo(self, *options):
        """The exit code, standard output and standard error."""
        demo = self.begin(*options)
        output, said = demo.communicate(timeout=PATIENCE)
        return demo.returncode, output, said

    def begin(self, *options):
        command = [sys.executable, "-B", str(DEMO), "--gqa", str(self.gqa), "--model", str(self.folder / "model"),
                   "--text", str(self.text), "--json", str(self.json), *options]
        demo = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                env=os.environ | {"STAGE": str(self.stage), "TMPDIR": str(self.tmp)}, text=True)
        self.addCleanup(self.end, demo)
        return demo

    @staticmethod
    def end(demo):
        """Of a test that failed, too."""
        demo.terminate()
        demo.communicate()

    def told(self):
        path = self.stage / "told"
        return sorted(path.read_text("utf-8").splitlines()) if path.exists() else []

    def wait_for_conversions(self, demo):
        """Until all three have begun."""
        end = time.monotonic() + PATIENCE
        while len([line for line in self.told() if "begins" in line]) < 3:
            self.assertIsNone(demo.poll())
            self.assertLess(time.monotonic(), end)
            time.sleep(0.02)

    def row_after(self, demo):
        """The next line of the table, and what was said before it."""
        before = []
        for line in demo.stderr:
            if re.match(r" *\d+ +\d+ ", line):
                return line.split(), "".join(before)
            before.append(line)
        self.fail("".join(before))

    def test_rows_come_as_soon_as_they_are_measured(self):
        demo = self.begin()
        row, said = self.row_after(demo)
        self.assertEqual(row, ["8", "6144", "5.500", "100.0", "%"])
        # What will be done is said first, and for how long.
        self.assertRegex(said, r"from 8 to 4, 2 and 1 KV heads: the next row comes after about \d+ min, all after"
                               r" about \d+ min")
        self.assertLess(said.index("about"), said.index("KV bytes/token"))
        self.allow(4)  # the others wait
        self.assertEqual(self.row_after(demo)[0], ["4", "3072", "65.750", "5.750", "50.0", "%"])
        self.allow(1)
        self.assertEqual(self.row_after(demo)[0], ["1", "768", "65.938", "5.938", "50.0", "%"])
        self.assertFalse(self.json.exists())
        self.allow(2)
        self.assertEqual(self.row_after(demo)[0], ["2", "1536", "65.875", "5.875", "50.0", "%"])
        output, said = demo.communicate(timeout=PATIENCE)
        self.assertEqual(demo.returncode, 0, said)

        # The whole table has them in order, with speeds, and says how they were made.
        table = [line.split() for line in output.splitlines() if re.match(r" *\d+ +\d+ ", line)]
        self.assertEqual([(row[0], row[-1]) for row in table], [("8", "800"), ("4", "400"), ("2", "200"), ("1", "100")])
        found = json.loads(self.json.read_text("utf-8"))
        self.assertEqual([row["kv_heads"] for row in found["rows"]], [8, 4, 2, 1])
        self.assertEqual(found["rows"][1]["decode_tokens_per_s"], 400)
        self.assertEqual(found["rows"][0]["averaged_ppl"], None)
        self.assertEqual(found["machine"]["isa"], "avx9")
        self.assertIn(f"gqa convert {found['convert_options']}`", " ".join(output.split()))
        self.assertIn("A cat. A dog.", output)
        self.assertEqual(list(self.tmp.iterdir()), [])

    def test_warnings_are_shown_and_progress_is_not(self):
        self.allow(4, 2, 1)
        code, _, said = self.run_demo()
        self.assertEqual(code, 0, said)
        self.assertEqual(sorted(re.findall("warning: .*", said)), [f"warning: {n} heads are few" for n in (1, 2, 4)])
        self.assertNotIn("error 0.1", said)
        self.assertNotIn("\x1b", said)

    def test_more_heads_go_first(self):
        self.allow(4, 2, 1)
        self.assertEqual(self.run_demo()[0], 0)
        nice = {int(line.split()[0]): int(line.split()[-1]) for line in self.told()}
        self.assertLess(nice[4], nice[2])
        self.assertLess(nice[2], nice[1])
        if sys.version_info >= (3, 11):  # and that counts
            sessions = {int(re.search(r"session (\d+)", line)[1]) for line in self.told()}
            self.assertEqual(sessions, {os.getsid(0)})

    def test_models_are_kept_where_asked_for(self):
        self.allow(4, 2, 1)
        out = self.folder / "a" / "b"
        self.assertEqual(self.run_demo("--out", str(out))[0], 0)
        self.assertEqual(sorted(path.name for path in out.iterdir()),
                         sorted(f"{kind}-{n}" for kind in ("averaged", "fitted") for n in (4, 2, 1)))

    def test_a_failure_ends_all_and_is_said_once(self):
        demo = self.begin()
        self.wait_for_conversions(demo)
        self.allow(2, what="fail")
        output, said = demo.communicate(timeout=PATIENCE)
        self.assertEqual((demo.returncode, output), (74, ""))
        self.assertEqual(re.findall("gqa: error: .*", said), [f"gqa: error: {re.search('error: (.*)', said)[1]}"])
        self.assertIn("fitted-2: no space", said)
        self.assertEqual(len(re.findall("ended with exit code", said)), 1)
        self.assertRegex(said, "demo: `.* convert .*--kv-heads 2 .*` ended with exit code 74")
        self.assertEqual([line for line in self.told() if "interrupted" in line], ["1 interrupted", "4 interrupted"])
        self.assertEqual(list(self.tmp.iterdir()), [])

    def test_a_signal_ends_all_cleanly(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            with self.subTest(number):
                (self.stage / "told").unlink(missing_ok=True)
                demo = self.begin()
                self.wait_for_conversions(demo)
                demo.send_signal(number)
                output, said = demo.communicate(timeout=PATIENCE)
                self.assertEqual((demo.returncode, output), (130, ""), said)
                # Once each: a second signal would kill a conversion before it has tidied up.
                self.assertEqual([line for line in self.told() if "interrupted" in line],
                                 [f"{n} interrupted" for n in (1, 2, 4)])
                self.assertNotIn("Traceback", said)
                self.assertEqual(list(self.tmp.iterdir()), [])

    def test_a_model_that_can_not_be_halved_is_refused(self):
        self.heads(3)
        code, _, said = self.run_demo()
        self.assertEqual(code, 2, said)
        self.assertIn("expected a model with an even number of KV heads", said)


if __name__ == "__main__":
    unittest.main()
