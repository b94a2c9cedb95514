"""Runs cells of `./dev experiments`, and keeps what they found in a file of JSON lines."""

import hashlib
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import tempfile
import time

from experiment_cells import sha256, weights_sha256


class Failed(Exception):
    """What the program said when it failed."""


def run_child(command):
    """Standard output, wall seconds and peak resident bytes of a program that succeeds."""
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
            raise Failed(f"{said.removesuffix(' (see gqa convert --help)')} (exit {child.returncode})")
        return out.read(), seconds, usage.ru_maxrss * 1024


class Setting:
    """The program, the machine and the texts, and what identifies them."""

    def __init__(self, gqa, texts):
        self.gqa, self.texts = gqa, texts
        self.doctor = json.loads(run_child([gqa, "doctor", "--json"])[0])
        self.program = sha256(gqa)
        self.text_hashes = {name: sha256(path) for name, path in texts.items()}
        self.model_hashes = {}

    def weights(self, model):
        if model.path not in self.model_hashes:
            self.model_hashes[model.path] = weights_sha256(model)
        return self.model_hashes[model.path]

    def identity(self, cell):
        """All that a cell's figures depend on, but how this version of the program was built."""
        options = []
        if cell.method:
            files = {str(path): f"sha256:{self.text_hashes[name]}" for name, path in self.texts.items()}
            options = [files.get(word, word) for word in cell.options(self.texts) or ["--calibrate", "?"]]
        return {"model": cell.model.name, "weights": self.weights(cell.model),
                "text": self.text_hashes["held-out"], "kv_heads": cell.kv_heads,
                "method": cell.method.key if cell.method else "original", "options": options,
                "version": self.doctor["version"]}

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


def convert(setting, cell, out, *more):
    options = cell.options(setting.texts)
    if options is None:
        raise Failed(f"no text {cell.method.text} (see --data)")
    return run_child([setting.gqa, "convert", cell.model.path, out, *options, "--json", "--quiet", *more])


def measure(setting, cell, folder):
    """The record of a cell: its figures, or "error"."""
    identity = setting.identity(cell)
    record = {"key": key_of(identity), **identity, "grouping": cell.grouping, "seed": cell.seed, **setting.about()}
    out = pathlib.Path(folder) / "converted"
    shutil.rmtree(out, ignore_errors=True)
    start = time.monotonic()
    try:
        model = cell.model.path
        against = []
        if cell.method:
            _, seconds, peak = convert(setting, cell, out)
            record |= {"seconds": seconds, "peak_bytes": peak}
            model, against = out, ["--against", cell.model.path]
            grouped = json.loads((out / "gqa_recipe.json").read_text("utf-8"))["options"].get("grouping")
            if grouped not in (None, cell.grouping):
                raise Failed(f"grouped by {grouped}, expected {cell.grouping}")
        shape = json.loads(run_child([setting.gqa, "inspect", model, "--json", "--quiet"])[0])
        found = json.loads(run_child(
            [setting.gqa, "eval", model, "--text", setting.texts["held-out"], *against, "--json", "--quiet"])[0])
        record |= {"kv_bytes": shape["kv_bytes_per_token"], "ppl": found["ppl"], "nll": found["nll"],
                   "kl": found.get("kl"), "top1": found.get("top1_agreement"), "tokens": found["tokens"],
                   "context": found["context"]}
    except Failed as failed:
        record["error"] = str(failed)
    return {**record, "all_seconds": time.monotonic() - start}


def expected_seconds(cell, results):
    """What a cell will take, by what the same method took, of the same model if possible."""
    method = cell.method.key if cell.method else "original"
    alike = [r for r in results.records.values() if r["method"] == method and "error" not in r]
    same = [r for r in alike if r["model"] == cell.model.name] or alike
    if same:
        return statistics.median(r["all_seconds"] for r in same)
    return 3 + (cell.method.expected if cell.method else 0)


def duration(seconds):
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"
