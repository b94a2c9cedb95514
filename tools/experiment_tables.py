"""Tables, in Markdown, of what `./dev experiments conversion` found."""

import statistics

from bench_tables import markdown
from experiment_cells import (DATA_FREE, DEFAULT_GROUPING, FEWER_STEPS, LENGTH_ROWS, LENGTH_TEXTS, LENGTHS, REFINED_GROUPINGS,
                              SEEDS, TEXT_ONLY, method_of_length)
from experiment_runs import key_of

UNKNOWN = "–"
MERGES = [method.key for method in DATA_FREE]
GROUPINGS = ("neighbour", "similarity")
# Published method, cell that follows it; None: no option of gqa does.
PUBLISHED = [
    ("GQA, averaging (Ainslie et al. 2023)", ("mean", "neighbour")),
    ("align before merge (Jin et al. 2024)", ("aligned", "similarity")),
    ("grouping searched, averaging, as QCQA (Joshi et al. 2024)", ("mean", "similarity")),
    ("AsymGQA (Chen et al. 2024)", ("asymmetric", "similarity")),
    ("key-driven (Khan et al. 2024)", ("key-driven", "key-driven")),
    ("gqa without text", ("pca", "similarity")),
    ("gqa with text, the default", ("default", DEFAULT_GROUPING)),
]


class Found:
    """Records by model, KV heads, method and grouping; of several seeds, medians."""

    def __init__(self, setting, results, models, cells):
        self.models, self.program, self.records, self.cells = models, setting.program, {}, cells
        for cell in cells:
            record = results.good(key_of(setting.identity(cell)))
            if record:
                self.records.setdefault(cell.place(), []).append(record)

    def all(self):
        return [record for records in self.records.values() for record in records]

    def rows(self):
        return [(model, kv_heads) for model in self.models for kv_heads in model.targets]

    def values(self, row, method, grouping, field="ppl"):
        model, kv_heads = row
        place = model.name, kv_heads, method, "" if kv_heads == 1 else grouping
        return [r[field] for r in self.records.get(place, []) if field in r]  # older records know less

    def median(self, row, method, grouping, field="ppl"):
        values = self.values(row, method, grouping, field)
        return statistics.median(values) if values else None

    def original(self, model, field="ppl"):
        return self.median((model, model.kv_heads), "original", "", field)

    def best_without_text(self, row):
        """Perplexity, merge and grouping."""
        known = [(self.median(row, merge, grouping), merge, grouping if row[1] > 1 else "one group")
                 for merge in MERGES for grouping in GROUPINGS if self.values(row, merge, grouping)]
        return min(known, default=(None, None, None))

    def other_builds(self):
        return sum(record["program"] != self.program for record in self.all())


def ppl(value, best=None, digits=2):
    if value is None:
        return UNKNOWN
    text = f"{value:.{digits}f}" if value < 100 else f"{value:,.0f}" if value < 1e6 else f"{value:.1e}"
    return f"**{text}**" if value == best else text


def ppl_cells(values, digits=2):
    """The lowest of several stands out."""
    known = [value for value in values if value is not None]
    return [ppl(value, min(known) if len(known) > 1 else None, digits) for value in values]


def took(seconds):
    return UNKNOWN if seconds is None else f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2f} s"


def row_name(row):
    model, kv_heads = row
    return f"{model.name}, {model.kv_heads} to {kv_heads}"


def share(value):
    return UNKNOWN if value is None else f"{value:.1%}"


def overview_table(found):
    rows = []
    for row in found.rows():
        without, merge, grouping = found.best_without_text(row)
        sizes = [r["kv_bytes"] for r in found.all() if (r["model"], r["kv_heads"]) == (row[0].name, row[1])]
        kl = found.median(row, "default", DEFAULT_GROUPING, "kl")
        rows.append([row_name(row), sizes[0] if sizes else UNKNOWN, ppl(found.original(row[0])),
                     ppl(found.median(row, "mean", "neighbour")),
                     ppl(without) + (f" ({merge}, {grouping})" if merge else ""),
                     ppl(found.median(row, "default", DEFAULT_GROUPING)),
                     UNKNOWN if kl is None else f"{kl:.3f}",
                     share(found.median(row, "default", DEFAULT_GROUPING, "top1"))])
    return markdown(["KV heads", "KV bytes per token", "original", "averaging neighbours", "best without text",
                     "default, with text", "its KL", "its top-1 agreement"], rows)


