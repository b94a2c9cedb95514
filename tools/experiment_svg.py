"""Drawing for the pages of `./dev experiments`: SVG that follows the reader's light or dark theme."""

from xml.sax.saxutils import escape

STYLE = """
svg { font: 13px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
.page { fill: #ffffff; } .text { fill: #1f2328; } .soft { fill: #59636e; } .title { font-size: 16px; font-weight: 600; }
.grid { stroke: #d8dee4; } .axis { stroke: #8c959f; } .whole { stroke: #59636e; stroke-dasharray: 5 4; }
.lead { stroke-width: 1; opacity: .55; } .line { fill: none; stroke-width: 2; } .line.e { stroke-width: 3; }
.a { --c: #6e7781; } .b { --c: #b35900; } .c { --c: #8250df; } .d { --c: #0969da; } .e { --c: #1a7f37; }
.line, .lead { stroke: var(--c); } .mark { fill: var(--c); stroke: #ffffff; } .label { fill: var(--c); font-weight: 600; }
@media (prefers-color-scheme: dark) {
.page { fill: #0d1117; } .text { fill: #e6edf3; } .soft { fill: #9198a1; }
.grid { stroke: #262c36; } .axis { stroke: #656c76; } .whole { stroke: #9198a1; }
.a { --c: #9198a1; } .b { --c: #f0883e; } .c { --c: #b58cff; } .d { --c: #58a6ff; } .e { --c: #3fb950; }
.mark { stroke: #0d1117; } }
"""


def spread(wanted, low, high, gap):
    """Places at least `gap` apart within low to high, in the order of those wanted and close to them."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    blocks = []  # [first place, how many]: labels that touch move as one, to their mean
    for i in order:
        blocks.append([wanted[i], 1])
        while len(blocks) > 1 and blocks[-2][0] + gap * blocks[-2][1] > blocks[-1][0]:
            (place, count), (other, more) = blocks[-2:]
            moved = (count * place + more * (other - gap * count)) / (count + more)
            blocks[-2:] = [[moved, count + more]]
    places = [place + gap * k for place, count in blocks for k in range(count)]
    for k in range(len(places)):
        places[k] = max(places[k], low + gap * k)
    for k in reversed(range(len(places))):
        places[k] = min(places[k], high - gap * (len(places) - 1 - k))
    result = [0.0] * len(wanted)
    for place, i in zip(places, order):
        result[i] = place
    return result


def mark(shape, x, y):
    """Shapes differ, so that colours need not be told apart."""
    if shape == "a":
        return f'<path class="mark {shape}" d="M{x - 5:.1f} {y - 5:.1f}h10v10h-10z"/>'
    if shape == "b":
        return f'<path class="mark {shape}" d="M{x:.1f} {y - 6:.1f}l6 11h-12z"/>'
    if shape == "c":
        return f'<path class="mark {shape}" d="M{x:.1f} {y - 6.5:.1f}l6.5 6.5l-6.5 6.5l-6.5 -6.5z"/>'
    if shape == "d":
        return f'<path class="mark {shape}" d="M{x:.1f} {y + 6:.1f}l6 -11h-12z"/>'
    if shape == "f":
        return f'<path class="mark {shape}" d="M{x - 2:.1f} {y - 6:.1f}h4v4h4v4h-4v4h-4v-4h-4v-4h4z"/>'
    if shape == "g":
        return f'<path class="mark {shape}" d="M{x - 7:.1f} {y - 3:.1f}h14v6h-14z"/>'
    if shape == "h":
        return f'<path class="mark {shape}" d="M{x - 3:.1f} {y - 7:.1f}h6v14h-6z"/>'
    if shape == "i":
        return f'<path class="mark {shape}" d="M{x:.1f} {y - 6:.1f}l6 4.5l-2.3 7h-7.4l-2.3 -7z"/>'
    return f'<circle class="mark {shape}" cx="{x:.1f}" cy="{y:.1f}" r="5.5"/>'


def short(value):
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def document(title, width, height, style, body):
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{escape(title)}">', f"<style>{style}</style>",
        f'<rect class="page" width="{width}" height="{height}" rx="8"/>',
        f'<text class="text title" x="20" y="32">{escape(title)}</text>', *body, "</svg>\n"])
