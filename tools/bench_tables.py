"""Tables, in Markdown, of what `./dev bench` found."""

import statistics

from bench_cases import (DTYPES, KV_HEADS, LENGTHS, LONGER, PREFILLS, VARIANTS, decode, fewer_heads,
                         four_tokens, longer, one_head, prefill, quantised, variant)


class Found:
    """JSON objects by configuration, one for each round; None where memory did not suffice."""

    def __init__(self):
        self.rounds = {}

    def add(self, case, result):
        self.rounds.setdefault(case.key(), []).append(result)

    def results(self, case):
        results = self.rounds.get(case.key(), [])
        return None if not results or None in results else results

    def median(self, case, field):
        results = self.results(case)
        return results and statistics.median(result[field] for result in results)

    def ratio(self, case, other, field):
        """The other's figure over this one's, each of its own run: the median of the rounds' quotients."""
        mine, others = self.results(case), self.results(other)
        if not mine or not others:
            return None
        return statistics.median(b[field] / a[field] for a, b in zip(mine, others))

    def times(self, pair):
        """How many times as long the second of two cases in turns takes: the median of the rounds'."""
        return self.median(pair, "beside_times")

    def rate(self, pair, work):
        """The second's rate of work, a share of the first's."""
        results = self.results(pair)
        return results and statistics.median(
            work(r["beside"]) / work(r) / r["beside_times"] for r in results)

    def doubtful(self, case):
        return any(result["short_of_cores"] for result in self.results(case) or [])

    def everything(self):
        return [result for results in self.rounds.values() for result in results if result]


def markdown(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        "| " + " | ".join("too large" if cell is None else str(cell) for cell in line) + " |"
        for line in lines)


def percent(share):
    return None if share is None else f"{share:.0%}"


def times(ratio):
    return None if ratio is None else f"{ratio:.2f}"


def ms(value):
    return None if value is None else f"{value:.2f} ms" if value < 10 else f"{value:.1f} ms"


def decode_table(found, all_threads):
    rows = []
    for threads in all_threads:
        for dtype in DTYPES:
            row = [threads, dtype]
            for kv_heads in KV_HEADS:
                case = decode(threads, kv_dtype=dtype, kv_heads=kv_heads)
                time = found.median(case, "ms_median")
                row.append(time and f"{ms(time)} ({percent(found.median(case, 'bandwidth_fraction'))})"
                           f"{' *' if found.doubtful(case) else ''}")
            rows.append(row)
    heads = [f"{n} KV head{'' if n == 1 else 's'}" for n in KV_HEADS]
    return markdown(["threads", "cache", *heads], rows)


def prefill_table(found, all_threads):
    rows = []
    for threads in all_threads:
        cases = [(f"{n:,} tokens, f16", prefill(threads, kv_len=n)) for n in PREFILLS]
        cases += [(f"2,048 tokens, {dtype}", prefill(threads, kv_dtype=dtype))
                  for dtype in DTYPES if dtype != "f16"]
        for name, case in cases:
            rate = found.median(case, "gflop_per_s")
            rows.append([threads, name + (" *" if found.doubtful(case) else ""),
                         ms(found.median(case, "ms_median")), rate and f"{rate:.0f}",
                         of_gemm(found, case)])
    return markdown(["threads", "", "median", "GFLOP/s", "of SGEMM"], rows)


def of_gemm(found, case):
    """In tiles bf16 is compared with a GEMM of its own."""
    results = found.results(case)
    share = percent(found.median(case, "compute_fraction"))
    return f"{share} of bf16 GEMM" if results and results[0]["gemm"] == "bf16" else share


def read_bytes(result):
    return result["kv_bytes"]


def variant_table(found, threads):
    work = {"decode": read_bytes, "prefill": lambda r: r["gflop_per_s"] * r["ms_median"]}
    rows = [[name, *(times(found.rate(variant(kind, threads, options), work[kind])) for kind in work)]
            for name, options in VARIANTS]
    return markdown(["", "decode, GB/s", "prefill, GFLOP/s"], rows)


def gain(found, make, all_threads):
    """What all threads gain, as a share of what they gain at reading memory."""
    one, most = make(all_threads[0]), make(all_threads[-1])
    return found.ratio(one, most, "bandwidth_fraction")