def method_table(found, header, methods):
    rows = [[row_name(row), grouping, *ppl_cells([found.median(row, method, grouping) for method in methods])]
            for row in found.rows() for grouping in (GROUPINGS if row[1] > 1 else ["one group"])]
    return markdown(["KV heads", "grouping", *header], rows)


def text_table(found):
    methods = ["default", "self", "on-tinyshakespeare", "on-wikitext2-valid"]
    rows = [[row_name(row), *ppl_cells([found.median(row, method, DEFAULT_GROUPING) for method in methods])]
            for row in found.rows()]
    return markdown(["KV heads", "text like the evaluated", "none (`self`)", "Shakespeare", "WikiText-2"], rows)


def grouping_table(found):
    groupings = ["neighbour", "random", "kmeans", "similarity"]
    rows = [[row_name(row), merge, *ppl_cells([found.median(row, merge, grouping) for grouping in groupings])]
            for row in found.rows() if row[1] > 1 for merge in ("mean", "pca")]
    return markdown(["KV heads", "merge", *groupings], rows)


def time_table(found):
    """Perplexity after so many steps, text only, and the processor time of the conversion."""
    methods = {method.key: method.key.removeprefix("steps-") for method in FEWER_STEPS} | {"text-only": "600"}
    rows = []
    for row in found.rows():
        cells = []
        for method in methods:
            value, seconds = (found.median(row, method, DEFAULT_GROUPING, field) for field in ("ppl", "cpu_seconds"))
            cells.append(UNKNOWN if value is None else f"{ppl(value)} ({took(seconds)})")
        rows.append([row_name(row), *cells])
    return markdown(["steps", *methods.values()], rows)


def length_table(found):
    rows = [[f"{row_name(row)}, {name}",
             *(ppl(found.median(row, method_of_length(n, text), DEFAULT_GROUPING)) for n in LENGTHS)]
            for row in found.rows() if (row[0].name, row[1]) in LENGTH_ROWS for text, name in LENGTH_TEXTS.items()]
    return markdown(["tokens of text, none sampled", *(f"{n:,}" for n in LENGTHS)], rows)


def curve(found, method, title, file):
    """A picture, where there is something in it."""
    return f"![{title}]({file})" if any(found.values(row, method, DEFAULT_GROUPING) for row in found.rows()) else ""


def with_range(text, values, digits):
    """A median, and the lowest and highest of several seeds."""
    return f"{text} ({min(values):.{digits}f} to {max(values):.{digits}f})" if len(values) > 1 else text


def learned_table(found):
    """Perplexity, KL and time; one KV head is one group, so that there is nothing to learn."""
    rows = []
    for row in found.rows():
        if row[1] == 1:
            continue

        def each(field, row=row):
            return [found.median(row, TEXT_ONLY.key, grouping, field) for grouping in REFINED_GROUPINGS]

        def quality(field, digits, row=row):
            ranges = [found.values(row, TEXT_ONLY.key, grouping, field) for grouping in REFINED_GROUPINGS]
            return [with_range(text, values, digits)
                    for text, values in zip(ppl_cells(each(field), digits), ranges, strict=True)]

        rows.append([row_name(row), "perplexity", *quality("ppl", 3)])
        rows.append(["", "KL", *quality("kl", 4)])
        rows.append(["", "processor time", *map(took, each("cpu_seconds"))])
    names = ["neighbours" if grouping == "neighbour" else "by price" if grouping == "similarity" else grouping
             for grouping in REFINED_GROUPINGS]
    return markdown(["KV heads", "", *names], rows)


def published_table(found):
    columns = [[cell and found.median(row, *cell) for _, cell in PUBLISHED] for row in found.rows()]
    columns = [ppl_cells(column) for column in columns]
    return markdown(["method", *map(row_name, found.rows())],
                    [[name, *(column[i] for column in columns)] for i, (name, _) in enumerate(PUBLISHED)])


