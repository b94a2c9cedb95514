"""How fast approximate attention is, and where it pays: tables of `./dev experiments attention`."""

from attention_cells import DECODE_LENGTHS, FAMILIES, NEEDLES, PREFILL_LENGTHS, RECALL_LENGTH, TIMED
from bench_tables import markdown

UNKNOWN = "–"
# Timings have directions of keys.
COUNTERPART = {"lowrank": "lowrank, calibrated"}
LENGTHS = {"decode": DECODE_LENGTHS, "prefill": PREFILL_LENGTHS}


class Variant:
    """The timings of a family in decode or prefill, by length."""

    def __init__(self, found, part, family):
        self.family, self.part = family, part
        threads = max((r["threads"] for r in found.of(part)), default=0)
        self.records = {r["kv_len"]: r for r in found.of(part, family=family, threads=threads)}

    @property
    def longest(self):
        return self.records[max(self.records)]

    def pays_from(self):
        """The shortest length from which on all that are measured are faster; None: not the longest."""
        start = None
        for length in sorted(self.records, reverse=True):
            if self.records[length]["speedup"] <= 1:
                break
            start = length
        return start

    def best(self):
        return max(self.records.values(), key=lambda r: r["speedup"])


def variants(found, part):
    every = [Variant(found, part, family) for family in TIMED]
    return [variant for variant in every if variant.records]


def signed(value):
    """A difference of nll; a tenth of a percent of perplexity shows."""
    if abs(value) < 0.00005:
        return "0.0000"
    return f"{value:+.4f}" if abs(value) < 0.01 else f"{value:+.3f}" if abs(value) < 1 else f"{value:+.2f}"


def percent(share):
    return f"{share:.1%}" if share < 0.1 else f"{share:.0%}"


