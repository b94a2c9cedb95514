"""Proves that tests can fail: breaks the code in known ways (tables.py) and expects a test to notice.

Each mutant is made in a copy of the tree (workshop.py), the tests are built and one must fail; the unbroken copy must
pass. Tried are those that are due (green.py): GQA_MUTANTS=all has all of them tried.

usage: run.py TABLES FOLDER [WORDS ...]   WORDS: those mutants whose `why` has one of them, due or not
       run.py --check TABLES              only whether every edit is possible
       run.py --record FOLDER             a run of .ci/run passed: what is settled, FOLDER says, is green
TABLES is a table, or a folder of them. FOLDER gets said, the summary for `./dev test` to print, and settled.json.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

import green
from tables import instructions, read_tables
from workshop import Workshop

ROOT = pathlib.Path(__file__).resolve().parents[2]
PATIENCE = 480  # seconds, from the first mutant on; the rest stays due


def all_mutants(tables):
    tables = pathlib.Path(tables)
    try:
        return read_tables(sorted(tables.glob("*.json")) if tables.is_dir() else [tables], ROOT)
    except ValueError as error:
        sys.exit(str(error))


def try_all(workshop, mutants, until):
    """Tries them until the time is over. Gives those that were tried and those that no test noticed."""
    workshop.demand_sound(mutant.tests[0] for mutant in mutants)
    tried, survivors, noticing = [], [], set()
    until += time.monotonic()
    for mutant in mutants:
        if time.monotonic() > until:
            break
        tried.append(mutant)
        test, what = workshop.try_mutant(mutant)
        if test is None:
            survivors.append(mutant)
            print(f"SURVIVED  {mutant.name}", flush=True)
            continue
        noticing.add(test)
        late = "" if test == mutant.tests[0] else f", not by {mutant.tests[0]}"
        print(f"noticed   {mutant.name}  ({what}{late})", flush=True)
    workshop.demand_sound(noticing)
    return tried, survivors


def summary(mutants, tried, survivors, choice, impossible):
    lines = [f"{len(tried)} of {len(mutants)} tried ({choice.why}), {len(survivors)} survived"]
    if waiting := len(choice.mutants) - len(tried):
        lines.append(f"{waiting} more are due, NOT TESTED: after {PATIENCE // 60} minutes no other is begun; they stay "
                     "due; GQA_MUTANTS=all tries all")
    if impossible:
        missing = sorted({name for mutant in impossible for name in mutant.needs} - instructions())
        lines.append(f"{len(impossible)} LEFT OUT, NOT TESTED: this processor lacks {', '.join(missing)}")
    return "\n".join(lines) + "\n"


def main(tables, folder, *words):
    folder = pathlib.Path(folder)
    (folder / "settled.json").unlink(missing_ok=True)
    mutants = all_mutants(tables)
    have = instructions()
    possible = [mutant for mutant in mutants if mutant.needs <= have]
    if words:
        asked_for = [mutant for mutant in possible if any(word in mutant.why for word in words)]
        choice = green.Choice(asked_for, [], "those asked for", False)
    else:
        record = green.read_record(green.record_path())
        choice = green.choose(possible, record, os.environ.get("GQA_MUTANTS") == "all")
    tried, survivors = [], []
    if choice.mutants:
        with Workshop.alone():
            tried, survivors = try_all(Workshop(ROOT), choice.mutants, PATIENCE if choice.bounded else float("inf"))
    said = summary(mutants, tried, survivors, choice, [mutant for mutant in mutants if mutant not in possible])
    print(said, end="")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "said").write_text(said)
    if survivors:
        sys.exit(f"{len(survivors)} mutants survived")
    settled = {mutant.state: mutant.name for mutant in choice.settled + tried}
    (folder / "settled.json").write_text(json.dumps(settled))


def record(folder):
    """Writes what the last run settled, if it did, into the record of this machine."""
    settled = pathlib.Path(folder) / "settled.json"
    if not settled.is_file():
        sys.exit(f"{settled} is not there: the mutants of this run were not tried, or one survived")
    head = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, text=True)
    green.write_record(green.record_path(), head.stdout.strip() or "unknown", json.loads(settled.read_text()))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--check"]:
        all_mutants(sys.argv[2])
    elif sys.argv[1:2] == ["--record"]:
        record(sys.argv[2])
    elif shutil.which("ninja") is None:
        sys.exit("ninja is not installed")
    else:
        main(*sys.argv[1:])
