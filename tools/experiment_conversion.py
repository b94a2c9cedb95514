"""`./dev experiments conversion`: how a cell is measured, and the page that results are written to."""

import json
import pathlib
import shutil
import statistics
import time

import experiment_cells
import experiment_curves
import experiment_plot
import experiment_tables
from experiment_runs import Failed, Setting, key_of, run_child


class Conversion(Setting):
    """What the driver asks of every kind of experiment."""
    name = "conversion"
    marker = "experiments"  # of the page's generated part
    page = "conversion.md"

    def __init__(self, gqa, root, data, folder):
        super().__init__(gqa, experiment_cells.find_texts(root, data, folder))
        self.models = experiment_cells.find_models(root, data)
        self.cells = experiment_cells.all_cells(self.models)

    def is_quick(self, cell):
        return experiment_cells.is_quick(cell)

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

    def convert(self, cell, out, *more):
        options = cell.options(self.texts)
        if options is None:
            raise Failed(f"no text {cell.method.text} (see --data)")
        return run_child([self.gqa, "convert", cell.model.path, out, *options, "--json", "--quiet", *more])

    def check(self, cell):
        """Raises Failed where the program refuses a cell."""
        if cell.method:
            self.convert(cell, "nowhere", "--dry-run")

    def measure(self, cell, folder):
        """The record of a cell: its figures, or "error"."""
        identity = self.identity(cell)
        record = {"key": key_of(identity), **identity, "grouping": cell.grouping, "seed": cell.seed, **self.about()}
        out = pathlib.Path(folder) / "converted"
        shutil.rmtree(out, ignore_errors=True)
        start = time.monotonic()
        try:
            model = cell.model.path
            against = []
            if cell.method:
                run = self.convert(cell, out)
                record |= {"seconds": run.seconds, "cpu_seconds": run.cpu_seconds, "peak_bytes": run.peak_bytes}
                model, against = out, ["--against", cell.model.path]
                grouped = json.loads((out / "gqa_recipe.json").read_text("utf-8"))["options"].get("grouping")
                if grouped not in (None, cell.grouping):
                    raise Failed(f"grouped by {grouped}, expected {cell.grouping}")
            shape = json.loads(run_child([self.gqa, "inspect", model, "--json", "--quiet"]).output)
            found = json.loads(run_child(
                [self.gqa, "eval", model, "--text", self.texts["held-out"], *against, "--json", "--quiet"]).output)
            record |= {"kv_bytes": shape["kv_bytes_per_token"], "ppl": found["ppl"], "nll": found["nll"],
                       "kl": found.get("kl"), "top1": found.get("top1_agreement"), "tokens": found["tokens"],
                       "context": found["context"]}
        except Failed as failed:
            record["error"] = str(failed)
        return {**record, "all_seconds": time.monotonic() - start}

    def told(self, record):
        return f"ppl {record['ppl']:.3f}"

    def expected_seconds(self, cell, results):
        """What a cell will take, by what the same method took, of the same model if possible."""
        method = cell.method.key if cell.method else "original"
        alike = [r for r in results.records.values() if r["method"] == method and "error" not in r]
        same = [r for r in alike if r["model"] == cell.model.name] or alike
        if same:
            return statistics.median(r["all_seconds"] for r in same)
        return 3 + (cell.method.expected if cell.method else 0)

    def found(self, results, cells):
        return experiment_tables.Found(self, results, self.models, cells)

    def report(self, found):
        return experiment_tables.report(found)

    def plain(self, found):
        return experiment_tables.plain(found)

    def plots(self, found):
        """SVG by file name; None: nothing to draw."""
        pictures = {f"conversion-{model.name}.svg": experiment_plot.plot(found, model) for model in found.models}
        return pictures | {"conversion-time.svg": experiment_curves.time_plot(found),
                           "conversion-length.svg": experiment_curves.length_plot(found)}
