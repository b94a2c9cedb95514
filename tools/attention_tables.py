"""Tables, in Markdown, of what `./dev experiments attention` found."""

import attention_speed
from attention_cells import FAMILIES, NEEDLES, RECALL_LENGTH
from attention_speed import UNKNOWN, percent, signed
from bench_tables import markdown
from experiment_runs import key_of

BUDGETS = (0.75, 0.5, 0.35, 0.2)  # of the bytes of keys and values
WELL = 0.9                        # of what exact attention recalls


class Found:
    """The records of cells, in their order."""

    def __init__(self, topic, results, models, cells):
        self.program, self.models = topic.program, models
        pairs = [(cell, results.good(key_of(topic.identity(cell)))) for cell in cells]
        self.pairs = [(cell, record) for cell, record in pairs if record]
        self.missing = len(cells) - len(self.pairs)

    def all(self):
        return [record for _, record in self.pairs]

    def of(self, part, **wanted):
        return [r for r in self.all() if r["part"] == part and all(r[name] == value for name, value in wanted.items())]

    def exact(self, model):
        """Record of exact attention on a model; None: not known."""
        return next(iter(self.of("quality", model=model.name, spec="exact")), None)

    def curves(self, model):
        """(family, records) of a model, without exact attention."""
        return by_family(r for r in self.of("quality", model=model.name) if r["spec"] != "exact")

    def recalled(self, needles):
        return by_family(self.of("recall", needles=needles))

    def other_builds(self):
        return sum(record["program"] != self.program for record in self.all())


def by_family(records):
    records = list(records)
    return [(family, mine) for family in FAMILIES if (mine := [r for r in records if r["family"] == family])]


def quality_table(found, model):
    """For each family the least loss within a budget of bytes; the least of a column is bold."""
    exact = found.exact(model)
    curves = found.curves(model)
    if not exact or not curves:
        return ""
    best = {(family, budget): min((r for r in records if r["kv_bytes_share"] <= budget), key=lambda r: r["nll"], default=None)
            for family, records in curves for budget in BUDGETS}
    least = {budget: min((r["nll"] for (_, b), r in best.items() if b == budget and r), default=None) for budget in BUDGETS}

    def text(family, budget):
        record = best[family, budget]
        if not record:
            return UNKNOWN
        loss = signed(record["nll"] - exact["nll"])
        loss = f"**{loss}**" if record["nll"] == least[budget] else loss
        return f"{loss} (`{record['spec']}`)"

    rows = [[FAMILIES[family], *(text(family, budget) for budget in BUDGETS)] for family, _ in curves]
    return markdown(["", *(f"at most {budget:.0%} of the bytes" for budget in BUDGETS)], rows)


def quality_part(found):
    parts = []
    for model in found.models:
        exact, table = found.exact(model), quality_table(found, model)
        if table:
            parts += [f"**{model.name}**: exact attention has an nll of {exact['nll']:.4f} nats per token (perplexity "
                      f"{exact['ppl']:.3f}) on {exact['tokens']:,} tokens, context {exact['context']}. The table says by how "
                      "much the best setting of each variant is above that, within a budget.", table,
                      pictures(f"quality-{model.name}", f"{model.name}: nll against the share of keys read"),
                      pictures(f"bytes-{model.name}", f"{model.name}: nll against the share of bytes read")]
    return parts


def pictures(name, text):
    return f"![{text}](approximate-attention-{name}.svg)"


def recall_text(records):
    """The least bytes with which a family finds needles, or the most that it finds."""
    good = [r for r in records if r["recall"] >= WELL * r["exact_recall"]]
    if good:
        least = min(good, key=lambda r: r["kv_bytes_share"])
        return f"{percent(least['kv_bytes_share'])} (`{least['spec']}`)"
    most = max(records, key=lambda r: r["recall"])
    return f"never; at most {most['recall']:.2f} (`{most['spec']}`, {percent(most['kv_bytes_share'])})"


def recall_part(found):
    tables = {needles: dict(found.recalled(needles)) for needles in NEEDLES}
    some = found.of("recall")
    if not some:
        return []
    rows = [[FAMILIES[family], *(recall_text(tables[n][family]) if family in tables[n] else UNKNOWN for n in NEEDLES)]
            for family in FAMILIES if any(family in table for table in tables.values())]
    exact = " and ".join(f"{r['exact_recall']:.2f} with {n}" for n in NEEDLES
                         for r in found.of("recall", needles=n)[:1])
    return [f"{RECALL_LENGTH:,} keys. Exact attention recalls {exact} needles per KV head; guessing would "
            f"{some[0]['chance']:.3f}. The table says with what share of the bytes {WELL:.0%} of exact attention's recall is "
            "reached.",
            markdown(["", *(f"{n} needle{'s' if n > 1 else ''}" for n in NEEDLES)], rows),
            *(pictures(f"recall-{n}", f"recall against the share of bytes read, needles per KV head: {n}")
              for n in NEEDLES if tables[n])]


def machines(found):
    return " and ".join(sorted({f"{r['machine'] or 'an unknown machine'}, {r['isa']}, gqa {r['version']}"
                                for r in found.all()}))


def report(found):
    if not found.all():
        return "Nothing is measured yet.\n"
    missing = f" {found.missing} cells are not measured, or failed." if found.missing else ""
    parts = [f"Measured on {machines(found)}.{missing}"]
    for title, part in (("### Quality", quality_part(found)), ("### Retrieval", recall_part(found)),
                        ("### Speed", attention_speed.speed_part(found)),
                        ("### Does it pay?", attention_speed.pay_part(found))):
        if part:
            parts += [title, *part]
    return "\n\n".join(parts) + "\n"


def plain(found):
    """The cells that were asked for, one a line."""
    rows = []
    for cell, r in found.pairs:
        figures = {"quality": lambda: f"nll {r['nll']:.4f}", "recall": lambda: f"recall {r['recall']:.3f}"}.get(
            cell.part, lambda: f"{r['speedup']:.2f} times exact's speed, {r['ms_median']:.3f} ms, "
                               f"threads: {r['threads']}, output error {r['output_error']:.2g}")()
        rows.append([cell.name(), figures, percent(r["keys_read_share"]), percent(r["kv_bytes_share"])])
    return markdown(["", "", "keys read", "bytes read"], rows) + f"\n\nMeasured on {machines(found)}."
