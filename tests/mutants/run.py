"""Proves that tests can fail: breaks the code in known ways and expects the test to notice.

Each mutant of a table (attention.json) is one edit of one source file. It is made in a copy of the tree,
the tests are built and one must fail; the unbroken copy must pass. An edit whose text is no longer in the source
exactly once is an error, so that the tables stay true.

A mutant may say
  by      which of the table's tests notices it, so that this one is tried first (else the table's first);
  needs   which instructions a processor must have for the broken code to run at all, by their name in /proc/cpuinfo.
          Elsewhere the mutant is left out, and the summary says so.

A run tries one of SHARES mutants of the table, and begins none when PATIENCE is over. The commit that is checked out
says which and in which order, so that commit after commit all have their turn; GQA_MUTANTS=all has all of them tried,
and so has a tree without git.

Usage: run.py TABLE.json FOLDER [words of the mutants' `why` ...]      words: those mutants, whosever turn it is
FOLDER holds copies of the tree, which tables share, and in said/ the summary of each table, for `./dev test` to print.
       run.py --check TABLE.json ...      only whether every edit is possible
"""

import fcntl
import itertools
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
COPIED = ["CMakeLists.txt", "CMakePresets.json", "cmake", "include", "src", "cli", "examples", "tests"]
SHARES = 4
PATIENCE = 240  # seconds, from the first mutant on


def run(*command, **options):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)


def demand(done):
    if done.returncode != 0:
        sys.exit(done.stdout)


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


def instructions():
    """What the processor has, as Linux names it."""
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("flags"):
            return set(line.split(":")[1].split())
    return set()


