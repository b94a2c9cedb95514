"""What a conversion with --resume leaves in its folder: all of the result, or what the next run goes on with."""
from gqa_case import GqaCase, files

PART, JOURNAL, LOCK = ".out.partial", ".out.partial.journal", ".out.partial.lock"


class ResumeCase(GqaCase):
    """Tests set `want`, the files of a run without a stop."""

    def setUp(self):
        super().setUp()
        self.work = self.root / "work"
        self.out = self.work / "out"
        self.work.mkdir()

    def left(self):
        return sorted(path.name for path in self.work.iterdir())

    def is_done(self, code):
        """Whether a run put the result in place, which it may before it is killed: then it leaves beside it what
        the next run removes."""
        if code != 0 and self.out.exists():
            self.assertLess(code, 0)
            self.assertEqual(files(self.out), self.want)
            self.assertLessEqual(set(self.left()), {"out", JOURNAL, LOCK})
            return True
        return code == 0

    def expect_whole(self):
        self.assertEqual(files(self.out), self.want)
        self.assertEqual(self.left(), ["out"])
