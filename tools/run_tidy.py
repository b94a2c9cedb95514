#!/usr/bin/env python3
"""clang-tidy over the sources of src/ and cli/, in parallel; what was clean is not checked again.

usage: run_tidy.py [--within MINUTES] BUILD_DIR      a configured build, for its compile_commands.json

What changed last is checked first. With --within no file is begun after that time, and how many are left is said;
they are checked when it runs again.

A file is clean for as long as it, the project headers that it includes, its compiler flags,
.clang-tidy, clang-tidy itself and Debian's headers stay the same. Files whose names are hashes of all that stand for
what was clean, in ~/.cache/gqa/tidy (GQA_TIDY_CACHE says where else), so that other checkouts know it, too.
"""

import argparse
import concurrent.futures
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
INCLUDE = re.compile(rb'^\s*#\s*include\s*"([^"]+)"', re.M)
PRECOMPILED = re.compile(r" -fpch-preprocess| -Winvalid-pch| -include \S*cmake_pch\.hxx")
KEPT_DAYS = 60
# 22 does not look at what it finds in the system's headers, and takes a third of the time.
TIDY = "clang-tidy-22" if shutil.which("clang-tidy-22") else "clang-tidy"


def with_headers(path, found=None):
    """The file and every project header that it includes, directly or not."""
    found = {} if found is None else found
    if path not in found:
        found[path] = path.read_bytes()
        for name in INCLUDE.findall(found[path]):
            for folder in ("include", "src", "."):
                header = ROOT / folder / os.fsdecode(name)
                if header.is_file():
                    with_headers(header, found)
                    break
    return found


def by_last_change():
    """The files of the project, what changed last first."""
    def git(*command):
        done = subprocess.run(["git", "-C", ROOT, *command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        return done.stdout.splitlines()
    files = git("diff", "--name-only", "HEAD") + git("log", "--format=", "--name-only")
    return {ROOT / name: age for age, name in reversed(list(enumerate(files)))}


def fingerprint(files, flags, common):
    """The same wherever the checkout lies."""
    digest = hashlib.sha256(common + flags.replace(str(ROOT), ".").encode())
    for name, content in sorted(files.items()):
        digest.update(f"{name.relative_to(ROOT)} {len(content)} ".encode() + content)
    return digest.hexdigest()


def tools():
    """Whatever else decides what is found: clang-tidy and the packages with headers, in their versions."""
    versions = subprocess.run([TIDY, "--version"], stdout=subprocess.PIPE, check=True).stdout
    if shutil.which("dpkg-query"):
        versions += subprocess.run(["dpkg-query", "--show", "clang-tidy*", "*-dev"], stdout=subprocess.PIPE).stdout
    return versions + (ROOT / ".clang-tidy").read_bytes()


def cache():
    """The folder of what was clean, without what nobody asked for in a long time."""
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    folder = pathlib.Path(os.environ.get("GQA_TIDY_CACHE") or pathlib.Path(base) / "gqa" / "tidy")
    folder.mkdir(parents=True, exist_ok=True)
    for stamp in folder.iterdir():
        if stamp.stat().st_mtime < time.time() - KEPT_DAYS * 86400:
            stamp.unlink(missing_ok=True)
    return folder


def without_precompiled(build):
    """Has the build's commands, but for headers that are precompiled, in a folder of their own: so a file must include
    what it uses. Gives the folder and the commands."""
    entries = json.loads((build / "compile_commands.json").read_text())
    for entry in entries:
        entry["command"] = PRECOMPILED.sub("", entry["command"])
    folder = build / "tidy"
    folder.mkdir(exist_ok=True)
    (folder / "compile_commands.json").write_text(json.dumps(entries))
    return folder, entries


def tidy(path, build, gcc_headers):
    # Behind all others, for omp.h, which clang brings along in a package of its own.
    command = [TIDY, "--quiet", f"--extra-arg=-idirafter{gcc_headers}", "-p", str(build), str(path)]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("usage: ")[1].splitlines()[0])
    parser.add_argument("--within", type=float, default=float("inf"), metavar="MINUTES")
    parser.add_argument("build", type=pathlib.Path)
    options = parser.parse_args()
    build, until = options.build.resolve(), time.monotonic() + 60 * options.within
    stamps, common, ages = cache(), tools(), by_last_change()
    work, clean = [], 0
    build, entries = without_precompiled(build)
    for entry in entries:
        path = pathlib.Path(entry["file"])
        if path.parts[len(ROOT.parts)] not in ("src", "cli"):
            continue
        files = with_headers(path)
        stamp = stamps / fingerprint(files, entry["command"], common)
        if stamp.exists():
            stamp.touch()
            clean += 1
        else:
            work.append((min(ages.get(file, 0) for file in files), path, stamp))
    gcc = ["g++", "-print-file-name=include"]
    gcc_headers = subprocess.run(gcc, stdout=subprocess.PIPE, check=True, text=True).stdout.strip()
    failed = left = 0
    work.sort()
    if work:
        print(f"clang-tidy: {len(work)} files to check, {clean} known to be clean", file=sys.stderr)
    with concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        results = pool.map(
            lambda item: tidy(item[1], build, gcc_headers) if time.monotonic() < until else None, work)
        for (_, path, stamp), result in zip(work, results):
            if result is None:
                left += 1
            elif result.returncode == 0:
                stamp.touch()
            else:
                failed += 1
                print(f"{path.relative_to(ROOT)}:\n{result.stdout}{result.stderr}", file=sys.stderr)
    if left:
        print(f"clang-tidy: {left} files NOT CHECKED: no time for more in {options.within:g} minutes; "
              "./dev lint checks all", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
