"""The configurations that `./dev bench` times."""

import copy
import itertools

DTYPES = ["f32", "f16", "bf16", "int8", "int4"]
KV_HEADS = [32, 8, 1]
LENGTHS = [8192, 32768, 131072]
SHORTEST = 8192
LONGER = [32768, 131072, 1048576]
PREFILLS = [2048, 8192]
# Name, options: what differs from 32/8 heads of size 128 without features.
VARIANTS = [
    *((f"groups of {group}", {"q-heads": 8 * group}) for group in (3, 5, 6, 7)),
    *((f"head size {size}", {"head-dim": size}) for size in (64, 80, 96, 112, 256)),
    ("window 4,096", {"window": 4096}),
    ("soft cap", {"softcap": 30}),
    ("sinks", {"sinks": True}),
]


class Case:
    """One configuration of `gqa bench`, or two call by call in turns: what the other one has besides is `changes`."""

    def __init__(self, kind, threads, **options):
        self.kind = kind
        self.options = {name.replace("_", "-"): value for name, value in options.items()}
        self.options["threads"] = threads
        self.changes = {}

    def beside(self, changes):
        case = copy.copy(self)
        case.changes = changes
        return case

    def arguments(self):
        words = [self.kind]
        for name, value in sorted(self.options.items()):
            words += [f"--{name}", str(value)]
        if self.changes:
            words += ["--beside", ",".join(name if value is True else f"{name}={value}"
                                           for name, value in sorted(self.changes.items()))]
        return words

    def key(self):
        return " ".join(self.arguments())

    def repeats(self):
        """Few where a call takes seconds; none where `gqa bench` makes as many as it has time for."""
        if self.kind == "decode":
            return []
        return ["--repeats", "3" if self.options["kv-len"] > 4096 else "9"]


def decode(threads, kv_len=32768, kv_dtype="f16", kv_heads=8, q_heads=32):
    return Case("decode", threads, kv_len=kv_len, kv_dtype=kv_dtype, kv_heads=kv_heads,
                q_heads=q_heads)


def prefill(threads, kv_len=2048, kv_dtype="f16"):
    return Case("prefill", threads, kv_len=kv_len, kv_dtype=kv_dtype)


def variant(kind, threads, options):
    """The plain case beside one that differs by these options; a window needs keys to leave out."""
    plain = decode(threads) if kind == "decode" else prefill(
        threads, kv_len=8192 if "window" in options else 2048)
    return plain.beside(options)


def fewer_heads(threads):
    """8 KV heads beside 32."""
    return decode(threads).beside({"kv-heads": 32})


def quantised(make, threads, dtype):
    """f16 beside a quantised cache."""
    return make(threads).beside({"kv-dtype": dtype})


def four_tokens(threads):
    """A query token beside four."""
    return decode(threads).beside({"q-len": 4})


def one_head(threads, kv_len):
    """A group of 4 with one KV head: bound by memory at every length."""
    return decode(threads, kv_len=kv_len, kv_heads=1, q_heads=4)


def longer(threads, kv_len):
    """The shortest of these beside a longer one."""
    return one_head(threads, SHORTEST).beside({"kv-len": kv_len})


def all_cases(all_threads):
    """Each once."""
    most = all_threads[-1]
    cases = []
    for threads, dtype, kv_heads in itertools.product(all_threads, DTYPES, KV_HEADS):
        cases.append(decode(threads, kv_dtype=dtype, kv_heads=kv_heads))
    for threads, dtype, kv_len in itertools.product(all_threads, ["f16", "bf16"], LENGTHS):
        cases.append(decode(threads, kv_len=kv_len, kv_dtype=dtype))
    for threads in all_threads:
        cases += [fewer_heads(threads), four_tokens(threads)]
        cases += [quantised(make, threads, dtype) for make in (decode, prefill) for dtype in ("int8", "int4")]
    cases += [one_head(threads, 32768) for threads in all_threads]
    cases += [longer(most, kv_len) for kv_len in LONGER]
    for threads, dtype in itertools.product(all_threads, DTYPES):
        cases.append(prefill(threads, kv_dtype=dtype))
    cases += [prefill(threads, kv_len=kv_len) for threads in all_threads for kv_len in PREFILLS]
    for kind in "decode", "prefill":
        cases += [variant(kind, most, options) for _, options in VARIANTS]
    return list({case.key(): case for case in cases}.values())