def kernel_flags():
    """Compiled in less time: no optimisation that no test asks for, no instruction set that does not run here or that
    differs from another in the width of its vectors alone."""
    flags = ["-O1"]
    if platform.machine() == "x86_64":
        left_out = ["SSSE3", "SSE4", "AVX3_DL"]
        if not {"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= instructions():
            left_out.append("AVX3")
        flags.append(f"-DHWY_DISABLED_TARGETS=({'|'.join('HWY_' + name for name in left_out)})")
    return ";".join(flags)


class Workshop:
    """A copy of the tree that no other process uses, built like the release but for its kernels: with ccache, what the
    release build compiled is found again, for which the build's folder lies where the release's does."""

    def __init__(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        for number in itertools.count(1):
            self.lock = open(folder / f"tree{number}.lock", "w")
            try:
                fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            break
        self.tree = folder / f"tree{number}"
        self.build = self.tree / "build" / "release"
        copy_tree(self.tree)
        self.environment = {**os.environ, "CCACHE_BASEDIR": str(self.tree)}
        launcher = "ccache" if shutil.which("ccache") else ""
        demand(run("cmake", "--preset", "release", f"-DCMAKE_CXX_COMPILER_LAUNCHER={launcher}",
                   f"-DCMAKE_PROJECT_gqa_INCLUDE={self.tree}/tests/mutants/kernels.cmake",
                   f"-DGQA_MUTANT_KERNELS={kernel_flags()}", cwd=self.tree))

    def make(self, *tests):
        demand(run("ninja", "-C", self.build, "-j", str(os.cpu_count()), *tests, env=self.environment))

    def fails(self, test):
        """Builds and runs a test. What failed first, or nothing."""
        self.make(test)
        # Few configurations, so that a mutant is noticed in seconds, not by luck of a long run.
        done = run(self.build / test,
                   env={**os.environ, "GQA_TEST_CONFIGURATIONS": "250", "GTEST_FAIL_FAST": "1"})
        if done.returncode == 0:
            return ""
        failed = [line for line in done.stdout.splitlines() if "[  FAILED  ]" in line]
        return f"{test}: {failed[0].split()[3]}" if failed else f"{test} crashed"

    def try_mutant(self, mutant, tests):
        """The first of the tests that notices it, and what failed there."""
        path = self.tree / mutant["file"]
        original = path.read_text()
        path.write_text(original.replace(mutant["old"], mutant["new"]))
        try:
            for test in tests:
                if what := self.fails(test):
                    return test, what
            return None, ""
        finally:
            path.write_text(original)


def impossible(table):
    """Says which edits are not possible; all must be, whether they are tried or not."""
    for mutant in table["mutants"]:
        path = ROOT / mutant["file"]
        found = path.read_text().count(mutant["old"]) if path.is_file() else 0
        if found != 1:
            yield f"{mutant['file']}: expected once, found {found} times: {mutant['old']}"
        if mutant.get("by", table["tests"][0]) not in table["tests"]:
            yield f"{mutant['why']}: the table has no test {mutant['by']}"


def checked(path):
    table = json.loads(path.read_text())
    if problems := list(impossible(table)):
        sys.exit("\n".join(f"{path.name}: {problem}" for problem in problems))
    return table


def its_turn(mutants):
    """Those to be tried, why these, and for how long."""
    head = run("git", "-C", ROOT, "rev-parse", "HEAD")
    if os.environ.get("GQA_MUTANTS") == "all" or head.returncode != 0:
        return mutants, "all", float("inf")
    order, turn = divmod(int(head.stdout.strip()[:8], 16), SHARES)
    chosen = mutants[turn::SHARES]
    first = order % max(1, len(chosen))
    share = f"1 of {SHARES}, as commit {head.stdout[:8]} says; GQA_MUTANTS=all tries all"
    return chosen[first:] + chosen[:first], share, PATIENCE


def tests_of(mutant, table):
    """The table's tests, the one first that should notice the mutant."""
    by = mutant.get("by", table["tests"][0])
    return [by] + [test for test in table["tests"] if test != by]


def main(path, folder, *words):
    path, folder = pathlib.Path(path), pathlib.Path(folder)
    table = checked(path)
    have = instructions()
    possible = [mutant for mutant in table["mutants"] if set(mutant.get("needs", "").split()) <= have]
    if words:
        chosen = [mutant for mutant in possible if any(word in mutant["why"] for word in words)]
        share, patience = "those asked for", float("inf")
    else:
        chosen, share, patience = its_turn(possible)

    workshop = Workshop(folder)
    sound = set()

    def demand_sound(tests):
        # One after the other, so that two tables that begin together compile nothing twice.
        with open(folder / "build.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            workshop.make(*tests)
        for test in sorted(tests - sound):
            if what := workshop.fails(test):
                sys.exit(f"the unbroken code fails: {what}")
            sound.add(test)

    demand_sound({tests_of(mutant, table)[0] for mutant in chosen})
    survivors, noticing, tried = 0, set(), 0
    until = time.monotonic() + patience
    for mutant in chosen:
        if time.monotonic() > until:
            share += f"; no time for {len(chosen) - tried} more"
            break
        tried += 1
        tests = tests_of(mutant, table)
        test, what = workshop.try_mutant(mutant, tests)
        if test is None:
            survivors += 1
            print(f"SURVIVED  {mutant['why']}", flush=True)
            continue
        noticing.add(test)
        late = "" if test == tests[0] else f", not by {tests[0]}"
        print(f"noticed   {mutant['why']}  ({what}{late})", flush=True)
    demand_sound(noticing)

    summary = f"{path.stem}: {tried} of {len(table['mutants'])} mutants tried ({share}), {survivors} survived"
    if left_out := [mutant for mutant in table["mutants"] if mutant not in possible]:
        missing = sorted({name for mutant in left_out for name in mutant["needs"].split()} - have)
        summary += f"\n{path.stem}: {len(left_out)} mutants LEFT OUT, NOT TESTED: this processor lacks {', '.join(missing)}"
    print(summary)
    (folder / "said").mkdir(exist_ok=True)
    (folder / "said" / path.stem).write_text(summary + "\n")
    if survivors:
        sys.exit(f"{survivors} mutants survived")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--check"]:
        for table in sys.argv[2:]:
            checked(pathlib.Path(table))
        sys.exit()
    if shutil.which("ninja") is None:
        sys.exit("ninja is not installed")
    main(*sys.argv[1:])
