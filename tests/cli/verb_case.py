"""Commands that succeed, and their JSON."""
import functools
import json
import subprocess

import gqa_case
from model_folder import SOURCE

HELDOUT = SOURCE / "heldout.txt"
VERBS = ["inspect", "convert", "expand", "export", "eval", "generate", "bench", "tune", "verify",
         "doctor"]


@functools.lru_cache
def bench_kinds():
    """What `gqa bench` measures: nothing in a program that was built without it (GQA_BENCH=OFF)."""
    said = subprocess.run([gqa_case.GQA, "bench"], stderr=subprocess.PIPE, check=False).stderr
    return [] if b"GQA_BENCH=OFF" in said else ["decode", "prefill", "backward", "model", "recall"]


class VerbCase(gqa_case.GqaCase):
    def ok(self, *args, **options):
        """Standard output of a command that succeeds, messages left on standard error."""
        done = self.gqa(*args, **options)
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        return done.stdout.decode()

    def json(self, *args):
        """The one object that --json prints."""
        text = self.ok(*args, "--json")
        self.assertEqual(text.count("\n"), 1, text)
        return json.loads(text, parse_constant=lambda name: self.fail(f"{name} is not JSON"))

    def convert(self, *args, kv_heads=4):
        out = self.place()
        self.ok("convert", SOURCE, out, "--kv-heads", str(kv_heads), *args)
        return out
