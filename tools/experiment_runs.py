"""Runs programs for `./dev experiments`, and keeps what was found in a file of JSON lines."""

import hashlib
import json
import os
import pathlib
import re
import subprocess
import tempfile
import time
from typing import NamedTuple

from experiment_cells import sha256, weights_sha256


class Failed(Exception):
    """What the program said when it failed."""


class Run(NamedTuple):
    """What a program that succeeded wrote to standard output, and what it took."""
    output: bytes
    seconds: float
    cpu_seconds: float  # of all threads; says more than the clock where other programs run
    peak_bytes: int  # resident


def run_child(command):
    start = time.monotonic()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=out, stderr=errors)
        try:
            _, status, usage = os.wait4(child.pid, 0)
        except BaseException:
            child.terminate()
            child.wait()
            raise
        child.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - start
        out.seek(0)
        errors.seek(0)
        if child.returncode != 0:
            lines = errors.read().decode("utf-8", "replace").strip().splitlines()
            said = lines[-1].removeprefix("gqa: error: ") if lines else "no message"
            said = re.sub(r" \(see gqa [a-z ]+ --help\)$", "", said)
            raise Failed(f"{said} (exit {child.returncode})")
        return Run(out.read(), seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


class Setting:
    """The program, the machine and the texts, and what identifies them."""

    def __init__(self, gqa, texts):
        self.gqa, self.texts = gqa, texts
        self.doctor = json.loads(run_child([gqa, "doctor", "--json"]).output)
        self.program = sha256(gqa)
        self.text_hashes = {name: sha256(path) for name, path in texts.items()}
        self.model_hashes = {}

    def weights(self, model):
        if model.path not in self.model_hashes:
            self.model_hashes[model.path] = weights_sha256(model)
        return self.model_hashes[model.path]

    def about(self):
        return {"program": self.program, "machine": self.doctor["cpu"], "threads": self.doctor["threads"],
                "isa": self.doctor["isa"]}


def key_of(identity):
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]


class Results:
    """Records by key. The file only grows; of several records of a key the last one counts."""

    def __init__(self, path):
        self.path, self.records = pathlib.Path(path), {}
        if self.path.exists():
            for line in self.path.read_text("utf-8").splitlines():
                try:
                    record = json.loads(line)
                    self.records[record["key"]] = record
                except (ValueError, KeyError, TypeError):
                    pass  # torn by a kill: it is measured again

    def add(self, record):
        torn = self.path.exists() and not self.path.read_bytes()[-1:] in (b"", b"\n")
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(("\n" if torn else "") + json.dumps(record) + "\n")
        self.records[record["key"]] = record

    def good(self, key):
        record = self.records.get(key)
        return record if record and "error" not in record else None
