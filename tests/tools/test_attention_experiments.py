"""What `./dev experiments attention` does without running models: cells, what is kept, tables, sentences, plots."""

import pathlib
import sys
import tempfile
import types
import unittest
from xml.etree import ElementTree

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import attention_cells as cells_of  # noqa: E402
import attention_plot  # noqa: E402
import attention_speed  # noqa: E402
import attention_tables  # noqa: E402
import attention_topic  # noqa: E402
from experiment_cells import Model  # noqa: E402
from experiment_runs import Failed, Results, key_of  # noqa: E402

MODEL = Model("tales-mha", pathlib.Path("tiny"), 4, (2, 1))
CELLS = cells_of.all_cells([MODEL], {MODEL.name: 8}, 2)
COMMON = {"program": "p", "machine": "<m>", "isa": "i", "version": "0", "keys_read_share": 0.25}
SPEEDUPS = {"topk": (2, 3, 4), "topp": (0.5, 0.9, 1.5), "lowrank": (0.5, 0.6, 0.7), "dynamic": (2, 1.5, 0.8),
            "window": (3, 0.9, 2)}


def record(cell, number, speedup):
    """Figures as the program would give them, each setting with its own."""
    r = {**COMMON, **{name: getattr(cell, name) for name in ("part", "spec", "family", "needles", "kv_len", "threads")},
         "kv_bytes_share": 0.1 + number % 7 / 10}
    if cell.part == "quality":
        nll = 1.5 if cell.spec == "exact" else 1.5 + number % 5 / 100
        return {**r, "model": cell.model.name, "nll": nll, "ppl": 4.5, "tokens": 1000, "context": 512}
    if cell.part == "recall":
        return {**r, "recall": number % 10 / 10, "exact_recall": 1.0, "chance": 1 / 64}
    return {**r, "ms_median": 1, "exact_ms_median": speedup, "speedup": speedup, "select_share": 0.5, "repeats": 3,
            "output_error": None, "bandwidth_fraction": 0.5, "short_of_cores": number % 2 == 0, "q_heads": 32,
            "kv_heads": 8, "head_dim": 128, "kv_dtype": "f16"}


def speed_of(cell):
    lengths = {"decode": cells_of.DECODE_LENGTHS, "prefill": cells_of.PREFILL_LENGTHS}.get(cell.part)
    return lengths and SPEEDUPS.get(cell.family, (2, 2, 2))[lengths.index(cell.kv_len)]


