"""The demo's table: lines that come one by one, and the report in the end."""

import re
import textwrap

WIDTH = 96
SAMPLE_SENTENCES = 3
# Heading, cell.
COLUMNS = (
    ("KV heads", lambda row: str(row["kv_heads"])),
    ("KV bytes/token", lambda row: str(row["kv_bytes_per_token"])),
    ("averaged ppl", lambda row: "" if row["averaged_ppl"] is None else f"{row['averaged_ppl']:.3f}"),
    ("   ppl", lambda row: f"{row['ppl']:.3f}"),
    ("top-1 agreement", lambda row: f"{row['top1_agreement'] * 100:.1f} %"),
)
SPEED = ("decode tokens/s",
         lambda row: "-" if row["decode_tokens_per_s"] is None else f"{row['decode_tokens_per_s']:.0f}")


def heads_text(n):
    return f"{n} KV head{'' if n == 1 else 's'}"


def paragraph(text):
    return textwrap.fill(text, WIDTH) + "\n"


def heading(columns=COLUMNS):
    return "  ".join(name for name, _ in columns) + "\n" + "  ".join("-" * len(name) for name, _ in columns)


def line(row, columns=COLUMNS):
    """Below heading(): as wide as that, unless a figure is larger than any that a sound model has."""
    return "  ".join(cell(row).rjust(len(name)) for name, cell in columns)


def table(rows):
    columns = (*COLUMNS, SPEED)
    return "\n".join([heading(columns), *(line(row, columns) for row in rows)])


def remarks(rows, options):
    """What the figures say, and only that."""
    original, first = rows[0], rows[1]
    lines = []
    if first["averaged_ppl"] > 1.5 * original["ppl"]:
        lines.append(
            "Averaging the KV heads of a group, as everybody does, destroys a small model: perplexity"
            f" {original['ppl']:.2f} becomes {first['averaged_ppl']:.1f} with {first['kv_heads']} of"
            f" {original['kv_heads']} KV heads. `gqa convert {options}` makes it"
            f" {first['ppl']:.2f}, without a text and without training.")
    speeds = [row["decode_tokens_per_s"] for row in rows]
    if all(speeds) and max(speeds) < 1.2 * min(speeds):
        lines.append(
            "Decode speed hardly changes here: this model's weights and short texts leave the KV cache"
            " a small part of what decoding reads. The cache's share grows with the context.")
    return lines


def first_sentences(text, n):
    sentences = re.findall(r".+?[.!?][\"']?(?=\s|$)", " ".join(text.split()))
    return " ".join(s.strip() for s in sentences[:n]) if sentences else " ".join(text.split())[:300]


def report(rows, machine, options, kept_short):
    """The samples first: the table is what should be left on the screen."""
    parts = []
    for row in rows:
        sample = textwrap.fill(first_sentences(row["text"], SAMPLE_SENTENCES), WIDTH,
                               initial_indent="  ", subsequent_indent="  ")
        parts.append(f"{heads_text(row['kv_heads'])}:\n{sample}\n")
    parts.extend(map(paragraph, remarks(rows, options)))
    threads = machine["threads"]
    parts.append(f"Measured on {machine['cpu'] or 'an unknown CPU'}, {threads}"
                 f" thread{'' if threads == 1 else 's'}, {machine['isa']}, gqa {machine['version']}:\n")
    parts.append(table(rows) + "\n")
    parts.append(paragraph(f"ppl: converted with `gqa convert {options}`. {kept_short}").rstrip())
    return "\n".join(parts)
