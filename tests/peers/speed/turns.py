"""Who takes turns: gqa, through its program, and peers, each in a process that is stopped while it
is not its turn. So no peer's threads, which go on spinning after a call, take cores from another.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import select
import signal
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
SECONDS_OF_A_TURN = 0.3  # of a peer; as many calls as fit, within bounds
LEAST_CALLS, MOST_CALLS = 1, 25
ANSWER_SECONDS = 600
OUT_OF_RESOURCES = 71


class Skip(Exception):
    """An engine that does not do a cell; the text says why."""


@dataclasses.dataclass
class Turn:
    ms: list  # of one call, or gqa's median, least and most
    ms_median: float
    doubtful: bool  # other programs took the cores
    of_sgemm: float | None = None  # gqa's rate over that of SGEMM in the same turn


def cores(count):
    """So many logical CPUs that this process may use, each of another core."""
    allowed = sorted(os.sched_getaffinity(0))
    first_of_core = []
    for cpu in allowed:
        file = pathlib.Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        siblings = file.read_text(encoding="ascii").strip() if file.exists() else str(cpu)
        if siblings not in (taken for _, taken in first_of_core):
            first_of_core.append((cpu, siblings))
    cpus = [cpu for cpu, _ in first_of_core]
    return (cpus + [cpu for cpu in allowed if cpu not in cpus])[:count]


class Gqa:
    """`gqa bench`, which fills and rotates caches itself; a new process for each turn. The arrays
    of a backward do not take turns: here, too, they are more than a last-level cache holds."""

    name = "gqa"
    version = None

    def __init__(self, program, threads, repeats):
        self.program = program
        self.threads = threads
        self.repeats = repeats
        self.found = None  # the last JSON object

    def bench(self, cell, repeats):
        command = ["taskset", "-c", ",".join(map(str, cores(self.threads))),
                   self.program, "bench", cell.kind, "--kv-len", str(cell.kv_len),
                   "--dtype" if cell.kind == "backward" else "--kv-dtype", cell.dtype,
                   "--kv-heads", str(cell.kv_heads),
                   "--threads", str(self.threads), "--repeats", str(repeats), "--json", "--quiet"]
        done = subprocess.run(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        if done.returncode == OUT_OF_RESOURCES:
            raise Skip("too little memory")
        if done.returncode != 0:
            sys.exit(f"peers: gqa bench failed: {done.returncode}")
        self.found = json.loads(done.stdout)
        return self.found

    def prepare(self, cell, caches):
        return {}

    def turn(self, cell):
        found = self.bench(cell, self.repeats)
        return Turn([found["ms_min"], found["ms_median"], found["ms_max"]], found["ms_median"],
                    found["short_of_cores"], found["compute_fraction"])

    def close(self):
        pass


class Peer:
    """engine.py at the other end of a pipe."""

    def __init__(self, name, title, threads, log):
        self.name = name
        self.title = title
        self.threads = threads
        self.log = log
        self.calls = 0
        self.process = None
        self.version = None
        self.start()

    def start(self):
        """Skip where the peer is not installed."""
        cpus = cores(self.threads)
        environment = os.environ | {
            "OMP_PROC_BIND": "true", "OMP_PLACES": ",".join(f"{{{cpu}}}" for cpu in cpus),
            "OMP_NUM_THREADS": str(self.threads),
            "THP_MEM_ALLOC_ENABLE": "1"}  # torch: big arrays on huge pages, as gqa's caches are
        self.process = subprocess.Popen(
            [sys.executable, "-B", HERE / "engine.py", self.name, str(self.threads),
             ",".join(map(str, cpus))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, env=environment)
        hello = self.answer()
        if "missing" in hello:
            self.close()
            raise Skip(hello["missing"])
        self.version = hello["version"]
        self.stop()

    def answer(self):
        ready, _, _ = select.select([self.process.stdout], [], [], ANSWER_SECONDS)
        line = self.process.stdout.readline() if ready else b""
        if line:
            return json.loads(line)
        self.close()
        raise Skip(f"its process ended ({self.process.returncode}); see {self.log.name}" if ready
                   else f"no answer within {ANSWER_SECONDS} s")

    def stop(self):
        self.process.send_signal(signal.SIGSTOP)
        # Returns once it stands still, or has ended, which is found out at the next request.
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def request(self, **what):
        if self.process.poll() is not None:
            self.start()
        self.process.send_signal(signal.SIGCONT)
        with contextlib.suppress(BrokenPipeError):  # if it has ended, there is no answer
            self.process.stdin.write(json.dumps(what).encode() + b"\n")
            self.process.stdin.flush()
        answer = self.answer()
        self.stop()
        return answer

    def prepare(self, cell, caches):
        """How the peer does a cell best, with its error. Skip, where it does not."""
        found = self.request(do="prepare", cell=dataclasses.asdict(cell), caches=caches)
        if "skip" in found:
            raise Skip(found["skip"])
        calls = round(SECONDS_OF_A_TURN * 1e3 / found["ms"])
        self.calls = min(max(calls, LEAST_CALLS), MOST_CALLS)
        return found

    def turn(self, cell):
        found = self.request(do="time", calls=self.calls)
        ms = [1e3 * seconds for seconds in found["seconds"]]
        return Turn(ms, statistics.median(ms), found["doubtful"])

    def close(self):
        if self.process.poll() is None:
            self.process.kill()  # whether it is stopped or not
            self.process.wait()
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdout.close()


def calm(turns):
    return [turn for turn in turns if not turn.doubtful]


def summary(turns, wanted):
    """Median of the turns' medians: of the calm ones, if they are half of the wanted or more."""
    doubtful = 2 * len(calm(turns)) < wanted
    used = turns if doubtful else calm(turns)
    found = {"ms_median": statistics.median(turn.ms_median for turn in used),
             "ms_min": min(min(turn.ms) for turn in used),
             "ms_max": max(max(turn.ms) for turn in used),
             "turns_ms": [turn.ms_median for turn in turns], "calm_turns": len(calm(turns)),
             "doubtful": doubtful}
    if all(turn.of_sgemm is not None for turn in used):
        found["of_sgemm"] = statistics.median(turn.of_sgemm for turn in used)
    return found