def figures(found, all_threads):
    """Rows: what, the aim, what was found on 1 thread and on all."""
    most = all_threads[-1]
    fast_integers = any(name in found.everything()[0]["isa"] for name in ("vnni", "amx"))

    def each(make):
        return ", ".join(str(make(threads)) for threads in all_threads)

    rows = [[f"decode, {n:,} keys, {dtype}: share of read bandwidth", "0.92",
             each(lambda t, n=n, dtype=dtype: times(found.median(
                 decode(t, kv_len=n, kv_dtype=dtype), "bandwidth_fraction")))]
            for dtype in ("f16", "bf16") for n in LENGTHS]
    rows += [
        ["decode, 8 KV heads against 32: times faster", "3.7", each(
            lambda t: times(found.times(fewer_heads(t))))],
        ["decode, 1 KV head: share of the multiply-add peak", "0.70", each(
            lambda t: times(peak_share(found, decode(t, kv_heads=1))))],
        ["decode, int8 against f16: times faster", "1.7" if fast_integers else "1.4", each(
            lambda t: times(faster(found, quantised(decode, t, "int8"))))],
        ["decode, int4 against f16: times faster", "2.5" if fast_integers else "1.4", each(
            lambda t: times(faster(found, quantised(decode, t, "int4"))))],
        ["prefill, 2,048 tokens: share of SGEMM", "0.90", each(
            lambda t: times(found.median(prefill(t), "compute_fraction")))],
        ["prefill, 8,192 tokens: share of SGEMM", "0.90", each(
            lambda t: times(found.median(prefill(t, kv_len=8192), "compute_fraction")))],
        ["prefill, int8 against f16: times the time", "<= 1.10", each(
            lambda t: times(found.times(quantised(prefill, t, "int8"))))],
        ["prefill, int4 against f16: times the time", "<= 1.10", each(
            lambda t: times(found.times(quantised(prefill, t, "int4"))))],
        ["4 query tokens against 1: times the time", "<= 1.4", each(
            lambda t: times(found.times(four_tokens(t))))],
        ["... or share of the multiply-add peak", "0.75", each(
            lambda t: times(peak_share(found, four_tokens(t), "beside")))],
        ["1 KV head, time per key, 8 K to 1 M keys: most over least", "<= 1.10",
         times(flatness(found, most))],
        [f"1 to {most} threads, 8 KV heads: share of the ceiling's gain", "0.95",
         times(gain(found, decode, all_threads))],
        [f"1 to {most} threads, 1 KV head: share of the ceiling's gain", "0.95",
         times(gain(found, lambda t: one_head(t, 32768), all_threads))],
    ]
    return markdown(["", "aim", " and ".join(f"{t} thread{'' if t == 1 else 's'}"
                                             for t in all_threads)], rows)


def faster(found, pair):
    """How many times as fast the second is."""
    ratio = found.times(pair)
    return ratio and 1 / ratio


def peak_share(found, case, of=None):
    """Of a case, or of the second of two in turns."""
    results = found.results(case)
    return results and statistics.median(
        r["gflop_per_s"] / r["peak_gflop_per_s"] for r in (r[of] if of else r for r in results))


def flatness(found, threads):
    """Most over least, of the rates at which keys and values of all lengths are worked through: shares of
    the shortest one's."""
    rates = [1, *(found.rate(longer(threads, n), read_bytes) for n in LONGER)]
    return None if None in rates else max(rates) / min(rates)


def ceilings(found, threads):
    """Medians over everything that ran on so many threads."""
    some = [result for result in found.everything() if result["threads"] == threads]
    reading = [r["ceiling_gb_per_s"] for r in some if r["kind"] == "decode"]
    return (f"{threads} thread{'' if threads == 1 else 's'}: reading memory "
            f"{statistics.median(reading):.1f} GB/s, SGEMM "
            f"{statistics.median(r['ceiling_gflop_per_s'] for r in some):.0f} GFLOP/s, multiply-adds "
            f"in registers {statistics.median(r['peak_gflop_per_s'] for r in some):.0f} GFLOP/s.")


def report(found, all_threads):
    some = found.everything()
    parts = [
        f"### {some[0]['machine'] or 'Unknown machine'}, {some[0]['isa']}",
        " ".join(ceilings(found, threads) for threads in all_threads),
        "Decode: one query token, 32,768 keys, 32 query heads of size 128; in brackets the share "
        "of the rate at which the same threads read memory.",
        decode_table(found, all_threads),
        "Causal prefill, 32/8 heads of size 128, beside SGEMM on the same threads.",
        prefill_table(found, all_threads),
        f"Other shapes and features, {all_threads[-1]} threads, f16: the rate as a share of the "
        "plain case's, call by call in turns (32/8 heads of size 128; decode with 32,768 keys, "
        "prefill of 2,048 tokens, 8,192 for the window).",
        variant_table(found, all_threads[-1]),
        "Aims.",
        figures(found, all_threads),
    ]
    if any(result["short_of_cores"] for result in some):
        parts.append("\\* The threads did not have a core each: other programs were running.")
    return "\n\n".join(parts) + "\n"
