"""A peer in a process of its own: prepares cells, times calls, waits on a pipe in between.

usage: engine.py PEER THREADS CPUS     CPUS as 0,1

Reads a JSON object a line from standard input and answers each with one, {"skip": reason} where
the peer does not do the cell:
  {"do": "prepare", "cell": {...}, "caches": N}
      -> {"variant", "error", "ms", "tried": {variant: ms}, "refused": {variant: reason}}
  {"do": "time", "calls": N} -> {"seconds": [...], "doubtful": whether other programs ran}
The first line that it writes says its version, or {"missing": reason}.
"""

import ctypes
import functools
import glob
import importlib
import json
import os
import signal
import sys
import time

import oracle
from cells import Cell
from gradients import Gradients

PR_SET_PDEATHSIG = 1
TRIAL_CALLS, TRIAL_SECONDS = 3, 0.5  # of each variant; what comes first ends the trial,
TRIALS = 4  # which is tried again, so often at most, when other programs took the cores
HOPELESS = 4, 1  # times the best so far, and seconds, of a first call: no trial follows
WAITED = 0.1  # share of the time; as 0.9 of CPU time is to gqa


class Unsupported(Exception):
    """The peer does not do this; the text says why."""


class Variant:
    """One way to ask a peer for a cell.

    call(turn) runs on cache `turn`, any number, and returns something that rows() turns into
    [q_len, heads, dim], or into a dictionary of gradients, in types of numpy's; stored(kv_head) are
    keys and values as the peer holds them, where they are not those that it was given.
    """

    def __init__(self, call, rows, stored=None):
        self.call = call
        self.rows = rows
        self.stored = stored


def waited_seconds():
    """That threads of this process were ready to run, and other programs ran instead."""
    total = 0
    for path in glob.glob("/proc/self/task/*/schedstat"):
        try:
            with open(path, encoding="ascii") as file:
                total += int(file.read().split()[1])
        except OSError:  # a thread that has just ended, or a kernel that does not say
            pass
    return total * 1e-9


def timed(call, turns):
    seconds = []
    for turn in turns:
        start = time.perf_counter()
        call(turn)
        seconds.append(time.perf_counter() - start)
    return seconds


def trial_ms(call, threads):
    """The least of a few calls. A variant must not lose because another program ran just then."""
    least = float("inf")
    for _ in range(TRIALS):
        waited, seconds = waited_seconds(), []
        while len(seconds) < TRIAL_CALLS and sum(seconds) < TRIAL_SECONDS:
            seconds += timed(call, [len(seconds) + 1])
        least = min(least, *seconds)
        if waited_seconds() - waited < WAITED * sum(seconds) * threads:
            break
    return 1e3 * least


class Server:
    def __init__(self, peer, threads):
        self.peer = peer
        self.threads = threads
        self.kept = None
        self.turn = 0

    def tried(self, cell, error_of, variant, best):
        """Its error, if it is no more than rounding, and the time that it takes."""
        start = time.perf_counter()
        found = variant.call(0)
        seconds = time.perf_counter() - start
        error = error_of(variant, variant.rows(found))
        variant.rows = variant.stored = None  # gives the data back
        if error > oracle.TOLERANCE[cell.dtype]:
            raise Unsupported(f"computes something else: error {error:.2g}")
        times, least = HOPELESS
        if best and seconds > max(times * best["ms"] * 1e-3, least):
            return error, 1e3 * seconds
        return error, trial_ms(variant.call, self.threads)

    def error_of(self, cell, data):
        """Its function of a variant and of what that has computed."""
        if cell.kind == "backward":
            expected = functools.cache(lambda: Gradients(cell, data))  # takes seconds
            return lambda variant, found: expected().worst_error(found)
        return lambda variant, found: oracle.worst_error(cell, data.q, variant.stored, found)

    def prepare(self, cell, caches):
        """Checks and tries all ways, and keeps the fastest. Calls go round so many caches."""
        self.kept = None
        data = oracle.draw(cell)
        error_of = self.error_of(cell, data)
        best, tried, refused = None, {}, {}
        for name, make in self.peer.variants(cell, data, caches):
            try:
                variant = make()
                error, ms = self.tried(cell, error_of, variant, best)
            except Unsupported as problem:
                refused[name] = str(problem)
                continue
            tried[name] = ms
            if best is None or ms < best["ms"]:
                best = {"variant": name, "error": error, "ms": ms}
                self.kept = variant
            del variant  # or the next one's caches come on top
        if best is None:
            return {"skip": "; ".join(f"{name}: {why}" for name, why in refused.items())
                    or "no such type"}
        return {**best, "tried": tried, "refused": refused}

    def time(self, calls):
        # The first call wakes threads up; not counted, as in gqa bench.
        self.kept.call(self.turn)
        waited = waited_seconds()
        turns = range(self.turn + 1, self.turn + 1 + calls)
        seconds = timed(self.kept.call, turns)
        self.turn = turns.stop
        waited = (waited_seconds() - waited) / (sum(seconds) * self.threads)
        return {"seconds": seconds, "doubtful": waited > WAITED}

    def answer(self, request):
        if request["do"] == "prepare":
            return self.prepare(Cell(**request["cell"]), request["caches"])
        return self.time(request["calls"])


def main():
    name, threads, cpus = sys.argv[1:]
    cpus = [int(cpu) for cpu in cpus.split(",")]
    # A stopped process would outlive a parent that is killed.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.sched_setaffinity(0, cpus)
    # What libraries print must not get between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(what):
        print(json.dumps(what), file=answers, flush=True)

    try:
        peer = importlib.import_module(f"{name}_engine").Peer(int(threads), cpus)
    except (ImportError, OSError, AttributeError) as problem:
        say({"missing": str(problem)})
        return
    say({"version": peer.version})
    server = Server(peer, int(threads))
    for line in sys.stdin:
        say(server.answer(json.loads(line)))


if __name__ == "__main__":
    sys.modules["engine"] = sys.modules["__main__"]  # one Unsupported for all
    main()
