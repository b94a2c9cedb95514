"""tools/time_table.py: from ctest's report to the table."""

import contextlib
import io
import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))
import time_table

JUNIT = """<?xml version="1.0" encoding="UTF-8"?>
<testsuite name="x" tests="6">
  <testcase name="attend_test" classname="attend_test" time="59.6" status="run"><system-out>&lt;</system-out></testcase>
  <testcase name="kv_walk_test" classname="kv_walk_test" time="1.5" status="fail"><failure message=""/></testcase>
  <testcase name="cli_test_bench" classname="cli_test_bench" time="8" status="run"/>
  <testcase name="peers_test_gguf" classname="peers_test_gguf" time="0.02" status="notrun"/>
  <testcase name="bench_test:Bench*" classname="x" time="0" status="disabled"/>
  <testcase name="mutants" classname="mutants" time="130.2" status="run"/>
</testsuite>
"""


class TimeTableTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.times = pathlib.Path(folder.name, "times")
        self.junit = pathlib.Path(folder.name, "ctest.xml")
        self.junit.write_text(JUNIT)

    def table(self, seconds):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            time_table.main("table", self.times, seconds)
        return [line.split() for line in out.getvalue().splitlines()]

    def test_groups_in_the_order_of_the_run(self):
        self.times.write_text("build\trelease\t600.4\n")
        time_table.main("tests", self.times, self.junit)
        rows = self.table("725")
        self.assertEqual(rows[0], ["where", "the", "time", "went", "min:sec"])
        self.assertEqual([row[:2] for row in rows[1:5]],
                         [["build", "10:00"], ["unit", "1:01"], ["cli", "0:08"], ["mutants", "2:10"]])
        self.assertEqual(" ".join(rows[2][2:]), "2 steps, attend_test took longest: 1:00")
        self.assertEqual(rows[5][:4], ["on", "the", "clock", "12:05"])
        self.assertEqual(len(rows), 6)

    def test_a_group_of_its_own(self):
        time_table.main("tests", self.times, self.junit, "arm tests")
        rows = self.table("1")
        self.assertEqual(rows[1][:5], ["arm", "tests", "3:19", "4", "steps,"])
        self.assertEqual(len(rows), 3)

    def test_nothing_ran(self):
        self.assertEqual(self.table("0")[1][:4], ["on", "the", "clock", "0:00"])


if __name__ == "__main__":
    unittest.main()
