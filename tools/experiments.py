#!/usr/bin/env python3
"""Measures every method of conversion, as `./dev experiments` does.

usage: experiments.py GQA FOLDER DOCS [--quick | --only REGEX] [--list | --tables] [--again] [--data DIR]

Converts models (models/tales-mha; stories260K, where DIR has it) in every way, evaluates each result beside its original
on text that nothing was calibrated on, and writes the tables and plots of conversion.md in DOCS. What is found is kept in
conversion.jsonl in FOLDER, so that a run that was stopped goes on; progress goes to standard error.
Needs the Python standard library alone.

  --quick       a few cells, some minutes; tables go to standard output only, as with --only
  --only REGEX  the cells whose name has a match (`--list` shows names)
  --list        what would be measured, what is known, how long the rest will take, and what the program refuses
  --tables      measures nothing: tables and plots of what is known
  --again       measures again what is known
  --data DIR    has models/ and text/ beyond what ships; default: shared, beside the repository
"""

import argparse
import pathlib
import re
import sys
import tempfile
import time

import experiment_cells
import experiment_plot
import experiment_runs
import experiment_tables
from experiment_runs import duration, key_of
from page import replace_part, write_whole

ROOT = pathlib.Path(__file__).resolve().parent.parent


def say(text):
    print(f"experiments: {text}", file=sys.stderr, flush=True)


def pattern(text):
    try:
        return re.compile(text)
    except re.error as wrong:
        raise argparse.ArgumentTypeError(f"not a regular expression: {wrong}") from None


def run_all(setting, cells, results, folder):
    """Measures in order; a cell that fails is told and does not stop the rest."""
    failed = 0
    for number, cell in enumerate(cells):
        left = sum(experiment_runs.expected_seconds(other, results) for other in cells[number:])
        say(f"{number + 1} of {len(cells)}, {duration(left)} left: {cell.name()}")
        with tempfile.TemporaryDirectory(prefix="conversion-", dir=folder) as temporary:
            record = experiment_runs.measure(setting, cell, temporary)
        results.add(record)
        if "error" in record:
            failed += 1
            say(f"  error: {record['error']}")
        else:
            say(f"  ppl {record['ppl']:.3f}, {record['all_seconds']:.1f} s")
    return failed


def show_list(setting, cells, results, again):
    left, refused = 0, 0
    for cell in cells:
        record = results.good(key_of(setting.identity(cell)))
        state = f"ppl {record['ppl']:.3f}" if record else "to do"
        if again or not record:
            try:
                if cell.method:
                    experiment_runs.convert(setting, cell, "nowhere", "--dry-run")
                left += experiment_runs.expected_seconds(cell, results)
            except experiment_runs.Failed as failed:
                refused, state = refused + 1, f"error: {failed}"
        print(f"{cell.name():48} {state}")
    print(f"{len(cells)} cells, {refused} refused, about {duration(left)} to go")


def write_page(found, docs):
    tables = experiment_tables.report(found)
    for model in found.models:
        picture = experiment_plot.plot(found, model)
        if picture:
            write_whole(docs / f"conversion-{model.name}.svg", picture)
    replace_part(docs / "conversion.md", "experiments", tables)
    say(f"{docs / 'conversion.md'} has the tables")


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("usage: ", 1)[1])
    some = parser.add_mutually_exclusive_group()
    some.add_argument("--quick", action="store_true")
    some.add_argument("--only", type=pattern)
    show = parser.add_mutually_exclusive_group()
    show.add_argument("--list", action="store_true")
    show.add_argument("--tables", action="store_true")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--data", type=pathlib.Path, default=ROOT.parent / "shared")
    parser.add_argument("gqa", type=pathlib.Path)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("docs", type=pathlib.Path)
    a = parser.parse_args()
    a.folder.mkdir(parents=True, exist_ok=True)
    setting = experiment_runs.Setting(a.gqa, experiment_cells.find_texts(ROOT, a.data, a.folder))
    results = experiment_runs.Results(a.folder / "conversion.jsonl")
    models = experiment_cells.find_models(ROOT, a.data)
    everything = experiment_cells.all_cells(models)
    cells = [cell for cell in everything if (not a.quick or experiment_cells.is_quick(cell))
             and (not a.only or a.only.search(cell.name()))]
    if not cells:
        sys.exit(f"experiments: no cell's name has {a.only.pattern} (--list shows them)")
    if a.list:
        return show_list(setting, cells, results, a.again)
    start, failed = time.monotonic(), 0
    if not a.tables:
        todo = [cell for cell in cells if a.again or not results.good(key_of(setting.identity(cell)))]
        failed = run_all(setting, todo, results, a.folder)
        say(f"{len(todo)} measured in {duration(time.monotonic() - start)}, {len(cells) - len(todo)} known before, "
            f"{failed} failed")
    found = experiment_tables.Found(setting, results, models, cells)
    if found.other_builds():
        say(f"{found.other_builds()} figures are of another build of this version; --again measures them again")
    if a.quick or a.only:
        print(experiment_tables.plain(found))
    else:
        write_page(found, a.docs)
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        say("stopped; the same command goes on")
        sys.exit(130)
