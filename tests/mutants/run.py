"""Proves that tests can fail: breaks the code in known ways and expects the test to notice.

Each mutant of a table (attention.json) is one edit of one source file. It is made in a copy of the tree,
the tests are built and one must fail; the unbroken copy must pass. An edit whose text is no longer in the source
exactly once is an error, so that the tables stay true.

Usage: run.py TABLE.json BUILD_DIR [words of the mutants' `why` ...]
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
COPIED = ["CMakeLists.txt", "include", "src", "cli", "examples", "tests"]


def run(*command, **options):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)


def copy_tree(tree):
    """Copies what changed, so that a second run rebuilds little."""
    for name in COPIED:
        source = ROOT / name
        for path in [source] if source.is_file() else source.rglob("*"):
            target = tree / path.relative_to(ROOT)
            if path.is_dir() or "__pycache__" in path.parts:
                continue
            content = path.read_bytes()
            if not target.exists() or target.read_bytes() != content:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)


class Workshop:
    def __init__(self, build, tests):
        self.tree, self.build, self.tests = build / "tree", build / "build", tests
        copy_tree(self.tree)
        self.demand(run("cmake", "-S", self.tree, "-B", self.build, "-G", "Ninja",
                        "-DCMAKE_BUILD_TYPE=Release", "-DCMAKE_CXX_FLAGS_RELEASE=-O1"))

    @staticmethod
    def demand(done):
        if done.returncode != 0:
            sys.exit(done.stdout)

    def notices(self):
        """Builds and runs one test after the other; says whether one fails, and what failed first."""
        # Few configurations, so that a mutant is noticed in seconds, not by luck of a long run.
        environment = {**os.environ, "GQA_TEST_CONFIGURATIONS": "250", "GTEST_FAIL_FAST": "1"}
        for test in self.tests:
            self.demand(run("ninja", "-C", self.build, test))
            done = run(self.build / test, env=environment)
            if done.returncode != 0:
                failed = [line for line in done.stdout.splitlines() if "[  FAILED  ]" in line]
                return True, failed[0].split()[3] if failed else f"{test} crashed"
        return False, ""

    def try_mutant(self, mutant):
        path = self.tree / mutant["file"]
        original = path.read_text()
        if original.count(mutant["old"]) != 1:
            sys.exit(f"{mutant['file']}: expected once, found {original.count(mutant['old'])} times: {mutant['old']}")
        path.write_text(original.replace(mutant["old"], mutant["new"]))
        try:
            return self.notices()
        finally:
            path.write_text(original)


def main(table, build, *words):
    table = json.loads(pathlib.Path(table).read_text())
    workshop = Workshop(pathlib.Path(build), table["tests"])
    broken, what = workshop.notices()
    if broken:
        sys.exit(f"the unbroken code fails: {what}")
    survivors = 0
    for mutant in table["mutants"]:
        if words and not any(word in mutant["why"] for word in words):
            continue
        noticed, what = workshop.try_mutant(mutant)
        survivors += not noticed
        print(f"{'noticed ' if noticed else 'SURVIVED'}  {mutant['why']}" + (f"  ({what})" if noticed else ""), flush=True)
    if survivors:
        sys.exit(f"{survivors} mutants survived")


if __name__ == "__main__":
    if shutil.which("ninja") is None:
        sys.exit("ninja is not installed")
    main(*sys.argv[1:])
