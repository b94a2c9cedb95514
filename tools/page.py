"""Pages of docs/results whose tables a tool writes, between two markers."""

import os
import re
import sys


def markers(command):
    """The two lines of a page between which `./dev COMMAND` puts its tables."""
    return f"<!-- ./dev {command}: begin -->\n", f"<!-- ./dev {command}: end -->\n"


def replace_part(page, command, part):
    """The file is replaced as a whole or not at all."""
    write_whole(page, replaced(page, read(page), command, part))


def put_part(page, command, name, part):
    """One of several parts that a command writes: where it was, or after the last one; likewise as a whole."""
    text = read(page)
    begin, end = markers(f"{command} {name}")
    if begin not in text:
        ends = list(re.finditer(rf"^<!-- \./dev {command} \S+: end -->\n", text, re.MULTILINE))
        if not ends:
            sys.exit(f"{command}: {page}: expected the part of some name, as in {begin.strip()}")
        after = ends[-1].end()
        text = f"{text[:after]}\n{begin}{end}{text[after:]}"
    write_whole(page, replaced(page, text, f"{command} {name}", part))


def replaced(page, text, command, part):
    """The text of a page with another part between a command's markers."""
    begin, end = markers(command)
    if text.count(begin) != 1 or text.count(end) != 1:
        sys.exit(f"{command}: {page}: expected once each: {begin.strip()} and {end.strip()}")
    before, after = text.split(begin)[0], text.split(end)[1]
    return f"{before}{begin}\n{part}\n{end}{after}"


def read(page):
    with open(page, encoding="utf-8") as file:
        return file.read()


def write_whole(path, text):
    with open(f"{path}.new", "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(f"{path}.new", path)
