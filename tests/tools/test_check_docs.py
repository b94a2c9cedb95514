"""What `./dev lint` notices in the documentation."""

import json
import pathlib
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import draw_layers  # noqa: E402
from check_docs import HACKING_BYTES, Checker  # noqa: E402

TABLE = {"layers": {"core": {"what": "dtypes", "uses": [], "headers": ["a.h"]},
                    "kv": {"what": "the cache", "uses": ["core"], "headers": []},
                    "attention": {"what": "attend()", "uses": ["core", "kv"], "headers": []}},
         "outside": {}}


class CheckDocs(unittest.TestCase):
    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory()
        self.root = pathlib.Path(self.temporary.name)
        self.write("src/kv/pages.h", "struct Page { int64_t first; };\nvoid claim(int n);\n")
        self.write("docs/guide/words.md", "# Words\n\n## What changes nothing, `x`\n\n## Cache\n\n## Cache\n")

    def tearDown(self):
        self.temporary.cleanup()

    def write(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")

    def problems(self, text, page="HACKING.md"):
        self.write(page, text)
        found = Checker(self.root).run()
        (self.root / page).unlink()
        return found

    def test_what_exists_passes(self):
        self.assertEqual(self.problems(
            "`pages.h`, `kv/pages.h`, src/kv/pages.h, `src/kv/`, `src/kv/p*`, `Page::first`, `claim()`, 40 GB/s, 32/8 heads,\n"
            "llama.cpp, `build/release/gqa`, `~/.cache/x.json`, https://example.org/a/b.md, `HACKING.md`.\n"
            "[a](docs/guide/words.md#what-changes-nothing-x) [b](docs/guide/words.md#cache-1) [c](#d)\n# D\n"), [])

    def test_a_wrong_path_is_found(self):
        for name in ("page.h", "kv/page.h", "src/kv/page.h", "src/vk/", "src/kv/x*", "include/gqa/kv.h", "nowhere/page.h"):
            self.assertEqual(self.problems(f"See `{name}`.\n"), [f"HACKING.md: no such file or folder: {name}"])
        self.assertIn("docs/design/a.md: no such file or folder: tile.cpp",
                      self.problems("as tile.cpp does\n", "docs/design/a.md"))

    def test_a_function_or_member_that_is_gone_is_found(self):
        for code in ("claims()", "Page::last", "Book::first"):
            self.assertEqual(self.problems(f"See `{code}`.\n"), [f"HACKING.md: no such function or member: {code}"])

    def test_a_link_that_leads_nowhere_is_found_in_every_page(self):
        for page in ("README.md", "docs/guide/other.md", "docs/results/x.md"):
            self.assertEqual(self.problems("[a](none.md)\n", page), [f"{page}: a link leads nowhere: none.md"])
        self.assertEqual(self.problems("[a](words.md#cash)\n", "docs/guide/other.md"),
                         ["docs/guide/other.md: a link leads to no heading: words.md#cash"])
        self.assertEqual(self.problems("`[a](none.md)`\n```\n[b](none.md)\n```\n", "docs/guide/other.md"), [])

    def test_hacking_stays_short(self):
        self.assertEqual(len(self.problems("x" * (HACKING_BYTES + 1))), 1)


class Picture(unittest.TestCase):
    def test_arrows_that_follow_from_others_are_left_out(self):
        arrows = [line.strip() for line in draw_layers.dot_source(TABLE).splitlines() if "->" in line]
        self.assertEqual(arrows, ["kv -> core;", "attention -> kv;"])

    def test_another_table_makes_the_picture_stale(self):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            (root / "cmake").mkdir()
            (root / "docs").mkdir()
            (root / draw_layers.TABLE).write_text(json.dumps(TABLE), "utf-8")
            self.assertIn("not drawn from", draw_layers.problem(root))
            mark = draw_layers.mark(draw_layers.dot_source(TABLE))
            (root / draw_layers.PICTURE).write_text(f"{mark}<svg/>", "utf-8")
            self.assertIsNone(draw_layers.problem(root))
            changed = TABLE | {"layers": TABLE["layers"] | {"kv": TABLE["layers"]["kv"] | {"what": "pages"}}}
            (root / draw_layers.TABLE).write_text(json.dumps(changed), "utf-8")
            self.assertIn("not drawn from", draw_layers.problem(root))


if __name__ == "__main__":
    unittest.main()