def milliseconds(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def times(record):
    speedup = record["speedup"]
    text = f"{speedup:.2f}" if speedup < 10 else f"{speedup:.0f}"
    return text + (r"\*" if record["short_of_cores"] else "")


def error(value):
    return UNKNOWN if value is None else f"{value:.2g}"


def speed_table(found, part):
    rows = []
    for variant in variants(found, part):
        last = variant.longest
        cells = [f"{times(r)} (`{r['spec']}`)" if (r := variant.records.get(n)) else UNKNOWN for n in LENGTHS[part]]
        rows.append([FAMILIES[variant.family], *cells, percent(last["kv_bytes_share"]), f"{last['select_share']:.0%}",
                     error(last["output_error"])])
    return markdown(["", *(f"{n:,} keys" for n in LENGTHS[part]), "bytes read", "time spent choosing", "output error"], rows)


def thread_table(found):
    """One variant on one thread and on all."""
    longest = DECODE_LENGTHS[-1]
    records = sorted(found.of("decode", family="topk", kv_len=longest), key=lambda r: r["threads"])
    if not records:
        return ""
    rows = [[r["threads"], f"{r['exact_ms_median']:.2f} ms", f"{r['ms_median']:.2f} ms", times(r),
             f"{r['bandwidth_fraction']:.0%}"] for r in records]
    return (f"`{records[0]['spec']}`, a sixteenth of the pages, at {longest:,} keys, by threads:\n\n"
            + markdown(["threads", "exact", "topk", "times exact's speed", "of the memory bandwidth"], rows))


def exact_line(found, part):
    """What exact attention took beside each of the variants."""
    texts = []
    for length in LENGTHS[part]:
        threads = max((r["threads"] for r in found.of(part)), default=0)
        known = [r["exact_ms_median"] for r in found.of(part, kv_len=length, threads=threads)]
        if known:
            texts.append(f"{milliseconds(min(known))} to {milliseconds(max(known))} ms at {length:,}")
    return f"Exact attention took, beside the variants, {', '.join(texts)} keys."


def speed_part(found):
    timed = found.of("decode") + found.of("prefill")
    if not timed:
        return []
    some = timed[-1]
    machine = joined(sorted({r["machine"] or "an unknown machine" for r in timed}))
    threads = joined(sorted({str(r["threads"]) for r in timed})) + " threads"
    repeats = sorted({r["repeats"] for r in timed})
    parts = [f"Times exact attention's speed: above 1 is faster. {machine}, {threads}; {some['q_heads']} query heads, "
             f"{some['kv_heads']} KV heads of size {some['head_dim']}, {some['kv_dtype']} cache; medians of {repeats[0]} to "
             f"{repeats[-1]} turns, each beside exact attention in the same run. The last three columns are those of the longest length."]
    if any(r["short_of_cores"] for r in timed):
        parts.append(r"\*: the threads ran for less than 90% of the time, because other programs took the cores or there is too little "
                     "work for so many threads.")
    for part, title in (("decode", "**Decode**, one query token"), ("prefill", "**Prefill**, all tokens of a prompt")):
        if found.of(part):
            parts += [f"{title}. {exact_line(found, part)}", speed_table(found, part)]
            parts += [thread_table(found)] if part == "decode" else []
            parts.append(f"![{part}: times exact attention's speed, by length](approximate-attention-{part}.svg)")
    return [part for part in parts if part]


def nearest_quality(found, model, family, record):
    """What a timed variant costs on a model: at the same setting, or else at the one that reads the most
    similar shares of keys and bytes."""
    exact = found.exact(model)
    curve = dict(found.curves(model)).get(COUNTERPART.get(family, family))
    if not exact or not curve:
        return UNKNOWN

    def difference(r):
        return sum(abs(r[share] - record[share]) for share in ("keys_read_share", "kv_bytes_share"))

    same = [r for r in curve if r["spec"] == record["spec"]]
    near = same[0] if same else min(curve, key=difference)
    return f"{signed(near['nll'] - exact['nll'])} (`{near['spec']}`, {percent(near['keys_read_share'])} of keys)"


def recall_at(found, family, needles):
    spec = TIMED[family](RECALL_LENGTH)
    records = found.of("recall", spec=spec, needles=needles)
    return f"{records[0]['recall']:.2f}" if records else UNKNOWN


def from_text(variant):
    if variant is None:
        return UNKNOWN
    start = variant.pays_from()
    if start is not None:
        return f"{start:,} ({times(variant.records[start])})"
    best = variant.best()
    return (f"not at {variant.longest['kv_len']:,} ({times(variant.longest)})" if best["speedup"] > 1
            else f"never (at most {times(best)}, at {best['kv_len']:,})")


def pay_table(found):
    by_part = {part: {v.family: v for v in variants(found, part)} for part in LENGTHS}
    rows = []
    for family in TIMED:
        timed = [by_part[part].get(family) for part in LENGTHS]
        if not any(timed):
            continue
        record = (timed[0] or timed[1]).longest
        rows.append([FAMILIES[family], *map(from_text, timed),
                     *(nearest_quality(found, model, family, record) for model in found.models),
                     *(recall_at(found, family, n) for n in NEEDLES)])
    return markdown(["", "decode: faster from", "prefill: faster from", *(f"nll, {model.name}" for model in found.models),
                     *(f"recall, {n} needle{'s' if n > 1 else ''}" for n in NEEDLES)], rows)


def joined(texts):
    return texts[0] if len(texts) == 1 else ", ".join(texts[:-1]) + " and " + texts[-1]


def sentence(found, part):
    """Which variants never pay, in words, with the figures."""
    timed = variants(found, part)
    lengths = sorted({length for v in timed for length in v.records})
    span = f"{lengths[0]:,}" + (f" to {lengths[-1]:,}" if len(lengths) > 1 else "")
    never = [v for v in timed if v.best()["speedup"] <= 1]
    other = [v for v in timed if v not in never and v.pays_from() is None]
    always = [v for v in timed if v not in never and v not in other]
    texts = []
    if always:
        best = max(always, key=lambda v: v.longest["speedup"])
        texts.append(f"In {part} ({span} keys), {joined([v.family for v in always])} "
                     f"{'are' if len(always) > 1 else 'is'} faster than exact attention at the longest length measured; "
                     f"the fastest there is `{best.longest['spec']}`, {best.longest['speedup']:.2f} times as fast.")
    if other:
        texts.append(f"In {part}, faster at some lengths, but not at the longest: "
                     + joined([f"{v.family} ({v.longest['speedup']:.2f} times exact's speed there, {v.best()['speedup']:.2f} "
                               f"at {v.best()['kv_len']:,})" for v in other]) + ".")
    if never:
        texts.append(f"In {part} these never pay at any length measured: "
                     + joined([f"{v.family} (at best {v.best()['speedup']:.2f} times exact's speed, "
                               f"at {v.best()['kv_len']:,} keys)" for v in never]) + ".")
    elif not other:
        texts.append(f"None of them never pays in {part}.")
    return " ".join(texts)


def pay_part(found):
    parts = [part for part in LENGTHS if found.of(part)]
    if not parts:
        return []
    return ["For each variant, with the settings of the tables above, the shortest measured length from which on it is faster than "
            "exact attention, in brackets how much there; what it costs in nll on each model; and what it recalls of "
            f"{RECALL_LENGTH:,} keys. A setting that is a length or a number of keys means something else in a context of "
            "512: then nll is that of the setting whose shares of keys and bytes read come closest, named in brackets. "
            "`lowrank` has directions from calibration, as in the timings.",
            pay_table(found), *(sentence(found, part) for part in parts)]