def seed_table(found):
    rows = []
    for name, method, grouping in [("refined, text only", TEXT_ONLY.key, DEFAULT_GROUPING),
                                   ("merge random", "random", "neighbour"), ("pca, grouping random", "pca", "random")]:
        cells = []
        for row in found.rows():
            values = found.values(row, method, grouping)
            cells.append(f"{ppl(min(values))} to {ppl(max(values))}" if len(values) > 1 else UNKNOWN)
        rows.append([name, *cells])
    return markdown(["", *map(row_name, found.rows())], rows)


def cost_table(found):
    methods = [("mean", "mean", "neighbour"), ("pca", "pca", "similarity"), ("closed form", "closed", "similarity"),
               ("refined, text only", "text-only", "similarity"), ("default", "default", DEFAULT_GROUPING),
               ("no text (`self`)", "self", DEFAULT_GROUPING)]
    rows = []
    for name, method, grouping in methods:
        cells, peaks = [], []
        for row in found.rows():
            seconds = found.median(row, method, grouping, "cpu_seconds")
            peaks += found.values(row, method, grouping, "peak_bytes")
            cells.append(took(seconds))
        rows.append([name, *cells, f"{max(peaks) / 1e6:.0f} MB" if peaks else UNKNOWN])
    return markdown(["", *map(row_name, found.rows()), "peak memory"], rows)


def machines(found):
    return " and ".join(sorted({f"{r['machine'] or 'an unknown machine'}, {r['threads']} threads, {r['isa']}, "
                                f"gqa {r['version']}" for r in found.all()}))


def pictures(found):
    return "\n".join(f"![{model.name}: perplexity against KV bytes per token](conversion-{model.name}.svg)"
                     for model in found.models if found.original(model))


def report(found):
    some = found.all()
    tokens = next((r["tokens"] for r in some), 0)
    parts = [
        f"Perplexity on {tokens:,} tokens of held-out text; the lowest of a row is bold; the median where several "
        f"seeds ({', '.join(map(str, SEEDS))}) were tried. Measured on {machines(found)}." if some
        else "Nothing is measured yet.",
        overview_table(found),
        pictures(found),
        "### Without text",
        method_table(found, MERGES, MERGES),
        "Groupings that are no neighbours, beside neighbours:",
        grouping_table(found),
        "### With text",
        method_table(found, ["closed form", "refined, text only", "default: sampled text, too"],
                     ["closed", "text-only", "default"]),
        "Learned grouping, beside price and neighbours (text only, refined; with one KV head there is one grouping); in brackets "
        "the lowest and the highest of the seeds:",
        learned_table(found),
        "The default, by the text that it is given:",
        text_table(found),
        "### Quality against time and text",
        "By the number of steps, with text only; in brackets the processor time of the whole conversion:",
        time_table(found),
        curve(found, "text-only", "nats lost against the processor time of a conversion", "conversion-time.svg"),
        "By the length and kind of the text, 600 steps, without sampled text:",
        length_table(found),
        curve(found, method_of_length(LENGTHS[0], "calibration"), "nats lost against the length of the text", "conversion-length.svg"),
        "### Published methods, same models, same texts",
        published_table(found),
        "### How much results scatter",
        seed_table(found),
        "### Time and memory of a conversion",
        "Processor time, all threads together: two threads take a little more than half of it.",
        cost_table(found),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def plain(found):
    """The cells that were asked for, one a line."""
    rows = []
    for cell in found.cells:
        for record in found.records.get(cell.place(), []):
            if record["seed"] == cell.seed:
                rows.append([cell.name(), record["kv_bytes"], f"{record['ppl']:.3f}",
                             UNKNOWN if record["kl"] is None else f"{record['kl']:.4f}", share(record["top1"]),
                             f"{record['seconds']:.2f} s" if "seconds" in record else UNKNOWN])
    return markdown(["", "KV bytes per token", "ppl", "KL", "top-1 agreement", "time"], rows)
