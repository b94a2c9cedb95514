#!/usr/bin/env python3
"""Converts a multi-head model to fewer KV heads and shows what that costs and what it saves.

Needs the Python standard library alone, and a built `gqa`. The table and the samples go to standard
output, what is being done to standard error.
"""

import argparse
import json
import pathlib
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import textwrap

PROMPT = "Once upon a time"
DECODE_TOKENS = 200
DECODE_ROUNDS = 5
SAMPLE_SENTENCES = 3


class Failed(Exception):
    """A gqa command failed; it has said why."""

    def __init__(self, code):
        super().__init__(code)
        self.code = code


def say(text):
    print(text, file=sys.stderr, flush=True)


def heads_text(n):
    return f"{n} KV head{'' if n == 1 else 's'}"


def run_gqa(gqa, *arguments):
    """Runs a verb; its messages go to our standard error, its JSON object is the result."""
    command = [str(gqa), *map(str, arguments), "--quiet", "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        say(f"demo: `{' '.join(command)}` ended with exit code {done.returncode}")
        raise Failed(done.returncode)
    return json.loads(done.stdout)


def halvings(heads):
    """8 -> [4, 2, 1]"""
    result = []
    while heads % 2 == 0:
        heads //= 2
        result.append(heads)
    return result


# No text is needed: the model writes its own to be fitted with.
BEST = ["--calibrate", "self"]
# What everybody copies.
AVERAGED = ["--grouping", "neighbour", "--merge", "mean"]


def make_models(gqa, model, folder):
    """KV heads -> model folder, the original first; KV heads -> the same merged by plain averaging."""
    heads = run_gqa(gqa, "inspect", model)["kv_heads"]
    if len(set(heads)) != 1 or not halvings(heads[0]):
        say(f"demo: {model}: expected a model with an even number of KV heads, the same in every layer")
        raise Failed(2)
    models, averaged = {heads[0]: model}, {}
    for n in halvings(heads[0]):
        say(f"converting to {heads_text(n)}, a minute or two ...")
        for made, kind, options in ((averaged, "averaged", AVERAGED), (models, "fitted", BEST)):
            made[n] = folder / f"{kind}-{n}"
            run_gqa(gqa, "convert", model, made[n], "--kv-heads", n, "--force", *options)
    return models, averaged


def measure_quality(gqa, models, averaged, text):
    """KV heads -> KV bytes per token, perplexity, agreement with the original."""
    original, *_ = models.values()
    rows = {}
    for n, model in models.items():
        say(f"evaluating {heads_text(n)} ...")
        against = [] if model == original else ["--against", original]
        found = run_gqa(gqa, "eval", model, "--text", text, *against)
        rows[n] = {
            "kv_heads": n,
            "kv_bytes_per_token": run_gqa(gqa, "inspect", model)["kv_bytes_per_token"],
            "nll": found["nll"],
            "ppl": found["ppl"],
            "averaged_ppl": run_gqa(gqa, "eval", averaged[n], "--text", text)["ppl"]
                            if n in averaged else None,
            # A model agrees with itself.
            "top1_agreement": found.get("top1_agreement", 1.0),
            "kl": found.get("kl", 0.0),
        }
    return rows


def measure_decode(gqa, models, rows):
    """Adds decode speed and a sample of text. Rounds go over all models in turn, so that a machine that
    speeds up or slows down meanwhile treats all alike."""
    speeds = {n: [] for n in models}
    for i in range(DECODE_ROUNDS):
        say(f"timing decode, round {i + 1} of {DECODE_ROUNDS} ...")
        for n, model in models.items():
            made = run_gqa(gqa, "generate", model, "--prompt", PROMPT, "--max-tokens", DECODE_TOKENS)
            if made["decode_tokens_per_s"] is not None:
                speeds[n].append(made["decode_tokens_per_s"])
            rows[n]["text"] = made["text"]
    for n, row in rows.items():
        row["decode_tokens_per_s"] = statistics.median(speeds[n]) if speeds[n] else None


def table(rows):
    cells = [["KV heads", "KV bytes/token", "averaged ppl", "ppl", "top-1 agreement",
              "decode tokens/s"]]
    for row in rows:
        speed = row["decode_tokens_per_s"]
        cells.append([
            str(row["kv_heads"]),
            str(row["kv_bytes_per_token"]),
            "" if row["averaged_ppl"] is None else f"{row['averaged_ppl']:.3f}",
            f"{row['ppl']:.3f}",
            f"{row['top1_agreement'] * 100:.1f} %",
            "-" if speed is None else f"{speed:.0f}",
        ])
    widths = [max(map(len, column)) for column in zip(*cells)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths)) for row in cells]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def remarks(rows):
    """What the figures say, and only that."""
    original, first = rows[0], rows[1]
    lines = []
    if first["averaged_ppl"] > 1.5 * original["ppl"]:
        lines.append(
            "Averaging the KV heads of a group, as everybody does, destroys a small model: perplexity"
            f" {original['ppl']:.2f} becomes {first['averaged_ppl']:.1f} with {first['kv_heads']} of"
            f" {original['kv_heads']} KV heads. `gqa convert --calibrate self` makes it"
            f" {first['ppl']:.2f}, without a text and without training.")
    speeds = [row["decode_tokens_per_s"] for row in rows]
    if all(speeds) and max(speeds) < 1.2 * min(speeds):
        lines.append(
            "Decode speed hardly changes here: this model's weights and short texts leave the KV cache"
            " a small part of what decoding reads. The cache's share grows with the context.")
    return lines


def first_sentences(text, n):
    sentences = re.findall(r".+?[.!?][\"']?(?=\s|$)", " ".join(text.split()))
    return " ".join(s.strip() for s in sentences[:n]) if sentences else " ".join(text.split())[:300]


def print_report(rows, machine):
    """The samples first: the table is what should be left on the screen."""
    for row in rows:
        print(f"{heads_text(row['kv_heads'])}:")
        print(textwrap.fill(first_sentences(row["text"], SAMPLE_SENTENCES), 96,
                            initial_indent="  ", subsequent_indent="  ") + "\n")
    for line in remarks(rows):
        print(textwrap.fill(line, 96) + "\n")
    threads = machine["threads"]
    print(f"Measured on {machine['cpu'] or 'an unknown CPU'}, {threads}"
          f" thread{'' if threads == 1 else 's'}, {machine['isa']}, gqa {machine['version']}:\n")
    print(table(rows))


def demonstrate(args, folder):
    models, averaged = make_models(args.gqa, args.model, folder)
    rows = measure_quality(args.gqa, models, averaged, args.text)
    measure_decode(args.gqa, models, rows)
    machine = run_gqa(args.gqa, "doctor")
    print_report(list(rows.values()), machine)
    if args.json:
        result = {"rows": list(rows.values()), "machine": machine}
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
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # clean up then, too
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
