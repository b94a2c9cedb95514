"""`./dev experiments attention`: how a cell is measured, and the page that results are written to."""

import json
import pathlib
import statistics
import tempfile
import time

import attention_cells
import attention_plot
import attention_tables
import experiment_cells
from experiment_runs import Failed, Setting, key_of, run_child

QUALITY = ("nll", "ppl", "tokens", "context")
SHARES = ("keys_read_share", "kv_bytes_share", "chosen")
RECALL = ("recall", "exact_recall", "needle_mass", "chance", "queries", "trials", *SHARES)
SPEED = ("ms_median", "exact_ms_median", "speedup", "select_share", "output_error", "gb_per_s", "ceiling_gb_per_s",
         "bandwidth_fraction", "short_of_cores", "repeats", "q_heads", "kv_heads", "head_dim", "kv_dtype", "threads",
         "isa", *SHARES)
EXPECTED = {"quality": 3, "recall": 4, "decode": 15, "prefill": 15}  # seconds, where nothing is known yet


class Attention(Setting):
    """What the driver asks of every kind of experiment."""
    name = "attention"
    marker = "experiments attention"  # of the page's generated part
    page = "approximate-attention.md"
    repeats = None  # turns of a timing

    def __init__(self, gqa, root, data, folder):
        texts = experiment_cells.find_texts(root, data, folder)
        texts["judged"] = folder / "judged.txt"
        texts["judged"].write_text(beginning(texts["held-out"].read_text("utf-8"), attention_cells.TEXT_BYTES), "utf-8")
        super().__init__(gqa, {name: texts[name] for name in ("calibration", "judged")})
        self.models = experiment_cells.find_models(root, data)
        head_dims = {model.name: json.loads(run_child([gqa, "inspect", model.path, "--json", "--quiet"]).output)["head_dim"]
                     for model in self.models}
        self.cells = attention_cells.all_cells(self.models, head_dims, self.doctor["threads"])
        self.directed = {}  # model: a copy with directions of keys, or why there is none
        self.folder = tempfile.TemporaryDirectory(prefix="calibrated-", dir=folder)

    def is_quick(self, cell):
        return attention_cells.is_quick(cell)

    def identity(self, cell):
        """All that a cell's figures depend on, but how this version of the program was built."""
        common = {"part": cell.part, "spec": cell.spec, "version": self.doctor["version"]}
        if cell.part == "quality":
            return {**common, "model": cell.model.name, "weights": self.weights(cell.model),
                    "text": self.text_hashes["judged"], "context": attention_cells.CONTEXT,
                    "directions": self.text_hashes["calibration"] if cell.calibrated else None}
        common |= {"kv_len": cell.kv_len}
        if cell.part == "recall":
            return {**common, "needles": cell.needles}
        return {**common, "machine": self.doctor["cpu"], "isa": self.doctor["isa"], "threads": cell.threads,
                "kv_dtype": attention_cells.DTYPE}

    def directed_model(self, model):
        """A copy of a model that has the directions of its keys."""
        if model.name not in self.directed:
            out = pathlib.Path(self.folder.name) / model.name
            try:
                run_child([self.gqa, "convert", model.path, out, "--kv-heads", model.kv_heads, "--calibrate",
                           self.texts["calibration"], *experiment_cells.FEW_TOKENS, "--refine", "0", "--quiet"])
                self.directed[model.name] = out
            except Failed as failed:
                self.directed[model.name] = failed
        if isinstance(self.directed[model.name], Failed):
            raise self.directed[model.name]
        return self.directed[model.name]

    def command(self, cell):
        shared = ["--attention", cell.spec, "--json", "--quiet"]
        if cell.part == "quality":
            model = self.directed_model(cell.model) if cell.calibrated else cell.model.path
            return [self.gqa, "eval", model, "--text", self.texts["judged"], "--context", attention_cells.CONTEXT,
                    *shared]
        bench = [self.gqa, "bench", cell.part, "--kv-len", cell.kv_len, *shared]
        if cell.part == "recall":
            return [*bench, "--needles", cell.needles]
        repeats = self.repeats or (3 if cell.long else None)
        return [*bench, "--kv-dtype", attention_cells.DTYPE, "--threads", cell.threads,
                *(["--repeats", repeats] if repeats else [])]

    def check(self, cell):
        """Nothing is refused before it is run."""

    def measure(self, cell, _folder):
        """The record of a cell: its figures, or "error"."""
        identity, start = self.identity(cell), time.monotonic()
        record = {**self.about(), "key": key_of(identity), **identity, "family": cell.family}
        try:
            output = run_child(self.command(cell)).output
            record |= figures(cell, json.loads(output))
        except (Failed, ValueError, KeyError) as failed:
            record["error"] = str(failed) if isinstance(failed, Failed) else f"{type(failed).__name__}: {failed}"
        return {**record, "all_seconds": time.monotonic() - start}

    def told(self, record):
        if record["part"] == "quality":
            return f"nll {record['nll']:.4f}, {record['keys_read_share']:.1%} of keys"
        if record["part"] == "recall":
            return f"recall {record['recall']:.3f}, {record['kv_bytes_share']:.1%} of bytes"
        return f"{record['speedup']:.2f} times exact's speed"

    def expected_seconds(self, cell, results):
        """What a cell will take, by what cells like it took."""
        known = [r for r in results.records.values() if r.get("part") == cell.part and "error" not in r]
        alike = [r for r in known if cell.part in ("quality", "recall") or r["kv_len"] == cell.kv_len]
        if alike:
            return statistics.median(r["all_seconds"] for r in alike)
        return EXPECTED[cell.part] * (3 if cell.kv_len > 100_000 or cell.long else 1)

    def found(self, results, cells):
        return attention_tables.Found(self, results, self.models, cells)

    def report(self, found):
        return attention_tables.report(found)

    def plain(self, found):
        return attention_tables.plain(found)

    def plots(self, found):
        """SVG by file name; None: nothing to draw."""
        return attention_plot.plots(found)


def beginning(text, size):
    """Whole lines of a text, at most `size` bytes of them."""
    if len(text.encode("utf-8")) <= size:
        return text
    part = text.encode("utf-8")[:size]
    return part[:part.rindex(b"\n") + 1].decode("utf-8")


def figures(cell, found):
    """What is kept of the program's answer. A mask reads what it lets through, exact attention all."""
    names = {"quality": QUALITY + SHARES, "recall": RECALL}.get(cell.part, SPEED)
    record = {name: found.get(name) for name in names}
    if cell.spec == "exact":
        record |= {"keys_read_share": 1.0, "kv_bytes_share": 1.0}
    required = {"quality": ("nll", "kv_bytes_share"), "recall": ("recall", "kv_bytes_share")}.get(cell.part, ("speedup",))
    missing = [name for name in required if record[name] is None]
    if missing:
        raise Failed(f"no {' and '.join(missing)} in the answer")
    return record
