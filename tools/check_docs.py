#!/usr/bin/env python3
"""Holds the documentation against the tree.

- Every relative link of a Markdown page leads to a file, and its anchor to a heading.
- README, HACKING, docs/architecture.md and docs/design name only files, folders, functions and members that exist.
- docs/architecture.svg is drawn from cmake/layers.json as it is, and HACKING stays as short as a tour has to be.

usage: check_docs.py
"""

import fnmatch
import pathlib
import re
import sys

import draw_layers

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGES = ("*.md", "docs/**/*.md", "models/*/*.md")
NAMING = ("README.md", "HACKING.md", "docs/architecture.md", "docs/design/*.md")
HACKING_BYTES = 12_000

FOLDERS = ("cli", "cmake", "docs", "examples", "include", "models", "src", "tests", "tools")
ENDINGS = "cpp|h|py|json|md|cmake|in|svg|sh"
# `src/a/b.cpp`, `tests/unit/approx_*`, `kernels/` and `file.cpp`; in prose, in code, in a command.
PATH = re.compile(rf"(?<![\w/.:~$-])(?:\./)?((?:[\w.*-]+/)+[\w.*-]*|[\w*-]+(?:\.[\w*-]+)*\.(?:{ENDINGS}))(?![\w/])")
CODE = re.compile(r"`([^`\n]+)`")
# `Tile::attend_block()`, `attend()`, `Table::dense`
MEMBER = re.compile(r"(?:gqa::)?((?:\w+::)*\w+)(\(\))?")
LINK = re.compile(r"!?\[[^\]\n]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)

# Looks like a file of ours: a project's name; what the program writes.
NOT_OURS = {"llama.cpp", "gqa_recipe.json"}


class Checker:
    def __init__(self, root):
        self.root = root
        files = [path for path in root.iterdir() if path.is_file()]
        for folder in FOLDERS:
            files += [path for path in (root / folder).rglob("*") if path.is_file()]
        self.names = {path.name for path in files}
        self.words = set()
        for path in files:
            if path.suffix in (".h", ".cpp", ".py"):
                self.words.update(re.findall(r"\w+", path.read_text("utf-8")))
        self.anchors = {}
        self.problems = []

    def report(self, page, message):
        self.problems.append(f"{page.relative_to(self.root)}: {message}")

    def run(self):
        for page in sorted({page for pattern in PAGES for page in self.root.glob(pattern)}):
            self.check_links(page)
        for page in sorted({page for pattern in NAMING for page in self.root.glob(pattern)}):
            self.check_names(page)
        hacking = self.root / "HACKING.md"
        if hacking.exists() and hacking.stat().st_size > HACKING_BYTES:
            self.report(hacking, f"{hacking.stat().st_size} bytes, at most {HACKING_BYTES}: reasons go to docs/design")
        return self.problems

    def check_links(self, page):
        text = CODE.sub("", FENCE.sub("", page.read_text("utf-8")))
        for link in LINK.findall(text):
            if re.match(r"[a-z]+:", link):
                continue
            name, _, anchor = link.partition("#")
            target = page.parent / name if name else page
            if not target.exists():
                self.report(page, f"a link leads nowhere: {link}")
            elif anchor and anchor not in self.anchors_of(target):
                self.report(page, f"a link leads to no heading: {link}")

    def anchors_of(self, page):
        """As GitHub makes them of headings."""
        if page not in self.anchors:
            found = set()
            for title in re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text("utf-8")), re.MULTILINE):
                title = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).strip().lower()
                slug = base = re.sub(r"[^\w\- ]", "", title).replace(" ", "-")
                number = 0
                while slug in found:
                    number += 1
                    slug = f"{base}-{number}"
                found.add(slug)
            self.anchors[page] = found
        return self.anchors[page]

    def check_names(self, page):
        text = LINK.sub("", page.read_text("utf-8"))
        for name in sorted(set(PATH.findall(text))):
            if not self.is_path(name):
                self.report(page, f"no such file or folder: {name}")
        for code in sorted(set(CODE.findall(FENCE.sub("", text)))):
            member = MEMBER.fullmatch(code)
            if not member or not ("::" in code or member[2]):
                continue
            for word in member[1].split("::"):
                if word not in self.words:
                    self.report(page, f"no such function or member: {code}")

    def is_path(self, name):
        """Whether a name is a path of the tree, from its root, from src or from include, or a file's own name. What
        begins with none of these folders and ends as no source does is something else: GB/s, 32/8."""
        if "/" not in name:
            return name in NOT_OURS or bool(fnmatch.filter(self.names, name))
        first = name.split("/")[0]
        if first == "build":
            return True
        homes = [home for home in (self.root, self.root / "src", self.root / "include") if (home / first).is_dir()]
        if not homes:
            return not re.search(rf"\.(?:{ENDINGS})$", name)
        return any(any(home.glob(name.rstrip("./"))) for home in homes)


def main():
    problems = Checker(ROOT).run()
    picture = draw_layers.problem(ROOT)
    if picture:
        problems.append(picture)
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