class AttentionExperiments(unittest.TestCase):
    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory()
        self.folder = pathlib.Path(self.temporary.name)

    def tearDown(self):
        self.temporary.cleanup()

    def found(self, cells=CELLS, known=None):
        topic = types.SimpleNamespace(program="p", identity=lambda cell: {"name": cell.name()})
        results = Results(self.folder / f"found-{len(list(self.folder.iterdir()))}.jsonl")
        for number, cell in enumerate(cells if known is None else known):
            results.add({"key": key_of({"name": cell.name()}), **record(cell, number, speed_of(cell))})
        return attention_tables.Found(topic, results, [MODEL], cells)

    def test_every_cell_is_another_one_and_every_family_is_in_every_part(self):
        self.assertEqual(len({cell.name() for cell in CELLS}), len(CELLS))
        plain = set(cells_of.FAMILIES) - {"lowrank, calibrated"}
        for part in ("recall", "decode", "prefill"):
            self.assertEqual({cell.family for cell in CELLS if cell.part == part}, plain, part)
        self.assertEqual({cell.family for cell in CELLS if cell.part == "quality"}, {*cells_of.FAMILIES, "exact"})

    def test_what_is_timed_is_also_looked_up_in_recall(self):
        self.assertLessEqual({spec(cells_of.RECALL_LENGTH) for spec in cells_of.TIMED.values()}, set(cells_of.recall_specs()))

    def test_quick_has_every_part_and_is_short(self):
        quick = [cell for cell in CELLS if cells_of.is_quick(cell)]
        self.assertEqual({cell.part for cell in quick}, {"quality", "recall", "decode", "prefill"})
        self.assertTrue(all(cell.kv_len <= 16384 and not cell.long for cell in quick))

    def test_a_text_is_cut_after_a_whole_line(self):
        self.assertEqual(attention_topic.beginning("ä\nb\nc\n", 6), "ä\nb\n")
        self.assertEqual(attention_topic.beginning("ab", 6), "ab")

    def test_an_answer_without_its_figure_is_an_error(self):
        cell = next(cell for cell in CELLS if cell.part == "decode")
        with self.assertRaisesRegex(Failed, "no speedup"):
            attention_topic.figures(cell, {"speedup": None})
        exact = attention_topic.figures(CELLS[0], {"nll": 1.5})
        self.assertEqual((CELLS[0].spec, exact["kv_bytes_share"]), ("exact", 1.0))

    def test_sentences_follow_from_the_figures(self):
        text = attention_speed.sentence(self.found(), "decode")
        never, other = text.split("never pay")[1], text.split("not at the longest: ")[1].split(". ")[0]
        self.assertIn("lowrank (at best 0.70 times exact's speed, at 131,072 keys)", never)
        self.assertNotIn("topk", never)
        self.assertIn("dynamic (0.80", other)
        self.assertIn("`topk:128`, 4.00 times as fast", text)
        paying = [cell for cell in CELLS if cell.part != "decode" or cell.family == "topk"]
        self.assertNotIn("these never pay", attention_speed.sentence(self.found(paying), "decode"))

    def test_it_pays_from_where_all_longer_ones_do(self):
        found = self.found()
        starts = {v.family: v.pays_from() for v in attention_speed.variants(found, "decode")}
        self.assertEqual([starts[family] for family in ("topk", "topp", "window", "lowrank", "dynamic")],
                         [8192, 131072, 131072, None, None])
        rows = {line.split(" | ")[0][2:]: line for line in attention_speed.pay_table(found).splitlines()}
        self.assertIn("never (at most 0.70", rows["lowrank"])
        self.assertIn("not at 131,072 (0.80", rows["dynamic"])

    def test_budgets_choose_the_least_loss_that_fits(self):
        found = self.found()
        for family, records in found.curves(MODEL):
            fit = [r for r in records if r["kv_bytes_share"] <= 0.5]
            if fit:
                best = min(fit, key=lambda r: r["nll"])
                row = next(line for line in attention_tables.quality_table(found, MODEL).splitlines()
                           if line.startswith(f"| {family} |"))
                self.assertIn(f"(`{best['spec']}`)", row.split(" | ")[2])

    def test_pages_say_what_is_missing(self):
        self.assertIn("Nothing is measured", attention_tables.report(self.found(CELLS, [])))
        some = [cell for cell in CELLS if cell.part == "quality" and cell.spec in ("exact", "topk:4")]
        self.assertIn(f"{len(CELLS) - 2} cells are not measured", attention_tables.report(self.found(CELLS, some)))
        self.assertNotIn("not measured", attention_tables.report(self.found()))

    def test_plots_are_xml_with_a_line_for_each_family(self):
        pictures = attention_plot.plots(self.found())
        self.assertEqual(len(pictures), 6)
        for name, text in pictures.items():
            lines = [e for e in ElementTree.fromstring(text).iter() if e.get("class", "").startswith("line")]
            self.assertEqual(len(lines), 9 if MODEL.name in name else 8, name)
        self.assertTrue(all(picture is None for picture in attention_plot.plots(self.found(CELLS, [])).values()))

    def test_fronts_keep_what_nothing_beats(self):
        self.assertEqual(attention_plot.front([(3, 1), (1, 5), (2, 5), (2, 3), (4, 2)]), [(1, 5), (2, 3), (3, 1)])


if __name__ == "__main__":
    unittest.main()
