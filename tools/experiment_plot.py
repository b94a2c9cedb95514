"""Plots of what `./dev experiments conversion` found."""

import math
from xml.sax.saxutils import escape

from experiment_cells import DEFAULT_GROUPING
from experiment_svg import STYLE, document, mark, short, spread

WIDTH, HEIGHT = 800, 440
LEFT, RIGHT, TOP, BOTTOM = 64, 508, 64, 376
LINE = 17  # of labels
# Class, method, grouping, label.
SERIES = [
    ("a", "mean", "neighbour", "averaging (Ainslie et al.)"),
    ("b", "aligned", "similarity", "align before merge (Jin et al.)"),
    ("c", "pca", "similarity", "gqa, no text"),
    ("d", "closed", "similarity", "gqa, closed form, with text"),
    ("e", "default", DEFAULT_GROUPING, "gqa, default: refined"),
]
TICKS = [(1, 1.5, 2, 3, 4, 5, 6, 8), (1, 2, 3, 5), (1, 2, 5), (1,)]  # times powers of ten


class Axes:
    """Fewer bytes further right; both logarithmic."""

    def __init__(self, sizes, values):
        self.most, self.least = math.log(max(sizes)), math.log(min(sizes))
        low, high = math.log(min(values)), math.log(max(values))
        edge = max(0.06 * (high - low), 0.02)
        self.low, self.high = low - edge, high + edge

    def x(self, size):
        return LEFT + 24 + (RIGHT - 30 - LEFT - 24) * (self.most - math.log(size)) / (self.most - self.least)

    def y(self, value):
        return BOTTOM - (BOTTOM - TOP) * (math.log(value) - self.low) / (self.high - self.low)

    def ticks(self):
        """Round numbers within the axis: as many as leave 18 pixels between them."""
        for steps in TICKS:
            chosen = [m * 10 ** e for e in range(7) for m in steps if self.low <= math.log(m * 10 ** e) <= self.high]
            if all(self.y(a) - self.y(b) >= 18 for a, b in zip(chosen, chosen[1:])):
                break
        return chosen


def frame(axes, sizes, whole):
    parts = []
    for value in axes.ticks():
        y = axes.y(value)
        parts += [f'<path class="grid" d="M{LEFT} {y:.1f}H{RIGHT}"/>',
                  f'<text class="soft" x="{LEFT - 10}" y="{y + 4.5:.1f}" text-anchor="end">{value:g}</text>']
    for size in sizes:
        parts += [f'<path class="axis" d="M{axes.x(size):.1f} {BOTTOM}v5"/>',
                  f'<text class="soft" x="{axes.x(size):.1f}" y="{BOTTOM + 21}" text-anchor="middle">{size:,}</text>']
    return [*parts, f'<path class="axis" d="M{LEFT} {BOTTOM}H{RIGHT}"/>',
            f'<path class="whole" d="M{LEFT} {axes.y(whole):.1f}H{RIGHT}"/>',
            f'<text class="soft" x="{(LEFT + RIGHT) / 2}" y="{BOTTOM + 46}" text-anchor="middle">'
            'KV cache, bytes per token (fewer to the right)</text>']


def draw(title, whole, whole_size, lines):
    """lines: class, label and points (bytes, perplexity) of each."""
    sizes = sorted({whole_size, *(size for *_, points in lines for size, _ in points)}, reverse=True)
    axes = Axes(sizes, [whole, *(value for *_, points in lines for _, value in points)])
    body, marks = frame(axes, sizes, whole), []
    for shape, _, points in lines:
        path = "L".join(f"{axes.x(size):.1f} {axes.y(value):.1f}" for size, value in [(whole_size, whole), *points])
        body.append(f'<path class="line {shape}" d="M{path}"/>')
        marks += [mark(shape, axes.x(size), axes.y(value)) for size, value in points]
    ends = [(points[-1], shape, (short(points[-1][1]), label)) for shape, label, points in lines]
    texts = [(shape, label, axes.x(end[0]) + 9, axes.y(end[1])) for end, shape, label in ends]
    texts.append(("soft", (short(whole), "original"), RIGHT, axes.y(whole)))
    for (shape, (value, label), x, y), place in zip(texts, spread([t[3] for t in texts], TOP, BOTTOM + 4, LINE)):
        if shape != "soft":
            body.append(f'<path class="lead {shape}" d="M{x:.1f} {y:.1f}L{RIGHT + 2} {place:.1f}" fill="none"/>')
        style = "soft" if shape == "soft" else f"label {shape}"
        body.append(f'<text class="{style}" y="{place + 4.5:.1f}"><tspan x="{RIGHT + 46}" text-anchor="end">{value}'
                    f'</tspan><tspan x="{RIGHT + 56}" text-anchor="start">{escape(label)}</tspan></text>')
    middle = axes.x(whole_size), axes.y(whole)
    marks.append(f'<circle class="soft" cx="{middle[0]:.1f}" cy="{middle[1]:.1f}" r="4.5"/>')
    return document(title, WIDTH, HEIGHT, STYLE, [*body, *marks])


def plot(found, model):
    """The picture of a model; None where nothing is known to draw."""
    whole, size = found.original(model), found.original(model, "kv_bytes")
    lines = []
    for shape, method, grouping, label in SERIES:
        points = [(found.median((model, n), method, grouping, "kv_bytes"), found.median((model, n), method, grouping))
                  for n in model.targets if found.values((model, n), method, grouping)]
        if points:
            lines.append((shape, label, points))
    if whole is None or not lines:
        return None
    return draw(f"{model.name}: perplexity on held-out text", whole, size, lines)
