"""tests/mutants: which mutants are due, what the record keeps, and the copy that they are made in."""

import contextlib
import io
import json
import os
import pathlib
import sys
import tempfile
import unittest
from unittest import mock

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "mutants"))
import green
import run
import tables
import workshop


def entry(why, file, old, **more):
    return {"why": why, "file": file, "old": old, "new": old.upper(), **more}


class MutantsCase(unittest.TestCase):
    """A tree with two tables: `one` breaks a.cpp and b.h, `two` breaks b.h alone."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)
        (self.root / "a.cpp").write_text("apple\nberry\n")
        (self.root / "b.h").write_text("cherry\n")
        self.one = {"tests": ["t1", "t2"], "mutants": [
            entry("apple", "a.cpp", "apple", sample=True),
            entry("berry", "a.cpp", "berry", by="t2"),
            entry("cherry", "b.h", "cherry")]}
        self.two = {"tests": ["t2"], "mutants": [
            entry("cherry", "b.h", "cherry", sample=True), entry("rare", "b.h", "erry", needs="no-such-instruction")]}
        self.record = self.root / "kept" / "green.json"

    def mutants(self):
        (self.root / "one.json").write_text(json.dumps(self.one))
        (self.root / "two.json").write_text(json.dumps(self.two))
        return tables.read_tables([self.root / "one.json", self.root / "two.json"], self.root)

    def choose(self, **options):
        return green.choose(self.mutants(), green.read_record(self.record), **options)

    def due(self):
        return [mutant.name for mutant in self.choose().mutants]

    def settle(self, mutants=None, now=None):
        if mutants is None:
            mutants = self.mutants()
        green.write_record(self.record, "abc1234", {mutant.state: mutant.name for mutant in mutants}, now)


class ChoiceTest(MutantsCase):
    def test_without_a_record_the_sample(self):
        choice = self.choose()
        self.assertEqual([mutant.name for mutant in choice.mutants], ["one: apple", "two: cherry"])
        self.assertEqual([mutant.name for mutant in choice.settled], ["one: berry", "one: cherry", "two: rare"])
        self.assertIn("sample", choice.why)

    def test_a_record_that_can_not_be_read_is_none(self):
        self.record.parent.mkdir()
        for text in ["", "[]", "{}", '{"commit": "a", "states": []}']:
            self.record.write_text(text)
            self.assertEqual(self.due(), ["one: apple", "two: cherry"], text)

    def test_nothing_changed(self):
        self.settle()
        self.assertEqual(self.due(), [])
        self.assertEqual(len(self.choose().settled), 5)

    def test_a_changed_file(self):
        self.settle()
        (self.root / "a.cpp").write_text("apple\nberry\nmore\n")
        choice = self.choose()
        self.assertEqual([mutant.name for mutant in choice.mutants], ["one: apple", "one: berry"])
        self.assertEqual([mutant.name for mutant in choice.settled], ["one: cherry", "two: cherry", "two: rare"])
        self.assertIn("2 whose file changed, 0 new or changed themselves, since commit abc1234", choice.why)

    def test_what_was_green_before_is_green_again(self):
        self.settle()
        (self.root / "a.cpp").write_text("apple\nberry\nmore\n")
        self.settle()
        (self.root / "a.cpp").write_text("apple\nberry\n")
        self.assertEqual(self.due(), [])

    def test_a_changed_entry(self):
        self.settle()
        self.one["mutants"][1]["new"] = "other"
        choice = self.choose()
        self.assertEqual([mutant.name for mutant in choice.mutants], ["one: berry"])
        self.assertIn("0 whose file changed, 1 new or changed themselves", choice.why)

    def test_another_test_should_notice_it(self):
        self.settle()
        self.one["mutants"][0]["by"] = "t2"
        self.assertEqual(self.due(), ["one: apple"])

    def test_a_new_entry(self):
        self.settle()
        self.two["mutants"].append(entry("stone", "b.h", "rry"))
        self.assertEqual(self.due(), ["two: stone"])

    def test_being_of_the_sample_changes_nothing(self):
        self.settle()
        self.one["mutants"][2]["sample"] = True
        self.assertEqual(self.due(), [])

    def test_all(self):
        self.settle()
        choice = self.choose(all_of_them=True)
        self.assertEqual(len(choice.mutants), 5)
        self.assertFalse(choice.bounded)

    def test_what_waits_for_longest_comes_first(self):
        mutants = self.mutants()
        self.settle(mutants[:1], now=3e9)
        self.settle(mutants[1:2], now=2e9)
        (self.root / "a.cpp").write_text("apple\nberry\nmore\n")
        (self.root / "b.h").write_text("cherry and more\n")
        self.assertEqual(self.due(), ["one: cherry", "two: cherry", "two: rare", "one: berry", "one: apple"])


class RecordTest(MutantsCase):
    def test_what_was_left_out_stays_due(self):
        mutants = self.mutants()
        self.settle(mutants[:2])
        self.assertEqual(self.due(), ["one: cherry", "two: cherry", "two: rare"])

    def test_what_nobody_asks_for_is_forgotten(self):
        self.settle(now=1e9)
        self.settle(self.mutants()[:1], now=1e9 + (green.KEPT_DAYS + 1) * 86400)
        self.assertEqual(self.due(), ["one: berry", "one: cherry", "two: cherry", "two: rare"])

    def test_where_it_lies(self):
        with mock.patch.dict(os.environ, {"XDG_CACHE_HOME": "/x"}):
            os.environ.pop("GQA_GREEN", None)
            self.assertEqual(green.record_path(), pathlib.Path("/x/gqa/green.json"))
            os.environ["GQA_GREEN"] = "/y/record"
            self.assertEqual(green.record_path(), pathlib.Path("/y/record"))


class TablesTest(MutantsCase):
    def problems(self):
        with self.assertRaises(ValueError) as caught:
            self.mutants()
        return str(caught.exception)

    def test_edits_that_are_not_possible(self):
        self.one["mutants"][1]["file"] = "gone.cpp"
        (self.root / "b.h").write_text("cherry cherry\n")
        self.assertEqual(self.problems().splitlines(), [
            "one.json: gone.cpp: expected once, found 0 times: berry",
            "one.json: b.h: expected once, found 2 times: cherry",
            "two.json: b.h: expected once, found 2 times: cherry",
            "two.json: b.h: expected once, found 2 times: erry"])

    def test_names_tests_and_sample(self):
        self.one["mutants"][1] |= {"by": "t3", "why": "apple"}
        del self.one["mutants"][0]["sample"]
        self.two["mutants"][0]["needs"] = "avx2"
        self.assertEqual(self.problems().splitlines(), [
            "one.json: apple: the table has no test t3", "one.json: apple: two mutants have this name",
            "one.json: no mutant that any processor can run is of the sample",
            "two.json: no mutant that any processor can run is of the sample"])

    def test_the_one_that_should_notice_comes_first(self):
        self.assertEqual([mutant.tests for mutant in self.mutants()],
                         [("t1", "t2"), ("t2", "t1"), ("t1", "t2"), ("t2",), ("t2",)])

    def test_the_tables_of_the_tree(self):
        names = {mutant.name for mutant in run.all_mutants(ROOT / "tests" / "mutants") if mutant.sample}
        for name in ["attention: ignores K", "attention: shifts the causal edge down by one",
                     "approx: merging ignores one LSE"]:
            self.assertIn(name, names)


class WorkshopStandIn:
    """Compiles nothing: tests notice what is not in `blind`, and trying a mutant takes a minute."""

    now, blind = 0, ()
    alone = contextlib.nullcontext

    def __init__(self, root):
        pass

    def demand_sound(self, tests):
        list(tests)

    def try_mutant(self, mutant):
        WorkshopStandIn.now += 60
        return (None, "") if mutant.name in self.blind else (mutant.tests[0], f"{mutant.tests[0]}: X.Y")


class RunTest(MutantsCase):
    """run.py as ctest and .ci/run call it."""

    def setUp(self):
        super().setUp()
        environment = {"GQA_GREEN": str(self.record), "GQA_MUTANTS": ""}
        for patch in [mock.patch.object(run, "ROOT", self.root), mock.patch.dict(os.environ, environment),
                      mock.patch.object(run.time, "monotonic", lambda: WorkshopStandIn.now),
                      mock.patch.object(run, "Workshop", WorkshopStandIn),
                      mock.patch.object(WorkshopStandIn, "blind", ()), mock.patch.object(run, "PATIENCE", 1000)]:
            patch.start()
            self.addCleanup(patch.stop)
        self.out = self.root / "out"

    def run_it(self, *words):
        """The names of those that were tried, and what is said in the end."""
        self.mutants()
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            run.main(self.root, self.out, *words)
        tried = [line.removeprefix("noticed").split("  (")[0].strip() for line in out.getvalue().splitlines()
                 if line.startswith("noticed")]
        return tried, (self.out / "said").read_text()

    def record_it(self):
        run.record(self.out)

    def test_sample_then_what_changes(self):
        tried, said = self.run_it()
        self.assertEqual(tried, ["one: apple", "two: cherry"])
        self.assertIn("2 of 5 tried (a fixed sample", said)
        self.assertIn("1 LEFT OUT, NOT TESTED: this processor lacks no-such-instruction", said)
        self.assertEqual(self.run_it()[0], tried, "a run alone settles nothing")
        self.record_it()
        self.assertEqual(self.run_it()[0], [])
        (self.root / "a.cpp").write_text("apple\nberry\nmore\n")
        tried, said = self.run_it()
        self.assertEqual(tried, ["one: apple", "one: berry"])
        self.assertIn("2 of 5 tried (2 whose file changed", said)

    def test_no_time_for_all(self):
        self.run_it()
        self.record_it()
        (self.root / "a.cpp").write_text("apple\nberry\nmore\n")
        (self.root / "b.h").write_text("cherry and more\n")
        with mock.patch.object(run, "PATIENCE", 61):
            tried, said = self.run_it()
            self.assertEqual(tried, ["one: apple", "one: berry"])
            self.assertIn("2 more are due, NOT TESTED", said)
            self.record_it()
            tried, said = self.run_it()
            self.assertEqual(tried, ["one: cherry", "two: cherry"], "what was left out stays due")
            self.record_it()
        self.assertEqual(self.run_it()[0], [])

    def test_no_bound_for_all_and_for_words(self):
        with mock.patch.object(run, "PATIENCE", 0):
            self.assertEqual(self.run_it("cherry")[0], ["one: cherry", "two: cherry"])
            os.environ["GQA_MUTANTS"] = "all"
            self.assertEqual(len(self.run_it()[0]), 4)

    def test_a_survivor(self):
        self.run_it()
        WorkshopStandIn.blind = ("two: cherry",)
        with self.assertRaises(SystemExit) as caught:
            self.run_it()
        self.assertEqual(caught.exception.code, "1 mutants survived")
        self.assertIn("1 survived", (self.out / "said").read_text())
        with self.assertRaises(SystemExit):
            self.record_it()
        self.assertFalse(self.record.exists())


class CopyTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root, self.tree = pathlib.Path(folder.name, "root"), pathlib.Path(folder.name, "kept", "tree")
        self.files = {"CMakeLists.txt": "a", "src/kv/b.cpp": "b", "src/c.h": "c"}
        self.write(self.root, self.files | {"build/release/x": "", ".git/HEAD": "", "src/__pycache__/y": ""})

    @staticmethod
    def write(folder, files):
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(content)

    def copied(self):
        return {str(path.relative_to(self.tree)): path.read_text() for path in self.tree.rglob("*") if path.is_file()}

    def test_what_is_copied(self):
        workshop.update_copy(self.root, self.tree)
        self.assertEqual(self.copied(), self.files)

    def test_what_is_the_same_keeps_its_time_and_what_is_gone_goes(self):
        workshop.update_copy(self.root, self.tree)
        self.write(self.tree, {"build/release/b.o": "built"})
        for name in self.files:
            os.utime(self.tree / name, (1, 1))
        (self.tree / "src/kv/b.cpp").write_text("a mutant, of a run that was stopped")
        (self.root / "src/c.h").unlink()
        workshop.update_copy(self.root, self.tree)
        self.assertEqual(self.copied(), {"CMakeLists.txt": "a", "src/kv/b.cpp": "b", "build/release/b.o": "built"})
        self.assertEqual((self.tree / "CMakeLists.txt").stat().st_mtime, 1)
        self.assertGreater((self.tree / "src/kv/b.cpp").stat().st_mtime, 1)


if __name__ == "__main__":
    unittest.main()
