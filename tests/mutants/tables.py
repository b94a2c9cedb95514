"""The tables of mutants: what they say, and whether every edit is possible.

A table (attention.json) has `tests`, which notice its mutants, and `mutants`, each one edit of one source file: `file`,
`old`, which must be there exactly once, `new`, and `why`, its name. A mutant may also have
  by      which of the table's tests notices it, so that this one is tried first (else the table's first);
  sample  true: it is one of the few that are tried where nothing is known to have been green;
  needs   which instructions a processor must have for the broken code to run at all, by their name in /proc/cpuinfo.
          Elsewhere the mutant is left out, and the summary says so.
"""

import dataclasses
import hashlib
import json
import pathlib


def instructions():
    """What the processor has, as Linux names it."""
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("flags"):
            return set(line.split(":")[1].split())
    return set()


def short_hash(content):
    return hashlib.sha256(content).hexdigest()[:16]


@dataclasses.dataclass(frozen=True)
class Mutant:
    table: str
    why: str
    file: str
    old: str
    new: str
    tests: tuple  # the one first that should notice it
    needs: frozenset
    sample: bool
    file_hash: str
    entry_hash: str

    @property
    def name(self):
        return f"{self.table}: {self.why}"

    @property
    def state(self):
        """Stays the same for as long as its edited file and its entry do."""
        return f"{self.file_hash}-{self.entry_hash}"


def read_table(path, root):
    """The table's mutants, and what is wrong with it."""
    table = json.loads(path.read_text())
    mutants, problems, names = [], [], set()
    for entry in table["mutants"]:
        source = root / entry["file"]
        content = source.read_text() if source.is_file() else ""
        if (found := content.count(entry["old"])) != 1:
            problems.append(f"{entry['file']}: expected once, found {found} times: {entry['old']}")
        by = entry.get("by", table["tests"][0])
        if by not in table["tests"]:
            problems.append(f"{entry['why']}: the table has no test {by}")
        if entry["why"] in names:
            problems.append(f"{entry['why']}: two mutants have this name")
        names.add(entry["why"])
        edit = [path.stem, entry["why"], entry["file"], entry["old"], entry["new"], by]
        mutants.append(Mutant(
            table=path.stem, why=entry["why"], file=entry["file"], old=entry["old"], new=entry["new"],
            tests=(by, *(test for test in table["tests"] if test != by)),
            needs=frozenset(entry.get("needs", "").split()), sample=entry.get("sample", False),
            file_hash=short_hash(content.encode()), entry_hash=short_hash(json.dumps(edit).encode())))
    if not any(mutant.sample and not mutant.needs for mutant in mutants):
        problems.append("no mutant that any processor can run is of the sample")
    return mutants, [f"{path.name}: {problem}" for problem in problems]


def read_tables(paths, root):
    """The mutants of all tables; raises ValueError with all that is wrong."""
    mutants, problems = [], []
    for path in paths:
        its, wrong = read_table(pathlib.Path(path), root)
        mutants += its
        problems += wrong
    if problems:
        raise ValueError("\n".join(problems))
    return mutants
