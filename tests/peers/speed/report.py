"""The comparison as a table in Markdown."""

import string

KINDS = {"decode": "1 query, {:,} keys", "prefill": "causal, {:,} tokens",
         "backward": "backward, {:,} tokens"}
DTYPES = {"int8": "int8 ¹", "int4": "int4 ¹"}


def figure(ms):
    """Three digits."""
    return f"{ms:.0f}" if ms >= 100 else f"{ms:#.3g}"


def mark(found):
    return " *" if found["doubtful"] else ""


class Report:
    """`columns`: name -> title, gqa first; `results`: of a cell, name -> what was found, without
    those that skipped it."""

    def __init__(self, columns, results):
        self.columns = columns
        self.results = results
        self.notes = {}  # (engine, variant) -> letter

    def letter(self, name, variant):
        return self.notes.setdefault((name, variant), string.ascii_lowercase[len(self.notes)])

    def peer(self, name, found):
        factor = f"{found['gqa_factor']:.2f}"
        if found["gqa_factor"] < 1:
            factor = f"**{factor}**"
        return (f"{figure(found['ms_median'])} ({factor}) {self.letter(name, found['variant'])}"
                f"{mark(found)}")

    def row(self, cell, found):
        cells = [cell.threads, KINDS[cell.kind].format(cell.kv_len), cell.kv_heads,
                 DTYPES.get(cell.dtype, cell.dtype)]
        for name in self.columns:
            if name not in found:
                cells.append("–")
            elif name == "gqa":
                cells.append(figure(found[name]["ms_median"]) + mark(found[name]))
            else:
                cells.append(self.peer(name, found[name]))
        return cells

    def table(self):
        header = ["threads", "attention", "KV heads", "type",
                  *(f"{title}, ms" for title in self.columns.values())]
        rows = [self.row(cell, found) for cell, found in self.results]
        return "\n".join("| " + " | ".join(map(str, line)) + " |"
                         for line in [header, ["---"] * len(header), *rows])

    def footnotes(self):
        lines = [f"{letter}: {self.columns[name]}, {variant}."
                 for (name, variant), letter in self.notes.items()]
        if any(cell.dtype in DTYPES for cell, _ in self.results):
            lines.append("¹ Scales differ: gqa has one for each token and KV head, ggml (Q8_0, "
                         "Q4_0) for 32 elements, ONNX Runtime for all tokens, set beforehand.")
        if any(f["doubtful"] for _, found in self.results for f in found.values()):
            lines.append("\\* Doubtful: other programs took the cores, or there was too little "
                         "work for so many threads.")
        return "  \n".join(lines)

    def slower(self):
        """Where a peer is ahead."""
        return [f"{cell.title()}: {figure(found['gqa']['ms_median'])} ms, {self.columns[name]} "
                f"{figure(f['ms_median'])} ms ({f['gqa_factor']:.2f}){mark(f)}"
                for cell, found in self.results for name, f in found.items()
                if name != "gqa" and f["gqa_factor"] < 1]
