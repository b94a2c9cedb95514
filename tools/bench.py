#!/usr/bin/env python3
"""What `./dev bench` measures: a fixed list of configurations through `gqa bench`.

usage: bench.py GQA OUT      the program; a file for its JSON objects, one a line

Tables in Markdown go to standard output, progress to standard error. Takes some minutes. Needs the
Python standard library alone.
"""

import itertools
import json
import os
import statistics
import subprocess
import sys

OUT_OF_RESOURCES = 71

KV_LENS = [8192, 32768]
DTYPES = ["f32", "f16", "bf16", "int8", "int4"]
KV_HEADS = [32, 8, 1]
LONG = ["--kv-len", "32768", "--q-heads", "8", "--kv-heads", "2", "--window", "4096"]


def say(text):
    print(text, file=sys.stderr, flush=True)


def share(found, kind):
    return f"{found[f'{kind}_fraction']:.0%}"


def mark(found):
    """Behind a figure that is doubtful."""
    return " *" if found["short_of_cores"] else ""


class Bench:
    def __init__(self, gqa, out):
        self.gqa = gqa
        self.out = out
        self.found = []

    def run(self, kind, *args):
        """The JSON object of a configuration; none where the machine is too small for it."""
        say(f"bench: {kind} {' '.join(args)}")
        command = [self.gqa, "bench", kind, *args, "--json", "--quiet"]
        done = subprocess.run(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        if done.returncode == OUT_OF_RESOURCES:
            return None
        if done.returncode != 0:
            sys.exit(done.returncode)
        found = json.loads(done.stdout)
        print(json.dumps(found), file=self.out, flush=True)
        self.found.append(found)
        return found

    def decode_rows(self, all_threads):
        for threads, kv_len, dtype in itertools.product(all_threads, KV_LENS, DTYPES):
            row = [threads, f"{kv_len:,}", dtype]
            for kv_heads in KV_HEADS:
                found = self.run("decode", "--kv-len", str(kv_len), "--kv-dtype", dtype,
                                 "--kv-heads", str(kv_heads), "--threads", str(threads))
                row.append(found and f"{found['ms_median']:.2f} ms "
                           f"({share(found, 'bandwidth')}){mark(found)}")
            yield row

    def prefill_rows(self, all_threads):
        configurations = [
            ("2,048 tokens, 32/8 heads", ["--kv-len", "2048"], all_threads),
            ("2,048 tokens, 32/8 heads, soft cap", ["--kv-len", "2048", "--softcap", "30"],
             all_threads),
            ("8,192 tokens, 32/8 heads", ["--kv-len", "8192"], all_threads),
            ("32,768 tokens, 8/2 heads, window 4,096", LONG, all_threads[-1:]),
        ]
        for name, args, some_threads in configurations:
            for threads in some_threads:
                found = self.run("prefill", *args, "--threads", str(threads))
                yield [threads, name] + (
                    [f"{found['ms_median']:.0f} ms{mark(found)}", f"{found['gflop_per_s']:.0f}",
                     f"{found['ceiling_gflop_per_s']:.0f}", share(found, "compute")]
                    if found else [None] * 4)

    def ceilings(self, threads):
        """Medians over everything that ran on so many threads."""
        some = [found for found in self.found if found["threads"] == threads]
        reading = [f["ceiling_gb_per_s"] for f in some if f["kind"] == "decode"]
        sgemm = [f["ceiling_gflop_per_s"] for f in some]
        return (f"{threads} thread{'' if threads == 1 else 's'}: reading memory "
                f"{statistics.median(reading):.1f} GB/s, SGEMM {statistics.median(sgemm):.0f} "
                f"GFLOP/s.")


def markdown(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        "| " + " | ".join("too large" if cell is None else str(cell) for cell in line) + " |"
        for line in lines)


def main():
    gqa, path = sys.argv[1:]
    # What one thread does, and all cores that this process may use.
    all_threads = sorted({1, json.loads(subprocess.run(
        [gqa, "doctor", "--json"], stdout=subprocess.PIPE, check=True).stdout)["threads"]})
    with open(path, "w", encoding="utf-8") as out:
        bench = Bench(gqa, out)
        decode = list(bench.decode_rows(all_threads))
        prefill = list(bench.prefill_rows(all_threads))
    if not bench.found:
        sys.exit("bench: this machine has too little memory for any of it")
    heads = [f"{n} KV head{'' if n == 1 else 's'}" for n in KV_HEADS]
    print(f"{bench.found[0]['machine'] or 'Unknown machine'}, {bench.found[0]['isa']}.",
          *(bench.ceilings(threads) for threads in all_threads))
    print("\nDecode: one query token, 32 query heads of size 128; in brackets the share of the rate"
          " at which the same threads read memory.\n")
    print(markdown(["threads", "keys", "cache", *heads], decode))
    print("\nCausal prefill, heads of size 128, f16 cache; share of SGEMM.\n")
    print(markdown(["threads", "", "median", "GFLOP/s", "SGEMM", "share"], prefill))
    if any(found["short_of_cores"] for found in bench.found):
        print("\n\\* The threads did not have a core each: other programs were running.")
    say(f"bench: {os.path.relpath(path)} has all figures")


if __name__ == "__main__":
    main()
