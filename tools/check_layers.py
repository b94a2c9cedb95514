#!/usr/bin/env python3
"""Holds includes, link lists and file lengths against cmake/layers.json.

The table says which layer (folder of src/, and cli) may use which, which public header
(include/gqa) belongs to which layer, and which layer may include or link which outside library;
of some, in which files alone: those whose headers take long to compile.
"""

import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


class Checker:
    def __init__(self, root):
        self.root = root
        table = json.loads((root / "cmake/layers.json").read_text())
        self.layers = table["layers"]
        self.outside = table["outside"]
        self.max_lines = table["max_lines"]
        self.long_files = table["long_files"]
        self.owner = {h: name for name, layer in self.layers.items() for h in layer["headers"]}
        self.problems = []

    def report(self, where, message):
        self.problems.append(f"{where}: {message}")

    def run(self):
        self.check_table()
        for path in sorted(self.root.glob("include/gqa/*.h")):
            self.check_file(path, self.owner.get(path.name), public=True)
        for name in self.layers:
            folder = self.root / ("cli" if name == "cli" else f"src/{name}")
            for path in sorted([*folder.rglob("*.h"), *folder.rglob("*.cpp")]):
                self.check_file(path, name, public=False)
        self.check_links()
        return self.problems

    def check_table(self):
        """Layers stand bottom-up, so there is no cycle; files and table name the same things."""
        seen = set()
        for name, layer in self.layers.items():
            for used in layer["uses"]:
                if used not in seen:
                    self.report(
                        "cmake/layers.json", f"{name} uses {used}, which is not listed above it"
                    )
            if not layer.get("what"):
                self.report("cmake/layers.json", f"{name}: no `what`, a phrase for docs/architecture.svg")
            seen.add(name)
        folders = {p.name for p in (self.root / "src").iterdir() if p.is_dir()} | {"cli"}
        for name in sorted(folders ^ set(self.layers)):
            self.report(
                "cmake/layers.json", f"layer {name}: a folder without a line here, or the reverse"
            )
        headers = {p.name for p in self.root.glob("include/gqa/*.h")}
        for name in sorted(headers ^ set(self.owner)):
            self.report(
                "cmake/layers.json", f"header {name}: a file without a layer here, or the reverse"
            )

    def check_file(self, path, layer, public):
        where = path.relative_to(self.root)
        lines = path.read_text(encoding="utf-8").splitlines()
        if len(lines) > self.max_lines and str(where) not in self.long_files:
            self.report(where, f"{len(lines)} lines; at most {self.max_lines}")
        for number, line in enumerate(lines, 1):
            match = INCLUDE.match(line)
            if match and layer:
                message = self.judge(match[1] == '"', match[2], layer, public, str(where))
                if message:
                    self.report(f"{where}:{number}", f"{message}: {line.strip()}")

    def judge(self, quoted, header, layer, public, where):
        """What is wrong with a layer including a header; none where nothing is."""
        folder, _, rest = header.partition("/")
        ours = folder == "gqa" or folder in self.layers or not rest
        if not quoted or not ours:  # "hwy/highway.h": Highway's own way of writing it
            return self.judge_outside(header, layer, public, where)
        if not rest:
            return 'a header is included by its folder ("core/fail.h")'
        allowed = {layer, *self.layers[layer]["uses"]}
        if folder == "gqa":
            owner = self.owner.get(rest)
            allowed |= set(self.layers[layer].get("types_of", []))  # a header's types, not its code
            return (
                None if owner in allowed else f"{layer} may not use {owner}, whose header this is"
            )
        if public:
            return "a public header includes public headers alone"
        if self.layers[layer].get("public_only") and folder != layer:
            return f"{layer} uses public headers alone"
        return None if folder in allowed else f"{layer} may not use {folder}"

    def judge_outside(self, header, layer, public, where):
        if "." not in header and "/" not in header:
            return None  # the standard library
        if public:
            return "a public header includes the standard library alone"
        for name, library in self.outside.items():
            if any(
                header == h or (h.endswith("/") and header.startswith(h))
                for h in library["headers"]
            ):
                if layer not in library["layers"]:
                    return f"{layer} may not use {name}"
                files = library.get("only_in", {}).get(layer, [where])
                return None if where in files else f"{name} is for {', '.join(files)} alone"
        return "not in the table"

    def check_links(self):
        """Every gqa_layer(NAME ... USES ... LIBS ...) and target_link_libraries(gqa_NAME ...)."""
        where = "src/CMakeLists.txt"
        text = re.sub(r"#.*", "", (self.root / where).read_text())
        for call in re.findall(r"^ *gqa_layer\(([^)]*)\)", text, re.M):
            name, *words = call.split()
            section = None
            for word in words:
                if word in ("SOURCES", "USES", "LIBS"):
                    section = word
                elif section == "USES":
                    self.check_link(where, name, f"gqa_{word}")
                elif section == "LIBS":
                    self.check_link(where, name, word)
        cli = re.sub(r"#.*", "", (self.root / "cli/CMakeLists.txt").read_text())
        for file, content in ((where, text), ("cli/CMakeLists.txt", cli)):
            for call in re.findall(r"^ *target_link_libraries\((gqa\w* [^)]*)\)", content, re.M):
                target, *words = call.split()
                name = "cli" if target == "gqa" else target.removeprefix("gqa_")
                for word in words:
                    if word not in ("PUBLIC", "PRIVATE", "INTERFACE"):
                        self.check_link(file, name, word)

    def check_link(self, where, name, library):
        if name not in self.layers:
            self.report(where, f"layer {name} is not in cmake/layers.json")
        elif library.startswith("gqa_"):
            if library.removeprefix("gqa_") not in self.layers[name]["uses"]:
                self.report(where, f"{name} may not link {library}")
        elif not any(
            library in o["libraries"] and name in o["layers"] for o in self.outside.values()
        ):
            self.report(where, f"{name} may not link {library}")


def main():
    problems = Checker(ROOT).run()
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
