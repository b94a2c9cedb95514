#!/usr/bin/env python3
"""clang-tidy over the sources of src/ and cli/, in parallel; what was clean is not checked again.

usage: run_tidy.py BUILD_DIR      a configured build, for its compile_commands.json

A file is clean for as long as it, the project headers that it includes, its compiler flags,
.clang-tidy and clang-tidy itself stay the same: stamps in BUILD_DIR/tidy hold the hash of all that.
"""

import concurrent.futures
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
INCLUDE = re.compile(rb'^\s*#\s*include\s*"([^"]+)"', re.M)


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


def fingerprint(path, flags, common):
    digest = hashlib.sha256(common + flags.encode())
    for name, content in sorted(with_headers(path).items()):
        digest.update(f"{name.relative_to(ROOT)} {len(content)} ".encode() + content)
    return digest.hexdigest()


def tidy(path, build):
    command = ["clang-tidy", "--quiet", "-p", str(build), str(path)]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def main():
    build = pathlib.Path(sys.argv[1]).resolve()
    stamps = build / "tidy"
    stamps.mkdir(exist_ok=True)
    version = subprocess.run(["clang-tidy", "--version"], stdout=subprocess.PIPE, check=True).stdout
    common = version + (ROOT / ".clang-tidy").read_bytes()
    work = []
    for entry in json.loads((build / "compile_commands.json").read_text()):
        path = pathlib.Path(entry["file"])
        if path.parts[len(ROOT.parts)] not in ("src", "cli"):
            continue
        stamp = stamps / str(path.relative_to(ROOT)).replace("/", "+")
        want = fingerprint(path, entry["command"], common)
        if not stamp.is_file() or stamp.read_text() != want:
            work.append((path, stamp, want))
    failed = 0
    if work:
        print(f"clang-tidy: {len(work)} files to check", file=sys.stderr)
    with concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        results = pool.map(lambda item: tidy(item[0], build), work)
        for (path, stamp, want), result in zip(work, results):
            if result.returncode == 0:
                stamp.write_text(want)
            else:
                failed += 1
                print(f"{path.relative_to(ROOT)}:\n{result.stdout}{result.stderr}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
