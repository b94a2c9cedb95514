"""Plots of what `./dev experiments attention` found."""

import math
from xml.sax.saxutils import escape

from attention_cells import FAMILIES, NEEDLES, TIMED
from attention_speed import LENGTHS, variants
from experiment_axes import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Axis, frame
from experiment_svg import STYLE, document, mark

LINE = 26  # of the legend
SHAPES = dict(zip(FAMILIES, "abcdefghi"))
MORE_STYLE = """
.line.e { stroke-width: 2; } .rule { paint-order: stroke; stroke: #ffffff; stroke-width: 4; } .dot { fill: var(--c); opacity: .4; }
.f { --c: #cf222e; } .g { --c: #0d7d85; } .h { --c: #bf3989; } .i { --c: #7d6600; }
@media (prefers-color-scheme: dark) {
.f { --c: #ff7b72; } .g { --c: #39c5cf; } .h { --c: #f778ba; } .i { --c: #d4b106; }
.rule { stroke: #0d1117; } }
"""
SCALE = 0.003  # of the nll axis: below it is linear, above logarithmic


def front(points):
    """Of points (x, y), less of both being better: those that no other is at least as good as, by x."""
    best = []
    for x, y in sorted(points):
        if not best or y < best[-1][1]:
            best.append((x, y))
    return best


def legend(families):
    parts = []
    for number, family in enumerate(families):
        shape, y = SHAPES[family], TOP + 8 + LINE * number
        parts += [mark(shape, RIGHT + 24, y),
                  f'<text class="label {shape}" x="{RIGHT + 38}" y="{y + 4.5}">{escape(FAMILIES[family])}</text>']
    return parts


def draw(title, axes, labels, rule, curves):
    """rule: y, its label, and how far to the right that stands. curves: family, points (all of them), line (points that it joins)."""
    x, y = axes
    body, marks = frame(x, y, *labels), []
    body += [f'<path class="whole" d="M{LEFT} {y(rule[0]):.1f}H{RIGHT}"/>',
             f'<text class="soft rule" x="{LEFT + rule[2]}" y="{y(rule[0]) - 6:.1f}">{escape(rule[1])}</text>']
    for family, points, line in curves:
        shape = SHAPES[family]
        path = "L".join(f"{x(a):.1f} {y(b):.1f}" for a, b in line)
        body.append(f'<path class="line {shape}" d="M{path}"/>')
        body += [f'<circle class="dot {shape}" cx="{x(a):.1f}" cy="{y(b):.1f}" r="2.5"/>'
                 for a, b in points if (a, b) not in line]
        marks += [mark(shape, x(a), y(b)) for a, b in line]
    return document(title, WIDTH, HEIGHT, STYLE + MORE_STYLE, [*body, *marks, *legend([c[0] for c in curves])])


def share_ticks(logarithmic):
    if logarithmic:
        return [(v, f"{v:.1%}".replace(".0%", "%")) for v in
                (1, 0.1, 0.01, 0.5, 0.2, 0.05, 0.02, 0.3, 0.03, 0.005, 0.002, 0.001, 2)]
    return [(v / 10, f"{v * 10}%") for v in range(0, 21)]


def quality_plot(found, model, field, what):
    exact, curves = found.exact(model), []
    for family, records in found.curves(model):
        points = [(r[field], r["nll"] - exact["nll"]) for r in records] if exact else []
        if points:
            curves.append((family, points, front(points)))
    if not curves:
        return None
    every = [point for _, points, _ in curves for point in points]
    ticks = [(sign * m * 10.0 ** e, f"{sign * m * 10.0 ** e:+.9g}") for e in range(1, -4, -1) for m in (1, 3)
             for sign in (1, -1)]
    x = Axis([1, *(a for a, _ in every)], (LEFT, RIGHT), float, share_ticks(False), 36)
    y = Axis([0, *(b for _, b in every)], (BOTTOM, TOP), lambda v: math.asinh(v / SCALE), ticks, 18)
    return draw(f"{model.name}: what leaving keys out costs", (x, y),
                (f"share of exact attention's {what} that is read", "nll above exact attention's, nats per token"),
                (0, f"exact: nll {exact['nll']:.3f}", 6), curves)


def recall_plot(found, needles):
    curves = []
    for family, records in found.recalled(needles):
        points = [(r["kv_bytes_share"], r["recall"]) for r in records]
        curves.append((family, points, [(a, -b) for a, b in front([(a, -b) for a, b in points])]))
    if not curves:
        return None
    exact = found.of("recall", needles=needles)[0]["exact_recall"]
    x = Axis([1, *(a for _, points, _ in curves for a, _ in points)], (LEFT, RIGHT), math.log, share_ticks(True), 40)
    y = Axis([0, 1], (BOTTOM, TOP), float, [(v / 5, f"{v / 5:g}") for v in range(6)], 18)
    return draw(f"Recall of {needles} needle{'s' if needles > 1 else ''} per KV head among 16,384 keys", (x, y),
                ("share of exact attention's bytes that is read, choosing included", "recall"),
                (exact, f"exact: {exact:.2f}", 6), curves)


def speed_plot(found, part):
    curves = []
    for variant in variants(found, part):
        points = [(n, r["speedup"]) for n, r in sorted(variant.records.items())]
        curves.append((variant.family, points, points))
    if not curves:
        return None
    every = [point for _, points, _ in curves for point in points]
    steps = [(m * 10.0 ** e, f"{m * 10.0 ** e:g}") for m in (1, 2, 5) for e in range(-3, 4)]
    x = Axis([a for a, _ in every], (LEFT, RIGHT), math.log, [(n, f"{n:,}") for n in LENGTHS[part]], 20)
    y = Axis([1, *(b for _, b in every)], (BOTTOM, TOP), math.log, steps, 18)
    return draw(f"{part.capitalize()}: how many times exact attention's speed", (x, y),
                ("keys", "times exact attention's speed"), (1, "exact", 60), curves)


def plots(found):
    """SVG by file name; None: nothing to draw."""
    start = "approximate-attention"
    pictures = {f"{start}-recall-{n}.svg": recall_plot(found, n) for n in NEEDLES}
    pictures |= {f"{start}-{part}.svg": speed_plot(found, part) for part in LENGTHS}
    for model in found.models:
        pictures[f"{start}-quality-{model.name}.svg"] = quality_plot(found, model, "keys_read_share", "keys")
        pictures[f"{start}-bytes-{model.name}.svg"] = quality_plot(found, model, "kv_bytes_share", "bytes")
    return pictures
