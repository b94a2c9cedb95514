"""Parts of a page that tools write."""

import pathlib
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from page import put_part, replace_part  # noqa: E402

PAGE = """# Page

<!-- ./dev bench avx2: begin -->
old
<!-- ./dev bench avx2: end -->

after
"""


class Page(unittest.TestCase):
    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory()
        self.page = pathlib.Path(self.temporary.name) / "page.md"
        self.page.write_text(PAGE, "utf-8")

    def tearDown(self):
        self.temporary.cleanup()

    def test_a_part_takes_the_place_of_its_own_alone(self):
        put_part(self.page, "bench", "neon", "one\n")
        put_part(self.page, "bench", "avx2", "two\n")
        put_part(self.page, "bench", "neon", "three\n")
        self.assertEqual(self.page.read_text("utf-8"), """# Page

<!-- ./dev bench avx2: begin -->

two

<!-- ./dev bench avx2: end -->

<!-- ./dev bench neon: begin -->

three

<!-- ./dev bench neon: end -->

after
""")

    def test_a_page_without_such_parts_is_left_alone(self):
        for write in (lambda: put_part(self.page, "experiments", "avx2", "x"),
                      lambda: replace_part(self.page, "bench", "x")):
            with self.assertRaises(SystemExit) as error:
                write()
            self.assertIn("page.md: expected", str(error.exception))
        self.assertEqual(self.page.read_text("utf-8"), PAGE)


if __name__ == "__main__":
    unittest.main()
