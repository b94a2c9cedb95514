"""Pages of docs/ whose tables a tool writes, between two markers."""

import os
import sys


def markers(command):
    """The two lines of a page between which `./dev COMMAND` puts its tables."""
    return f"<!-- ./dev {command}: begin -->\n", f"<!-- ./dev {command}: end -->\n"


def replace_part(page, command, part):
    """The file is replaced as a whole or not at all."""
    begin, end = markers(command)
    with open(page, encoding="utf-8") as file:
        text = file.read()
    if text.count(begin) != 1 or text.count(end) != 1:
        sys.exit(f"{command}: {page}: expected once each: {begin.strip()} and {end.strip()}")
    before, after = text.split(begin)[0], text.split(end)[1]
    write_whole(page, f"{before}{begin}\n{part}\n{end}{after}")


def write_whole(path, text):
    with open(f"{path}.new", "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(f"{path}.new", path)
