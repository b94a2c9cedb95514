"""Which mutants are due, and the record of those that are not.

The record says of which states (a mutant's entry and the content of its edited file) a run of .ci/run that passed knew
that they are noticed. It goes by content, not by commits, so it serves every checkout and branch of a machine, and
changes that nobody has committed. It lies beside ccache's cache: ~/.cache/gqa/green.json (GQA_GREEN says where else).
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
import time

KEPT_DAYS = 60


def cache():
    """The folder of what is kept on a machine, for every checkout."""
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "gqa"


def record_path():
    return pathlib.Path(os.environ.get("GQA_GREEN") or cache() / "green.json")


def read_record(path):
    """{"commit": ..., "states": {state: {"name": ..., "at": seconds}}}, or None where there is no record."""
    try:
        record = json.loads(path.read_text())
        return record if isinstance(record["states"], dict) and isinstance(record["commit"], str) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


@dataclasses.dataclass
class Choice:
    mutants: list  # to be tried, in this order
    settled: list  # not to be tried: they count as noticed
    why: str
    bounded: bool  # not all need be tried in one run


def choose(mutants, record, all_of_them=False):
    """Mutants whose edited file or entry changed since a run was green. Those that wait for longest come first, so
    that all have their turn though there is not time for all."""
    if all_of_them:
        return Choice(mutants, [], "all", False)
    if record is None:
        sample = [mutant for mutant in mutants if mutant.sample]
        rest = [mutant for mutant in mutants if not mutant.sample]
        return Choice(sample, rest, "a fixed sample, since no run of .ci/run is known to have passed here", True)
    states = record["states"]
    due = [mutant for mutant in mutants if mutant.state not in states]
    entries = {state.split("-")[1] for state in states}
    last = {}
    for state in states.values():
        last[state["name"]] = max(last.get(state["name"], 0), state["at"])
    due.sort(key=lambda mutant: last.get(mutant.name, 0))
    changed = sum(mutant.entry_hash in entries for mutant in due)
    return Choice(due, [mutant for mutant in mutants if mutant.state in states],
                  f"{changed} whose file changed, {len(due) - changed} new or changed themselves, since commit "
                  f"{record['commit']} was green", True)


@contextlib.contextmanager
def locked(path):
    """Keeps others away from what lies beside this file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def write_record(path, commit, mutants, now=None):
    """Adds states that are settled to the record, and forgets those that nobody asked for in a long time."""
    now = now or time.time()
    with locked(path.with_name(path.name + ".lock")):
        states = (read_record(path) or {"states": {}})["states"]
        states |= {state: {"name": name, "at": now} for state, name in mutants.items()}
        states = {state: known for state, known in states.items() if known["at"] > now - KEPT_DAYS * 86400}
        new = path.with_name(path.name + ".new")
        new.write_text(json.dumps({"commit": commit, "states": states}, indent=0) + "\n")
        new.replace(path)
