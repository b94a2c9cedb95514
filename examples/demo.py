#!/usr/bin/env python3
"""Converts a multi-head model to fewer KV heads and shows what that costs and what it saves.

Needs the Python standard library alone, and a built `gqa`. What is being done goes to standard error, rows of the
table as soon as they are measured among it; samples and the whole table go to standard output in the end.
"""

import argparse
import functools
import json
import os
import pathlib
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tools"))

import demo_table  # noqa: E402
from demo_programs import Failed, Programs, Screen  # noqa: E402
from demo_table import heads_text  # noqa: E402
from duration import clock, duration  # noqa: E402

PROMPT = "Once upon a time"
DECODE_TOKENS = 200
DECODE_ROUNDS = 5

# No text is needed: the model writes its own to be fitted with. Less text and fewer steps than by default, for a demo
# that ends soon: at this time 12,288 tokens and 240 steps lose less than 16,384 and 200 or 8,192 and 280.
FITTED = ["--calibrate", "self", "--sampled-tokens", 12288, "--refine", 240]
KEPT_SHORT = "The default, 32,768 tokens and 600 steps, takes longer and loses less: see docs/conversion.md."
# What everybody copies.
AVERAGED = ["--grouping", "neighbour", "--merge", "mean"]


def as_words(options):
    return " ".join(map(str, options))


def halvings(heads):
    """8 -> [4, 2, 1]"""
    result = []
    while heads % 2 == 0:
        heads //= 2
        result.append(heads)
    return result


def listed(numbers):
    """[4, 2, 1] -> 4, 2 and 1"""
    words = [str(n) for n in numbers]
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


