#!/usr/bin/env python3
"""Times `gqa convert` beside a plain copy of the same files, and holds its memory against its own estimate.

usage: bench_convert.py [--rounds N] [--layers N] [--grouping HOW] [--merge HOW] [--calibrate TOKENS]
                        [--refine STEPS] [--dir DIR] GQA

Makes a model of 7B shape but fewer layers in a folder of its own under DIR (default: build), copies it (cp -r, then
sync) and converts it to 8 KV heads (neighbours, mean, unless said), in turns, page cache warm, and prints medians. Memory is what /proc says of anonymous
pages, polled: pages of mapped files are the system's to take back. --calibrate: on so many tokens of the shipped
model's held-out text.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

TOOLS = pathlib.Path(__file__).resolve().parent
SHIPPED = TOOLS.parent / "models/tales-mha"
SHAPE = {"width": 4096, "mlp-width": 11008, "heads": 32, "kv-heads": 32, "head-dim": 128, "vocab": 32000}


def anonymous_bytes(pid):
    """Of a process; 0 once it has ended."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
            for line in status:
                if line.startswith("RssAnon:"):
                    return int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0


def run_watched(command, pause=0.002):
    """Seconds, the peak of anonymous memory, and standard output of a command that succeeds."""
    start, peak = time.monotonic(), 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as run:
        while run.poll() is None:
            peak = max(peak, anonymous_bytes(run.pid))
            time.sleep(pause)
        out = run.stdout.read()
    seconds = time.monotonic() - start
    if run.returncode != 0:
        sys.exit(f"bench: failed with {run.returncode}: {' '.join(map(str, command))}")
    return seconds, peak, out


def read_all(folder):
    """Brings a folder into the page cache."""
    for path in folder.iterdir():
        with open(path, "rb") as file:
            while file.read(1 << 24):
                pass


def copy(source, out):
    shutil.rmtree(out, ignore_errors=True)
    read_all(source)
    os.sync()
    start = time.monotonic()
    subprocess.run(["cp", "-r", source, out], check=True)
    os.sync()
    seconds = time.monotonic() - start
    shutil.rmtree(out)
    return seconds


def convert(gqa, source, out, method):
    """Seconds, peak and the program's own report."""
    read_all(source)
    os.sync()
    seconds, peak, report = run_watched([gqa, "convert", source, out, "--kv-heads", "8", "--json", "--quiet", *method])
    shutil.rmtree(out)
    return seconds, peak, json.loads(report)


def measure(gqa, rounds, source, out, method):
    copies, converts, peaks = [], [], []
    for turn in range(rounds):
        copies.append(copy(source, out))
        seconds, peak, report = convert(gqa, source, out, method)
        converts.append(seconds)
        peaks.append(peak)
        print(f"bench: round {turn + 1} of {rounds}: copy {copies[-1]:.1f} s, convert {seconds:.1f} s",
              file=sys.stderr, flush=True)
    size = sum(path.stat().st_size for path in source.iterdir())
    copied, converted, peak = statistics.median(copies), statistics.median(converts), max(peaks)
    estimate = report["peak_memory_bytes"]
    print(f"method    {' '.join(map(str, method))}")
    print(f"source    {size / 1e9:.2f} GB, result {report['output_bytes'] / 1e9:.2f} GB")
    print(f"copy      {copied:.2f} s ({size / copied / 1e6:.0f} MB/s)")
    print(f"convert   {converted:.2f} s")
    print(f"ratio     {converted / copied:.2f}")
    print(f"memory    {peak / 1e6:.1f} MB anonymous at the most, estimate {estimate / 1e6:.1f} MB "
          f"({100 * (estimate / peak - 1):+.1f} %)")


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("gqa")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--grouping", default="neighbour")
    parser.add_argument("--merge", default="mean")
    parser.add_argument("--calibrate", type=int, default=0)
    parser.add_argument("--refine", type=int, default=2)
    parser.add_argument("--dir", default="build")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-convert-", dir=a.dir) as folder:
        source = pathlib.Path(folder) / "source"
        shape = [word for name, value in SHAPE.items() for word in (f"--{name}", str(value))]
        subprocess.run([sys.executable, TOOLS / "random_model.py", source, "--dtype", "f16", "--layers", str(a.layers),
                        *shape], check=True)
        method = ["--grouping", a.grouping, "--merge", a.merge]
        if a.calibrate > 0:
            shutil.copy(SHIPPED / "tokenizer.json", source)
            method += ["--calibrate", SHIPPED / "heldout.txt", "--calibrate-tokens", str(a.calibrate),
                       "--sampled-tokens", "0", "--refine", str(a.refine)]
        measure(a.gqa, a.rounds, source, pathlib.Path(folder) / "out", method)


if __name__ == "__main__":
    main()
