#!/usr/bin/env python3
"""Draws cmake/layers.json as docs/architecture.svg.

usage: draw_layers.py [--check]

Needs graphviz (`dot`) to draw. --check needs nothing: it says whether the picture was drawn from what the table says
now, by the hash that is written into it.
"""

import hashlib
import json
import pathlib
import re
import subprocess
import sys
import textwrap

ROOT = pathlib.Path(__file__).resolve().parent.parent
TABLE, PICTURE = "cmake/layers.json", "docs/architecture.svg"
MARK = "drawn by tools/draw_layers.py from "

# A library that so many layers use says nothing about any of them.
EVERYWHERE = 6
FONT = "DejaVu Sans,Verdana,sans-serif"

# Colours by class, so that the picture is readable on dark pages, too.
STYLE = """<style>
.node polygon, .node path { fill: #eef3fb; stroke: #5b7db1; }
.inside polygon, .inside path { fill: #f5f5f2; stroke: #9a9a90; }
.edge path { stroke: #8a94a6; fill: none; }
.edge polygon { stroke: #8a94a6; fill: #8a94a6; }
text { fill: #1d2733; }
@media (prefers-color-scheme: dark) {
.node polygon, .node path { fill: #1f2b3d; stroke: #6f93c9; }
.inside polygon, .inside path { fill: #2a2a28; stroke: #8a8a80; }
text { fill: #e4e9f0; }
}
</style>
"""


def reduced(uses):
    """The arrows that are needed: a layer's own ones, but for what it reaches by way of another."""
    reach = {}
    for name, used in uses.items():  # bottom-up, as check_layers.py demands
        reach[name] = set(used).union(*(reach[other] for other in used))
    return {name: [other for other in used if not any(other in reach[way] for way in used)]
            for name, used in uses.items()}


def even_lines(text, most=33):
    """As few lines as that many characters allow, and these about equally long."""
    def wrap(width):
        return textwrap.wrap(text, width, break_long_words=False)

    return next(lines for width in range(1, most + 1) if len(lines := wrap(width)) == len(wrap(most)))


def label(name, layer, libraries):
    lines = [f'<tr><td><font point-size="15"><b>{name}</b></font></td></tr>']
    lines += [f'<tr><td><font point-size="11">{line}</font></td></tr>' for line in even_lines(layer.get("what", ""))]
    if libraries:
        lines.append(f'<tr><td><font point-size="10"><i>{", ".join(libraries)}</i></font></td></tr>')
    return f'<<table border="0" cellborder="0" cellspacing="0" cellpadding="1">{"".join(lines)}</table>>'


def dot_source(table):
    layers = table["layers"]
    # Layers whose headers' types alone are used stand as if they were used.
    uses = {name: layer["uses"] + [other for other in layer.get("types_of", []) if other in layers]
            for name, layer in layers.items()}
    order = sorted(layers, key=lambda name: name == "reference")  # it comes before what it takes types of
    arrows = reduced({name: uses[name] for name in order})
    lines = ["digraph layers {", '  rankdir="TB"; nodesep="0.28"; ranksep="0.32";',
             f'  node [shape="box", style="rounded", fontname="{FONT}", margin="0.12,0.07"];',
             '  edge [arrowsize="0.6"];']
    for name in order:
        some = [library for library, about in table["outside"].items()
                if name in about["layers"] and len(about["layers"]) < EVERYWHERE and about["libraries"]]
        kind = "public" if layers[name]["headers"] or name == "cli" else "inside"
        lines.append(f'  {name} [class="{kind}", label={label(name, layers[name], some)}];')
    lines += [f"  {name} -> {other};" for name in order for other in arrows[name]]
    return "\n".join([*lines, "}"]) + "\n"


def mark(source):
    return f"<!-- {MARK}{TABLE}: {hashlib.sha256((source + STYLE).encode()).hexdigest()} -->\n"


def draw(source):
    """The SVG, without what depends on graphviz's version, with colours of ours."""
    done = subprocess.run(["dot", "-Tsvg"], input=source, stdout=subprocess.PIPE, text=True, check=True)
    svg = done.stdout[done.stdout.index("<svg"):]
    svg = re.sub(r"<!--.*?-->\n", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(?m)^<polygon fill="white" stroke="(?:transparent|none)".*\n', "", svg, count=1)  # the page's own colour
    head, rest = svg.split(">", 1)
    return f"{mark(source)}{head}>\n<title>The layers of gqa</title>\n{STYLE}{rest.lstrip()}"


def problem(root=ROOT):
    """What is wrong with the picture; none where it is up to date."""
    source = dot_source(json.loads((root / TABLE).read_text("utf-8")))
    picture = root / PICTURE
    if picture.exists() and picture.read_text("utf-8").startswith(mark(source)):
        return None
    return f"{PICTURE}: not drawn from {TABLE} as it is now: apt-get install graphviz; tools/draw_layers.py"


def main():
    if sys.argv[1:] == ["--check"]:
        wrong = problem()
        if wrong:
            print(wrong, file=sys.stderr)
        return 1 if wrong else 0
    if len(sys.argv) > 1:
        sys.exit(__doc__)
    source = dot_source(json.loads((ROOT / TABLE).read_text("utf-8")))
    (ROOT / PICTURE).write_text(draw(source), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
