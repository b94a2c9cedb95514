"""What `./dev experiments` does without running the program: cells, what is remembered, tables, plots."""

import math
import pathlib
import sys
import tempfile
import types
import unittest
from xml.etree import ElementTree

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import experiment_cells as cells_of  # noqa: E402
import experiment_curves  # noqa: E402
import experiment_plot  # noqa: E402
import experiment_tables  # noqa: E402
from duration import duration  # noqa: E402
from experiment_runs import Results  # noqa: E402

MODEL = cells_of.Model("tales-mha", pathlib.Path("tiny"), 4, (2, 1))


class FakeSetting:
    """Identifies cells by name, and gives each a perplexity of its own."""
    program = "p"

    def identity(self, cell):
        return {"name": cell.name()}


def found(folder, cells):
    results = Results(folder / "found.jsonl")
    for number, cell in enumerate(cells):
        results.add({"key": experiment_tables.key_of({"name": cell.name()}), "model": cell.model.name,
                     "kv_heads": cell.kv_heads, "kv_bytes": 100 * cell.kv_heads, "ppl": 6 + number,
                     "nll": math.log(6 + number), "kl": 0.5, "top1": 0.5,
                     "tokens": 1000, "cpu_seconds": 1.5, "peak_bytes": 2e6, "program": "p", "machine": "<m>",
                     "threads": 2, "isa": "i", "version": "0", "seed": cell.seed})
    return experiment_tables.Found(FakeSetting(), Results(folder / "found.jsonl"), [MODEL], cells)


class Experiments(unittest.TestCase):
    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory()
        self.folder = pathlib.Path(self.temporary.name)
        self.cells = cells_of.all_cells([MODEL])

    def tearDown(self):
        self.temporary.cleanup()

    def test_every_cell_has_a_name_and_options_of_its_own(self):
        texts = {name: pathlib.Path(name) for name in ("calibration", "tinyshakespeare", "wikitext2-valid")}
        converted = [cell for cell in self.cells if cell.method]
        self.assertEqual(len({cell.name() for cell in self.cells}), len(self.cells))
        self.assertEqual(len({tuple(cell.options(texts)) for cell in converted}), len(converted))
        self.assertIsNone(next(c for c in converted if c.method.text == "tinyshakespeare").options({}))

    def test_lines_are_parted_into_calibration_and_held_out(self):
        texts = cells_of.find_texts(ROOT, self.folder, self.folder)
        parts = [texts[name].read_text("utf-8") for name in ("calibration", "held-out")]
        self.assertEqual("".join(parts), (ROOT / "models/tales-mha/heldout.txt").read_text("utf-8"))
        self.assertEqual(set(texts), {"calibration", "held-out"})

    def test_a_torn_line_costs_itself_alone(self):
        path = self.folder / "found.jsonl"
        Results(path).add({"key": "a", "ppl": 1})
        with open(path, "a", encoding="utf-8") as file:
            file.write('{"key": "b", "pp')
        Results(path).add({"key": "c", "error": "no"})
        Results(path).add({"key": "d", "ppl": 2})
        again = Results(path)
        self.assertEqual([bool(again.good(key)) for key in "abcd"], [True, False, False, True])

    def test_tables_know_seeds_groups_of_all_and_what_is_missing(self):
        some = found(self.folder, self.cells)
        self.assertNotIn(experiment_tables.UNKNOWN, experiment_tables.overview_table(some))
        self.assertEqual(len(some.values((MODEL, 2), "random", "neighbour")), 3)
        self.assertEqual(some.values((MODEL, 1), "mean", "neighbour"), some.values((MODEL, 1), "mean", "similarity"))
        self.assertEqual(experiment_tables.report(some).count(experiment_tables.UNKNOWN), 2)  # neighbours, and the legend
        self.assertRegex(experiment_tables.learned_table(some), r"learned \|[^–]*\n[^–]*2 \|[^–]*$")
        self.assertNotIn(" 1 |", experiment_tables.learned_table(some))
        low, middle, high = sorted(some.values((MODEL, 2), "text-only", "neighbour"))
        self.assertIn(f"**{middle:.3f}** ({low:.3f} to {high:.3f})", experiment_tables.learned_table(some))
        nothing = experiment_tables.Found(FakeSetting(), Results(self.folder / "none"), [MODEL], self.cells)
        self.assertIn("Nothing is measured", experiment_tables.report(nothing))
        self.assertEqual(experiment_tables.ppl_cells([3.0, None, 2.0]), ["3.00", "–", "**2.00**"])

    def test_plots_are_xml_with_a_line_for_each_method(self):
        picture = ElementTree.fromstring(experiment_plot.plot(found(self.folder, self.cells), MODEL))
        lines = [e for e in picture.iter() if e.get("class", "").startswith("line")]
        self.assertEqual(len(lines), len(experiment_plot.SERIES))
        self.assertIsNone(experiment_plot.plot(found(self.folder / "none", []), MODEL))

    def test_curves_join_what_is_measured(self):
        whole = found(self.folder, self.cells)
        for plot, lines in (experiment_curves.time_plot, 2), (experiment_curves.length_plot, 2):
            root = ElementTree.fromstring(plot(whole))
            paths = [e for e in root.iter("{http://www.w3.org/2000/svg}path") if e.get("class", "").startswith("line")]
            self.assertEqual(len(paths), lines)
        (self.folder / "other").mkdir()
        some = found(self.folder / "other", [cell for cell in self.cells if not cell.method])
        self.assertIsNone(experiment_curves.time_plot(some))
        self.assertIsNone(experiment_curves.length_plot(some))

    def test_labels_keep_their_order_and_their_distance(self):
        for wanted in ([50, 51, 52], [0, 0, 0, 90], [99, 98, 100], [10, 60]):
            places = experiment_plot.spread(wanted, 0, 100, 17)
            in_order = sorted(places)
            self.assertTrue(all(b - a > 16.99 for a, b in zip(in_order, in_order[1:])), places)
            self.assertTrue(0 <= in_order[0] and in_order[-1] <= 100, places)
        self.assertEqual(experiment_plot.spread([10, 60], 0, 100, 17), [10, 60])

    def test_durations_are_for_people(self):
        self.assertEqual([duration(s) for s in (5, 600, 7300)], ["5 s", "10 min", "2 h 02 min"])


if __name__ == "__main__":
    unittest.main()
