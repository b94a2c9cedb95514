"""The installed tree, and projects of somebody else that use it."""

import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

SOURCE = pathlib.Path(os.environ["GQA_SOURCE"])
BUILD = pathlib.Path(os.environ["GQA_BUILD"])
CMAKE = os.environ["GQA_CMAKE"]
CXX = os.environ["CXX"]
CONSUMERS = SOURCE / "tests/install"
MODEL = SOURCE / "models/tales-mha"
VERSION = ".".join(
    re.findall(
        r"^#define GQA_VERSION_(?:MAJOR|MINOR|PATCH) (\d+)$",
        (SOURCE / "include/gqa/version.h").read_text(),
        re.M,
    )
)
# What attention.cpp prints: 4 (1/4 + 2 * 3/4) for the heads of the first group, twice that for the other.
ATTENTION_SAYS = f"gqa {VERSION}: 7.0000 7.0000 14.0000 14.0000\nerrors arrive: yes\n"


def run(*command, cwd=None, **environment):
    """What a command prints, if it succeeds."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**os.environ, **{key: str(value) for key, value in environment.items()}},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))}: {done.returncode}\n{done.stdout}")
    return done.stdout


def install(prefix, *components):
    """Installs these components, or all."""
    for component in components or [None]:
        run(CMAKE, "--install", BUILD, "--prefix", prefix,
            *(["--component", component] if component else []))
    return prefix


def needed(binary, **environment):
    """The libraries that a program loads, and what these load: all but the loader itself."""
    return [
        line.split()[0]
        for line in run("ldd", binary, **environment).splitlines()
        if " => " in line
    ]


class InstallCase(unittest.TestCase):
    """Has a folder of its own, far from the source tree and the build."""

    def setUp(self):
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="gqa-install-test-"))
        self.addCleanup(shutil.rmtree, self.root)

    def consumer(self, name):
        """A copy of a consumer's project, with the two programs."""
        folder = self.root / name
        shutil.copytree(CONSUMERS / name, folder)
        for program in CONSUMERS.glob("*.cpp"):
            shutil.copy(program, folder)
        return folder

    def cmake(self, project, *options):
        build = project / "build"
        run(CMAKE, "-S", project, "-B", build, "-G", "Ninja", f"-DCMAKE_CXX_COMPILER={CXX}", *options)
        run(CMAKE, "--build", build, "--parallel", "2")
        return build
