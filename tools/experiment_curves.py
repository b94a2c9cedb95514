"""Plots of quality against time and against calibration length, of what `./dev experiments conversion` found."""

import math
from xml.sax.saxutils import escape

from experiment_axes import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Axis, frame
from experiment_cells import DEFAULT_GROUPING, FEWER_STEPS, LENGTH_ROWS, LENGTH_TEXTS, LENGTHS, method_of_length
from experiment_svg import STYLE, document, mark

LINE = 26  # of the legend
SPARE = 96  # width for labels that say more than model and heads


def loss(found, row, method):
    """Nats per token above the original; None where it is not measured."""
    nll, whole = found.median(row, method, DEFAULT_GROUPING, "nll"), found.original(row[0], "nll")
    return None if nll is None or whole is None else nll - whole


def draw(title, x_label, x_ticks, curves, spare=0):
    """curves: label and points (x, nats above the original)."""
    every = [point for _, points in curves for point in points]
    x = Axis([a for a, _ in every], (LEFT, RIGHT), math.log, x_ticks, 36)
    ticks = [(m * 10.0 ** e, f"{m * 10.0 ** e:g}") for m in (1, 2, 5, 3, 7) for e in range(-4, 2)]
    y = Axis([b for _, b in every], (BOTTOM, TOP), math.log, ticks, 24)
    body, marks = frame(x, y, x_label, "nll above the original's, nats per token"), []
    for number, (shape, (label, points)) in enumerate(zip("abcde", curves)):
        path = "L".join(f"{x(a):.1f} {y(b):.1f}" for a, b in points)
        body.append(f'<path class="line {shape}" d="M{path}"/>')
        marks += [mark(shape, x(a), y(b)) for a, b in points]
        place = TOP + 8 + LINE * number
        marks += [mark(shape, RIGHT + 24, place),
                  f'<text class="label {shape}" x="{RIGHT + 38}" y="{place + 4.5}">{escape(label)}</text>']
    return document(title, WIDTH + spare, HEIGHT, STYLE, [*body, *marks])


def name_of(row):
    return f"{row[0].name}, {row[0].kv_heads} to {row[1]}"


def time_plot(found):
    """Refined by ever more steps, text only."""
    curves = []
    for row in found.rows():
        methods = [method.key for method in FEWER_STEPS] + ["text-only"]
        points = [(found.median(row, method, DEFAULT_GROUPING, "cpu_seconds"), loss(found, row, method))
                  for method in methods if loss(found, row, method) is not None]
        if len(points) > 1:
            curves.append((name_of(row), points))
    if not curves:
        return None
    ticks = [(m * 10.0 ** e, f"{m * 10.0 ** e:g} s") for m in (1, 3, 2, 5) for e in range(-1, 4)]
    return draw("What refining gains with time", "processor time of the whole conversion, all threads", ticks, curves)


def length_plot(found):
    curves = []
    for model, kv_heads in found.rows():
        if (model.name, kv_heads) not in LENGTH_ROWS:
            continue
        for text, name in LENGTH_TEXTS.items():
            row = model, kv_heads
            points = [(n, loss(found, row, method_of_length(n, text))) for n in LENGTHS]
            points = [point for point in points if point[1] is not None]
            if len(points) > 1:
                curves.append((f"{name_of(row)}, {name}", points))
    if not curves:
        return None
    return draw("What more text gains", "tokens of calibration text, no sampled ones", [(n, f"{n:,}") for n in LENGTHS],
                curves, SPARE)
