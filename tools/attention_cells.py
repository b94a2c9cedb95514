"""What `./dev experiments attention` measures: specs of attention, and the cells they make."""

from typing import NamedTuple

from experiment_cells import Model

CONTEXT = 512
TEXT_BYTES = 48_000  # of the held-out text: as much as keeps the part below 10 minutes
RECALL_LENGTH = 16384
NEEDLES = (1, 32)
DECODE_LENGTHS = (8192, 32768, 131072)
PREFILL_LENGTHS = (2048, 8192, 16384)
DTYPE = "f16"  # of the cache whose attention is timed

# Family, what it is called on the page; in the order of tables and legends.
FAMILIES = {
    "block": "block", "window": "window", "global-local": "global-local", "topk": "topk", "topp": "topp",
    "lowrank": "lowrank", "lowrank, calibrated": "lowrank, calibrated", "clustered": "clustered",
    "dynamic": "dynamic",
}
# What is timed at a length: a sixteenth of the keys where the number can be chosen so.
TIMED = {
    "topk": lambda n: f"topk:{max(3, n // 1024)}",
    "topp": lambda n: "topp:0.9",
    "lowrank": lambda n: f"lowrank:32,{n // 16}",
    "global-local": lambda n: "global-local:1024,64",
    "window": lambda n: "window:1024",
    "block": lambda n: "block:1024",
    "clustered": lambda n: "clustered:8",
    "dynamic": lambda n: "dynamic:0.1",
}


class Cell(NamedTuple):
    """One run of the program."""
    part: str  # quality, recall, decode, prefill
    spec: str
    model: Model | None = None  # of quality
    calibrated: bool = False    # with directions that calibration has found
    needles: int = 0            # of recall
    kv_len: int = 0             # of all but quality
    threads: int = 0            # of decode and prefill

    @property
    def family(self):
        return family_of(self.spec) + (", calibrated" if self.calibrated else "")

    def name(self):
        if self.part == "quality":
            return f"quality {self.model.name} {'calibrated ' if self.calibrated else ''}{self.spec}"
        if self.part == "recall":
            return f"recall {self.kv_len} needles={self.needles} {self.spec}"
        return f"{self.part} {self.kv_len} threads={self.threads} {self.spec}"

    @property
    def long(self):
        """Whether a turn of the timing takes seconds. Where queries are grouped, a turn has 1024 calls."""
        grouped = self.family in ("clustered", "dynamic")
        return self.kv_len > 8192 if self.part == "prefill" else grouped and self.kv_len > 16384


def family_of(spec):
    return spec.split(":")[0]


def quality_specs(head_dim):
    sizes = (16, 32, 64, 128, 256)
    specs = [f"{family}:{n}" for family in ("block", "window") for n in sizes]
    specs += [f"topk:{n}" for n in range(3, 8)]
    specs += [f"topp:{mass}" for mass in (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)]
    specs += lowrank_specs(head_dim)
    specs += [f"global-local:{w},{b}" for w in (32, 64, 128) for b in (4, 16, 64)]
    specs += [f"clustered:{c}{pages}" for c in (4, 8, 16, 32, 64) for pages in ("", ",1", ",2")]
    return specs + [f"dynamic:{loss}" for loss in (0.01, 0.03, 0.1, 0.3, 1, 3)]


def lowrank_specs(head_dim):
    ranks = [rank for rank in (2, 4, 6, head_dim) if rank <= head_dim]
    return [f"lowrank:{rank},{keys}" for rank in ranks for keys in (16, 32, 64, 128, 256)]


def recall_specs():
    specs = [f"topk:{n}" for n in (4, 8, 16, 32, 64, 128)]
    specs += [f"topp:{mass}" for mass in (0.5, 0.7, 0.8, 0.9, 0.95, 0.99)]
    specs += [f"lowrank:{rank},{keys}" for rank in (8, 16, 32, 64) for keys in (64, 256, 1024)]
    specs += [f"{family}:{n}" for family in ("window", "block") for n in (256, 1024, 4096, 8192)]
    specs += [f"global-local:{w},{b}" for w, b in
              ((256, 4), (256, 16), (1024, 16), (1024, 64), (4096, 16), (4096, 64))]
    specs += [f"clustered:{c}" for c in ("2", "8", "32", "2,4", "8,4", "8,16")]
    return specs + [f"dynamic:{loss}" for loss in (0.01, 0.1, 0.3, 1, 3)]


def quality_cells(model, head_dim):
    cells = [Cell("quality", spec, model) for spec in ["exact", *quality_specs(head_dim)]]
    # With as many directions as the head has dimensions, keys themselves are scored.
    return cells + [Cell("quality", spec, model, True) for spec in lowrank_specs(head_dim)
                    if not spec.startswith(f"lowrank:{head_dim},")]


def timed_cells(threads):
    decode, prefill = ([Cell(part, spec(n), kv_len=n, threads=threads) for n in lengths for spec in TIMED.values()]
                       for part, lengths in (("decode", DECODE_LENGTHS), ("prefill", PREFILL_LENGTHS)))
    longest = DECODE_LENGTHS[-1]
    alone = [Cell("decode", TIMED["topk"](longest), kv_len=longest, threads=1)] if threads > 1 else []
    return alone + decode + prefill


def all_cells(models, head_dims, threads):
    quality = [cell for model in models for cell in quality_cells(model, head_dims[model.name])]
    recall = [Cell("recall", spec, needles=n, kv_len=RECALL_LENGTH) for n in NEEDLES for spec in recall_specs()]
    return quality + recall + timed_cells(threads)


QUICK = {
    "quality": {"exact", "block:64", "window:64", "global-local:64,16", "topk:4", "topp:0.9", "lowrank:4,64",
                "clustered:8", "dynamic:0.1"},
    "recall": {"topk:16", "topp:0.9", "lowrank:32,1024", "clustered:8", "window:1024"},
}


def is_quick(cell):
    """Of --quick: each variant once on the shipped model, some needles, and the shortest timings."""
    if cell.part == "quality":
        return cell.model.name == "tales-mha" and cell.spec in QUICK["quality"]
    if cell.part == "recall":
        return cell.spec in QUICK["recall"]
    return cell.kv_len == {"decode": DECODE_LENGTHS, "prefill": PREFILL_LENGTHS}[cell.part][0]
