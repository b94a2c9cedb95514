"""Running the program and judging how it refuses."""

import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

from model_folder import ModelFolder

GQA = os.path.abspath(os.environ.get("GQA", "build/release/gqa"))
PATIENCE = 300  # seconds: only what hangs takes so long, however busy the machine


def snapshot(folder):
    """Everything below a folder, so that what came, went or changed shows."""
    return {
        str(p.relative_to(folder)): (p.lstat().st_mode, p.lstat().st_size, p.lstat().st_mtime_ns)
        for p in folder.rglob("*")
    }


def files(folder):
    """What the files of a folder hold."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class GqaCase(unittest.TestCase):
    def setUp(self):
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="gqa-test-"))
        self.addCleanup(shutil.rmtree, self.root)
        self.count = 0
        self.text = self.file("text.txt", "Once upon a time, there was a cat.")

    def place(self):
        """A path that nothing has yet."""
        self.count += 1
        return self.root / f"m{self.count}"

    def file(self, name, content):
        path = self.root / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def model(self, change=None):
        """A sound folder, or one that change(ModelFolder) has broken."""
        model = ModelFolder()
        if change:
            change(model)
        return model.write(self.place())

    def commands(self, model):
        """Every verb that reads a whole model."""
        return {
            "convert": ["convert", model, self.root / "out", "--kv-heads", "2"],
            "expand": ["expand", model, self.root / "out"],
            "export": ["export", model, self.root / "out.gguf"],
            "eval": ["eval", model, "--text", self.text],
            "generate": ["generate", model, "--prompt", "Once", "--max-tokens", "4"],
            "inspect": ["inspect", model],
            "verify": ["verify", model],
        }

    def gqa(self, *args, **options):
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        return subprocess.run(
            [GQA, *args], stdin=subprocess.DEVNULL, cwd=self.root, timeout=PATIENCE, **options
        )

    def refused(self, code, args, words, **options):
        """The exit code, every word in the message, and nothing on disk changed."""
        before = snapshot(self.root)
        done = self.gqa(*args, **options)
        said = ((done.stdout or b"") + done.stderr).decode(errors="replace")
        what = f"gqa {' '.join(map(str, args))}\n{said}"
        self.assertEqual(done.returncode, code, what)
        if args[0] != "verify":  # which reports problems as data
            self.assertIn("error", done.stderr.decode(errors="replace"), what)
            self.assertEqual(done.stdout or b"", b"", what)
        for word in words:
            self.assertRegex(said, f"(?i){word}", what)
        self.assertEqual(snapshot(self.root), before, what)

    def all_refuse(self, code, model, words, verbs):
        for verb, args in self.commands(model).items():
            if verb in verbs:
                with self.subTest(verb=verb, words=words):
                    self.refused(code, args, words)
