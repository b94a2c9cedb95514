#!/usr/bin/env python3
"""What `./dev peers speed` measures: attention, forward and backward, of gqa and others in turns.

usage: compare.py GQA OUT [--quick] [--rounds N] [--only REGEX]

Every engine takes its turn in every round, so that whatever else the machine does hits all alike;
medians are compared. A table in Markdown goes to standard output, everything that was found to OUT
as JSON objects, one a line, progress to standard error.
"""

import argparse
import dataclasses
import json
import os
import re
import subprocess
import sys

from cells import all_cells, quick_cells
from report import Report
from turns import Gqa, Peer, Skip, calm, summary

PEERS = {"torch": "PyTorch", "ort": "ONNX Runtime", "ggml": "ggml"}
ROUNDS, QUICK_ROUNDS = 5, 2
GQA_REPEATS = 5


def say(text):
    print(f"peers: {text}", file=sys.stderr, flush=True)


def parse():
    parser = argparse.ArgumentParser(prog="./dev peers speed", description=__doc__.splitlines()[0])
    parser.add_argument("gqa", help=argparse.SUPPRESS)
    parser.add_argument("out", help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="fewer cells and rounds")
    parser.add_argument("--rounds", type=int, help=f"turns of each (default: {ROUNDS})")
    parser.add_argument("--only", default="", metavar="REGEX",
                        help="cells in whose line of progress it is found, as 'prefill 2048 f16'")
    args = parser.parse_args()
    args.rounds = args.rounds or (QUICK_ROUNDS if args.quick else ROUNDS)
    if args.rounds < 1:
        parser.error("--rounds: expected 1 or more")
    return args


class Comparison:
    def __init__(self, args, log, out):
        self.args = args
        self.log = log
        self.out = out
        self.doctor = json.loads(subprocess.run([args.gqa, "doctor", "--json"], check=True,
                                                stdout=subprocess.PIPE).stdout)
        self.versions = {}
        self.missing = {}
        self.results = []
        self.machine = None

    def cells(self):
        # What one thread does, and all cores that this process may use.
        threads = sorted({1, self.doctor["threads"]})
        chosen = quick_cells(threads) if self.args.quick else all_cells(threads)
        return [cell for cell in chosen if re.search(self.args.only, cell.title())]

    def engines(self, threads):
        """gqa and the peers that can be had."""
        engines = [Gqa(self.args.gqa, threads, GQA_REPEATS)]
        for name, title in PEERS.items():
            try:
                engines.append(Peer(name, title, threads, self.log))
                self.versions[name] = engines[-1].version
            except Skip as problem:
                if name not in self.missing:
                    say(f"no {title}: {problem}")
                self.missing[name] = str(problem)
        return engines

    def prepared(self, engines, cell):
        """Engine -> how it does the cell. gqa says how many caches rotate, for all; if any do."""
        trial = engines[0].bench(cell, 1)
        self.machine = f"{trial['machine'] or 'Unknown machine'}, {trial['isa']}"
        ready = {}
        for engine in engines:
            try:
                ready[engine] = engine.prepare(cell, trial.get("caches", 1))
            except Skip as problem:
                say(f"  {PEERS[engine.name]} is left out: {problem}")
                self.record(cell, engine, {"skip": str(problem)})
        return ready

    def record(self, cell, engine, found):
        version = self.doctor["version"] if engine.name == "gqa" else engine.version
        print(json.dumps({**dataclasses.asdict(cell), "engine": engine.name, "version": version,
                          "machine": self.machine, **found}), file=self.out, flush=True)

    def rounds(self, ready, cell):
        """Engine -> its turns. One that fails in the middle is out. On a busy machine there are up
        to twice as many rounds, for those who have had too few turns that nobody disturbed."""
        turns = {engine: [] for engine in ready}
        for number in range(2 * self.args.rounds):
            order = [engine for engine in turns if len(calm(turns[engine])) < self.args.rounds]
            if not order:
                break
            # Nobody is always first, or always after the same one.
            for engine in order[number % len(order):] + order[:number % len(order)]:
                try:
                    turns[engine].append(engine.turn(cell))
                except Skip as problem:
                    say(f"  {engine.name} is left out: {problem}")
                    self.record(cell, engine, {"skip": str(problem)})
                    del turns[engine]
        return turns

    def measure(self, engines, cell):
        ready = self.prepared(engines, cell)
        found = {engine.name: {**ready[engine], **summary(turns, self.args.rounds)}
                 for engine, turns in self.rounds(ready, cell).items()}
        for engine in ready:
            if engine.name in found:
                result = found[engine.name]
                if engine.name != "gqa":
                    result["gqa_factor"] = result["ms_median"] / found["gqa"]["ms_median"]
                self.record(cell, engine, result)
        say("  " + ", ".join(f"{name} {f['ms_median']:.2f} ms{' *' if f['doubtful'] else ''}"
                             for name, f in found.items()))
        self.results.append((cell, found))

    def run(self):
        cells = self.cells()
        number = 0
        for threads in sorted({cell.threads for cell in cells}):
            engines = self.engines(threads)
            if len(engines) == 1:
                sys.exit("peers: none can be had")
            try:
                for cell in cells:
                    if cell.threads != threads:
                        continue
                    number += 1
                    say(f"{number}/{len(cells)} {cell.title()}")
                    try:
                        self.measure(engines, cell)
                    except Skip as problem:  # gqa's: there is nothing to compare with
                        say(f"  left out: {problem}")
            finally:
                for engine in engines:
                    engine.close()


def main():
    args = parse()
    log_path = os.path.splitext(args.out)[0] + ".log"
    with open(args.out, "w", encoding="utf-8") as out, open(log_path, "wb") as log:
        comparison = Comparison(args, log, out)
        comparison.run()
    if not comparison.results:
        sys.exit("peers: nothing was compared")
    columns = {"gqa": "gqa"} | {name: PEERS[name] for name in comparison.versions}
    report = Report(columns, comparison.results)
    versions = {"gqa": comparison.doctor["version"]} | comparison.versions
    print(f"{comparison.machine}. "
          f"{', '.join(f'{columns[name]} {version}' for name, version in versions.items())}.\n"
          "32 query heads of size 128; medians; in brackets how many times as long as gqa a peer "
          "takes.\n")
    print(report.table())
    print(f"\n{report.footnotes()}")
    for name, problem in comparison.missing.items():
        print(f"\nNot compared: {PEERS[name]} ({problem}).")
    for line in report.slower():
        say(f"gqa is slower: {line}")
    say(f"{os.path.relpath(args.out)} has all figures")


if __name__ == "__main__":
    main()