class Demo:
    def __init__(self, args, folder):
        self.model, self.text, self.folder = args.model, args.text, folder
        self.screen = Screen()
        self.programs = Programs(args.gqa, self.screen)
        self.cores = len(os.sched_getaffinity(0))
        self.rows = {}  # by KV heads
        self.layers = {}  # KV heads -> how many layers are converted
        self.lock = threading.Lock()

    def look(self):
        """KV heads of the original, and of what to make of it."""
        found = self.programs.run("inspect", self.model)
        heads = found["kv_heads"]
        if len(set(heads)) != 1 or not halvings(heads[0]):
            self.screen.say(f"demo: {self.model}: expected a model with an even number of KV heads, the same in every"
                            " layer")
            raise Failed(2)
        self.n_layers = len(heads)
        self.original, self.halved = heads[0], halvings(heads[0])
        self.threads = max(1, self.cores // len(self.halved))

    def place(self, n, kind="fitted"):
        return self.model if n == self.original else self.folder / f"{kind}-{n}"

    def convert(self, n, kind, options, **how):
        return self.programs.run("convert", self.model, self.place(n, kind), "--kv-heads", n, *options,
                                 "--threads", self.threads, **how)

    def measure(self, n, averaged_ppl=None, **how):
        """A row, but for speed."""
        against = [] if n == self.original else ["--against", self.model, "--threads", self.threads]
        found = self.programs.run("eval", self.place(n), "--text", self.text, *against, **how)
        return {
            "kv_heads": n,
            "kv_bytes_per_token": self.programs.run("inspect", self.place(n))["kv_bytes_per_token"],
            "nll": found["nll"],
            "ppl": found["ppl"],
            "averaged_ppl": averaged_ppl,
            # A model agrees with itself.
            "top1_agreement": found.get("top1_agreement", 1.0),
            "kl": found.get("kl", 0.0),
        }

    def converted(self, n, nice):
        """A converted row, and the same merged by plain averaging."""
        def told(message):
            if message.startswith("layer "):
                with self.lock:
                    self.layers[n] += 1

        self.convert(n, "averaged", [*AVERAGED, "--force"], nice=nice)
        averaged = self.programs.run("eval", self.place(n, "averaged"), "--text", self.text, "--threads", self.threads,
                                     nice=nice)
        self.convert(n, "fitted", [*FITTED, "--force"], nice=nice, told=told)
        return self.measure(n, averaged["ppl"], nice=nice)

    def foresee(self, evaluation):
        """Seconds until a row is there and until all are, by gqa's own estimate. `evaluation`: what reading the text
        with one model takes, on all cores."""
        plan = self.convert(self.halved[0], "fitted", [*FITTED, "--dry-run"])
        # Three: of averaged heads, of the result, and of the original beside it.
        row = plan["estimated_seconds"] + 3 * evaluation * self.cores / self.threads
        return row, row * max(1, len(self.halved) * self.threads / self.cores)

    def watch(self, begin, seconds):
        with self.lock:
            layers = dict(self.layers)
        self.screen.draw(f"converting, {clock(time.monotonic() - begin)} of about {duration(seconds)};"
                         f" layers of {self.n_layers} done for {'/'.join(map(str, layers))} KV heads:"
                         f" {'/'.join(map(str, layers.values()))}")

    def show(self, row):
        self.rows[row["kv_heads"]] = row
        self.screen.say(demo_table.line(row))

    def measure_rows(self):
        """The original's, then all others side by side; where there are too few cores, more heads go first."""
        begin = time.monotonic()
        original = self.measure(self.original)
        first, seconds = self.foresee(time.monotonic() - begin)
        self.screen.say(f"demo: converting {self.model} from {self.original} to {listed(self.halved)} KV heads: the next"
                        f" row comes after about {duration(first)}, all after about {duration(seconds)}\n\n"
                        + demo_table.heading())
        self.show(original)
        begin = time.monotonic()
        self.layers = dict.fromkeys(self.halved, 0)
        works = [functools.partial(self.converted, n, nice=min(19, 6 * i)) for i, n in enumerate(self.halved)]
        self.programs.side_by_side(works, lambda: self.watch(begin, seconds), self.show)
        self.rows = dict(sorted(self.rows.items(), reverse=True))

    def measure_decode(self):
        """Adds decode speed and a sample of text. Rounds go over all models in turn, so that a machine that
        speeds up or slows down meanwhile treats all alike."""
        self.screen.say("demo: timing decode ...")
        speeds = {n: [] for n in self.rows}
        for i in range(DECODE_ROUNDS):
            for n, row in self.rows.items():
                self.screen.draw(f"round {i + 1} of {DECODE_ROUNDS}: {heads_text(n)}")
                made = self.programs.run("generate", self.place(n), "--prompt", PROMPT,
                                         "--max-tokens", DECODE_TOKENS)
                if made["decode_tokens_per_s"] is not None:
                    speeds[n].append(made["decode_tokens_per_s"])
                row["text"] = made["text"]
        for n, row in self.rows.items():
            row["decode_tokens_per_s"] = statistics.median(speeds[n]) if speeds[n] else None

    def run(self):
        """Rows and machine."""
        self.look()
        self.measure_rows()
        self.measure_decode()
        self.screen.say("")
        return list(self.rows.values()), self.programs.run("doctor")


def demonstrate(args, folder):
    rows, machine = Demo(args, folder).run()
    print(demo_table.report(rows, machine, as_words(FITTED), KEPT_SHORT))
    if args.json:
        result = {"rows": rows, "machine": machine, "convert_options": as_words(FITTED)}
        args.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gqa", type=pathlib.Path, required=True, help="the program")
    parser.add_argument("--model", type=pathlib.Path, required=True, help="a multi-head model folder")
    parser.add_argument("--text", type=pathlib.Path, required=True, help="text to evaluate on")
    parser.add_argument("--out", type=pathlib.Path, help="keep the converted models in this folder")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write the figures here too")
    args = parser.parse_args()
    # A bare name would be looked up in PATH.
    args.gqa = args.gqa.resolve()
    if not args.gqa.is_file():
        parser.error(f"--gqa: {args.gqa}: no such program; `./dev build` makes it")
    return args


def main():
    args = parse_arguments()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # clean up then, too
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
    folder = args.out or pathlib.Path(tempfile.mkdtemp(prefix="gqa-demo-"))
    try:
        demonstrate(args, folder)
    except Failed as failure:
        return failure.code if failure.code > 0 else 1
    except KeyboardInterrupt:
        return 130
    finally:
        if not args.out:
            shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
