#!/usr/bin/env python3
"""Measures what the pages of docs/results say, as `./dev experiments` does.

usage: experiments.py TOPIC GQA FOLDER RESULTS [--quick | --only REGEX] [--list | --tables] [--again] [--repeats N] [--data DIR]

TOPIC conversion: converts models (models/tales-mha; stories260K, where DIR has it) in every way, evaluates each result
beside its original on text that nothing was calibrated on, and writes the tables and plots of conversion.md in RESULTS.
TOPIC attention: what approximate attention costs in quality on the same models and text, what it finds in long contexts,
and how fast it is, for approximate-attention.md. What is found is kept in TOPIC.jsonl in FOLDER, so that a run that was
stopped goes on; progress goes to standard error. Needs the Python standard library alone.

  --quick       a few cells, some minutes; tables go to standard output only, as with --only
  --only REGEX  the cells whose name has a match (`--list` shows names)
  --list        what would be measured, what is known, how long the rest will take, and what the program refuses
  --tables      measures nothing: tables and plots of what is known
  --again       measures again what is known
  --repeats N   attention: turns of every timing; default: those of `gqa bench`, 3 where turns are long
  --data DIR    has models/ and text/ beyond what ships; default: shared, beside the repository
"""

import argparse
import pathlib
import re
import signal
import sys
import tempfile
import time

from attention_topic import Attention
from duration import duration
from experiment_conversion import Conversion
from experiment_runs import Failed, Results, key_of
from page import replace_part, write_whole

ROOT = pathlib.Path(__file__).resolve().parent.parent
TOPICS = {topic.name: topic for topic in (Conversion, Attention)}


def say(text):
    print(f"experiments: {text}", file=sys.stderr, flush=True)


def pattern(text):
    try:
        return re.compile(text)
    except re.error as wrong:
        raise argparse.ArgumentTypeError(f"not a regular expression: {wrong}") from None


def count(text):
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a whole number, at least 1")
    return int(text)


def run_all(topic, cells, results, folder):
    """Measures in order; a cell that fails is told and does not stop the rest."""
    failed = 0
    for number, cell in enumerate(cells):
        left = sum(topic.expected_seconds(other, results) for other in cells[number:])
        say(f"{number + 1} of {len(cells)}, {duration(left)} left: {cell.name()}")
        with tempfile.TemporaryDirectory(prefix=f"{topic.name}-", dir=folder) as temporary:
            record = topic.measure(cell, temporary)
        results.add(record)
        if "error" in record:
            failed += 1
            say(f"  error: {record['error']}")
        else:
            say(f"  {topic.told(record)}, {record['all_seconds']:.1f} s")
    return failed


def show_list(topic, cells, results, again):
    left, refused = 0, 0
    for cell in cells:
        record = results.good(key_of(topic.identity(cell)))
        state = topic.told(record) if record else "to do"
        if again or not record:
            try:
                topic.check(cell)
                left += topic.expected_seconds(cell, results)
            except Failed as failed:
                refused, state = refused + 1, f"error: {failed}"
        print(f"{cell.name():48} {state}")
    print(f"{len(cells)} cells, {refused} refused, about {duration(left)} to go")


def write_page(topic, found, pages):
    tables = topic.report(found)
    for name, picture in topic.plots(found).items():
        if picture:
            write_whole(pages / name, picture)
    replace_part(pages / topic.page, topic.marker, tables)
    say(f"{pages / topic.page} has the tables")


def arguments():
    parser = argparse.ArgumentParser(usage=__doc__.split("usage: ", 1)[1])
    some = parser.add_mutually_exclusive_group()
    some.add_argument("--quick", action="store_true")
    some.add_argument("--only", type=pattern)
    show = parser.add_mutually_exclusive_group()
    show.add_argument("--list", action="store_true")
    show.add_argument("--tables", action="store_true")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--repeats", type=count)
    parser.add_argument("--data", type=pathlib.Path, default=ROOT.parent / "shared")
    parser.add_argument("topic", choices=TOPICS)
    parser.add_argument("gqa", type=pathlib.Path)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("results", type=pathlib.Path)
    return parser.parse_args()


def main():
    a = arguments()
    a.folder.mkdir(parents=True, exist_ok=True)
    topic = TOPICS[a.topic](a.gqa, ROOT, a.data, a.folder)
    if a.repeats:
        topic.repeats = a.repeats
    results = Results(a.folder / f"{topic.name}.jsonl")
    cells = [cell for cell in topic.cells if (not a.quick or topic.is_quick(cell))
             and (not a.only or a.only.search(cell.name()))]
    if not cells:
        sys.exit(f"experiments: no cell's name has {a.only.pattern} (--list shows them)")
    if a.list:
        return show_list(topic, cells, results, a.again)
    start, failed = time.monotonic(), 0
    if not a.tables:
        todo = [cell for cell in cells if a.again or not results.good(key_of(topic.identity(cell)))]
        failed = run_all(topic, todo, results, a.folder)
        say(f"{len(todo)} measured in {duration(time.monotonic() - start)}, {len(cells) - len(todo)} known before, "
            f"{failed} failed")
    found = topic.found(results, cells)
    if found.other_builds():
        say(f"{found.other_builds()} figures are of another build of this version; --again measures them again")
    if a.quick or a.only:
        print(topic.plain(found))
    else:
        write_page(topic, found, a.results)
    return 1 if failed else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        say("stopped; the same command goes on")
        sys.exit(130)
