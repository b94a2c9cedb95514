"""tools/run_tidy.py: what is checked, in which order, and what is left when the time is over."""

import contextlib
import io
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest
from unittest import mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))
import run_tidy

# In place of clang-tidy: writes down which file it was asked about, and finds fault with files that say so.
STAND_IN = """#!/bin/sh
for last; do :; done
case $last in --version) exit ;; esac
basename "$last" >>"$(dirname "$0")/checked"
! grep -q bad "$last"
"""


class RunTidyTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)
        self.git("init", "--quiet")
        (self.root / "build").mkdir()
        self.write(".clang-tidy", "")
        stand_in = self.root / "clang-tidy"
        stand_in.write_text(STAND_IN)
        stand_in.chmod(0o755)
        for patch in [mock.patch.object(run_tidy, "ROOT", self.root), mock.patch.object(run_tidy, "TIDY", stand_in),
                      mock.patch.object(run_tidy.os, "sched_getaffinity", lambda _: {0}),
                      mock.patch.dict(os.environ, {"GQA_TIDY_CACHE": str(self.root / "stamps")})]:
            patch.start()
            self.addCleanup(patch.stop)
        for name, content in [("old", '#include "core/shared.h"'), ("older", ""), ("new", "")]:
            self.write(f"src/core/{name}.cpp", content)
        self.write("src/core/shared.h", "")
        self.write("tests/unit/x_test.cpp", "bad")
        for names in ["src/core/older.cpp", "src/core/old.cpp src/core/shared.h tests", "src/core/new.cpp"]:
            self.git("add", *names.split())
            self.git("-c", "user.name=x", "-c", "user.email=x", "commit", "--quiet", "-m", "x")
        files = [self.root / name for name in
                 ["src/core/older.cpp", "src/core/old.cpp", "src/core/new.cpp", "tests/unit/x_test.cpp"]]
        (self.root / "build/compile_commands.json").write_text(json.dumps(
            [{"file": str(file), "command": f"c++ -c {file}"} for file in files]))

    def git(self, *command):
        subprocess.run(["git", "-C", self.root, *command], check=True, stdout=subprocess.DEVNULL)

    def write(self, name, content):
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_text(content)

    def checked(self, *options):
        """What was checked, the exit code, and what was said."""
        (self.root / "checked").write_text("")
        said = io.StringIO()
        with contextlib.redirect_stderr(said), mock.patch.object(
                sys, "argv", ["run_tidy.py", *options, str(self.root / "build")]):
            code = run_tidy.main()
        return (self.root / "checked").read_text().split(), code, said.getvalue()

    def test_what_changed_last_comes_first(self):
        self.assertEqual(self.checked()[:2], (["new.cpp", "old.cpp", "older.cpp"], 0))

    def test_what_is_clean_is_checked_again_when_it_or_a_header_changes(self):
        self.checked()
        self.assertEqual(self.checked()[0], [])
        self.write("src/core/shared.h", "// more")
        self.write("src/core/older.cpp", "// more")
        self.assertEqual(sorted(self.checked()[0]), ["old.cpp", "older.cpp"])

    def test_what_is_not_clean_is_checked_again(self):
        self.write("src/core/new.cpp", "bad")
        for _ in range(2):
            found = self.checked()
            self.assertEqual((found[1], "new.cpp" in found[0], "src/core/new.cpp:" in found[2]), (1, True, True))

    def test_no_time(self):
        names, code, said = self.checked("--within", "0")
        self.assertEqual((names, code), ([], 0))
        self.assertIn("3 files NOT CHECKED", said)
        self.assertEqual(len(self.checked()[0]), 3)


if __name__ == "__main__":
    unittest.main()
