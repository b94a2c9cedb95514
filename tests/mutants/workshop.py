"""The one copy of the tree that mutants are made in. It is kept from run to run, beside ccache's cache, so that trying
a mutant compiles what includes the edited file, and links."""

import os
import platform
import shutil
import subprocess
import sys

from green import cache, locked
from tables import instructions

HANGS = 600  # seconds after which a test is said not to end


def run(*command, **options):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)


def demand(done):
    if done.returncode != 0:
        sys.exit(done.stdout)


def sources(root):
    """The tree's files; not builds, and what begins with a dot."""
    for top in sorted(root.iterdir()):
        if top.name.startswith(".") or top.name == "build":
            continue
        for path in [top] if top.is_file() else sorted(top.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path.relative_to(root)


def update_copy(root, tree):
    """Writes what changed and deletes what is gone; what is the same keeps its time, and is not compiled anew."""
    tree.mkdir(parents=True, exist_ok=True)
    wanted = set(sources(root))
    for name in set(sources(tree)) - wanted:
        (tree / name).unlink()
    for name in wanted:
        content = (root / name).read_bytes()
        target = tree / name
        if not target.is_file() or target.read_bytes() != content:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)


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
    """Built like the release but for its kernels: with ccache, what the release build compiled is found again, for
    which the build's folder lies where the release's does. Nobody else may use it meanwhile: see open()."""

    @staticmethod
    def folder():
        return cache() / "mutants"

    @classmethod
    def alone(cls):
        """A lock that makes others wait."""
        return locked(cls.folder() / "lock")

    def __init__(self, root):
        self.tree = self.folder() / "tree"
        self.build = self.tree / "build" / "release"
        self.sound = set()
        update_copy(root, self.tree)
        self.environment = {**os.environ, "CCACHE_BASEDIR": str(self.tree)}
        launcher = "ccache" if shutil.which("ccache") else ""
        demand(run("cmake", "--preset", "release", f"-DCMAKE_CXX_COMPILER_LAUNCHER={launcher}",
                   "-DGQA_TESTS=ON", f"-DCMAKE_PROJECT_gqa_INCLUDE={self.tree}/tests/mutants/kernels.cmake",
                   f"-DGQA_MUTANT_KERNELS={kernel_flags()}", cwd=self.tree))

    def make(self, *tests):
        demand(run("cmake", "--build", self.build, "--parallel", str(os.cpu_count()), "--target", *tests,
                   env=self.environment))

    def fails(self, test):
        """Builds and runs a test. What failed first, or nothing."""
        self.make(test)
        # Few configurations, so that a mutant is noticed in seconds, not by luck of a long run.
        few = {**os.environ, "GQA_TEST_CONFIGURATIONS": "250", "GTEST_FAIL_FAST": "1"}
        try:
            done = run(self.build / test, env=few, timeout=HANGS)
        except subprocess.TimeoutExpired:
            return f"{test} does not end"
        if done.returncode == 0:
            return ""
        failed = [line for line in done.stdout.splitlines() if "[  FAILED  ]" in line]
        return f"{test}: {failed[0].split()[3]}" if failed else f"{test} crashed"

    def demand_sound(self, tests):
        """The unbroken code must pass."""
        tests = sorted(set(tests) - self.sound)
        if tests:
            self.make(*tests)
        for test in tests:
            if what := self.fails(test):
                sys.exit(f"the unbroken code fails: {what}")
            self.sound.add(test)

    def try_mutant(self, mutant):
        """The first of its tests that notices it, and what failed there."""
        path = self.tree / mutant.file
        original = path.read_text()
        path.write_text(original.replace(mutant.old, mutant.new))
        try:
            for test in mutant.tests:
                if what := self.fails(test):
                    return test, what
            return None, ""
        finally:
            path.write_text(original)
