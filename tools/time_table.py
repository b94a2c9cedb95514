#!/usr/bin/env python3
"""Where the time of a run of tests went, by group.

usage: time_table.py tests TIMES JUNIT [GROUP]   adds what ctest's --output-junit says of each test to TIMES;
                                                 GROUP: of all of them, in place of what their names say
       time_table.py table TIMES SECONDS         the table, of a run that took so long

TIMES has a line for each step: group, name and seconds, with tabs between them. ./dev writes lines of its own there.
"""

import dataclasses
import pathlib
import sys
import xml.etree.ElementTree

# Names of tests begin with their group; others are unit tests.
PREFIXES = {"cli_": "cli", "install_": "install", "peers_": "peers", "mutants": "mutants"}


@dataclasses.dataclass(frozen=True)
class Step:
    group: str
    name: str
    seconds: float


def group_of(test):
    return next((group for prefix, group in PREFIXES.items() if test.startswith(prefix)), "unit")


def read_junit(text, group=None):
    """The tests that ran; those that were left out or skipped took no time."""
    for case in xml.etree.ElementTree.fromstring(text).iter("testcase"):
        if case.get("status") in ("run", "fail"):
            yield Step(group or group_of(case.get("name")), case.get("name"), float(case.get("time")))


def read_steps(text):
    for line in text.splitlines():
        group, name, seconds = line.split("\t")
        yield Step(group, name, float(seconds))


def clock(seconds):
    return f"{int(seconds + 0.5) // 60}:{int(seconds + 0.5) % 60:02}"


def table(steps, seconds):
    """Rows in the order in which groups appear first; of several tests, how many and which took longest."""
    groups = {}
    for step in steps:
        groups.setdefault(step.group, []).append(step)
    width = max([len(group) for group in groups] + [len("where the time went")])
    lines = [f"{'where the time went':<{width}}  min:sec"]
    for group, its in groups.items():
        line = f"  {group:<{width - 2}}  {clock(sum(step.seconds for step in its)):>7}"
        if len(its) > 1:
            longest = max(its, key=lambda step: step.seconds)
            line += f"  {len(its)} steps, {longest.name} took longest: {clock(longest.seconds)}"
        lines.append(line)
    lines.append(f"{'on the clock':<{width}}  {clock(seconds):>7}  (tests run side by side; above, each counts in full)")
    return "\n".join(lines)


def main(verb, times, *rest):
    times = pathlib.Path(times)
    if verb == "tests":
        junit, *group = rest
        with times.open("a") as out:
            for step in read_junit(pathlib.Path(junit).read_text("utf-8"), *group):
                out.write(f"{step.group}\t{step.name}\t{step.seconds}\n")
    elif verb == "table":
        print(table(read_steps(times.read_text()) if times.is_file() else [], float(rest[0])))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
