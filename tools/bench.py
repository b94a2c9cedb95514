#!/usr/bin/env python3
"""Times attention on this machine, as `./dev bench` does: a fixed list of configurations.

usage: bench.py [--quick] GQA OUT PAGE

GQA: the program. OUT: a file for its JSON objects, one a line. PAGE: a Markdown file with a part
for each instruction set that was measured: the one of this machine is replaced by the tables, or
added; they go to standard output, too, progress to standard error.

Every configuration is run several times, in turns with all others; what is compared runs call by call
in turns. --quick runs each once. Needs the Python standard library alone.
"""

import json
import subprocess
import sys

from bench_cases import all_cases
from bench_tables import Found, report
from page import put_part

OUT_OF_RESOURCES = 71
ROUNDS = 3


def say(text):
    print(text, file=sys.stderr, flush=True)


def run(gqa, case):
    """The JSON object of a configuration; None where the machine is too small for it."""
    done = subprocess.run(
        [gqa, "bench", *case.arguments(), *case.repeats(), "--json", "--quiet"],
        stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    if done.returncode == OUT_OF_RESOURCES:
        return None
    if done.returncode != 0:
        sys.exit(done.returncode)
    return json.loads(done.stdout)


def measure(gqa, cases, rounds, out):
    found = Found()
    for turn in range(rounds):
        for number, case in enumerate(cases):
            say(f"bench: round {turn + 1} of {rounds}, {number + 1} of {len(cases)}: {case.key()}")
            result = run(gqa, case)
            found.add(case, result)
            print(json.dumps(result), file=out, flush=True)
    return found


def main():
    arguments = sys.argv[1:]
    rounds = 1 if "--quick" in arguments else ROUNDS
    gqa, path, page = [argument for argument in arguments if argument != "--quick"]
    # What one thread does, and all cores that this process may use.
    all_threads = sorted({1, json.loads(subprocess.run(
        [gqa, "doctor", "--json"], stdout=subprocess.PIPE, check=True).stdout)["threads"]})
    with open(path, "w", encoding="utf-8") as out:
        found = measure(gqa, all_cases(all_threads), rounds, out)
    if not found.everything():
        sys.exit("bench: this machine has too little memory for any of it")
    tables = report(found, all_threads)
    print(tables, end="")
    put_part(page, "bench", found.everything()[0]["isa"], tables)
    say(f"bench: {path} has all figures, {page} the tables")


if __name__ == "__main__":
    main()
