"""Axes of the plots of `./dev experiments` whose curves have a legend beside them."""

from xml.sax.saxutils import escape

WIDTH, HEIGHT = 800, 460
LEFT, RIGHT, TOP, BOTTOM = 88, 600, 56, 396


class Axis:
    """Values to pixels by way of `bend`; ticks: value and label."""

    def __init__(self, values, pixels, bend, ticks, gap, edge=0.04):
        low, high = bend(min(values)), bend(max(values))
        room = edge * (high - low) or 0.1
        self.bend, self.low, self.high = bend, low - room, high + room
        self.start, self.end = pixels
        self.ticks = []
        for value, label in ticks:
            within = self.low <= bend(value) <= self.high
            if within and all(abs(self(value) - self(other)) >= gap for other, _ in self.ticks):
                self.ticks.append((value, label))

    def __call__(self, value):
        return self.start + (self.end - self.start) * (self.bend(value) - self.low) / (self.high - self.low)


def frame(x, y, x_label, y_label):
    parts = []
    for value, label in y.ticks:
        parts += [f'<path class="grid" d="M{LEFT} {y(value):.1f}H{RIGHT}"/>',
                  f'<text class="soft" x="{LEFT - 10}" y="{y(value) + 4.5:.1f}" text-anchor="end">{label}</text>']
    for value, label in x.ticks:
        parts += [f'<path class="axis" d="M{x(value):.1f} {BOTTOM}v5"/>',
                  f'<text class="soft" x="{x(value):.1f}" y="{BOTTOM + 21}" text-anchor="middle">{label}</text>']
    middle = (TOP + BOTTOM) / 2
    return [*parts, f'<path class="axis" d="M{LEFT} {BOTTOM}H{RIGHT}"/>',
            f'<text class="soft" x="{(LEFT + RIGHT) / 2}" y="{BOTTOM + 46}" text-anchor="middle">{escape(x_label)}</text>',
            f'<text class="soft" transform="translate(18 {middle}) rotate(-90)" text-anchor="middle">{escape(y_label)}</text>']
