#!/usr/bin/env python3
"""Wrong options, and outputs that can not be: each with its exit code and its message."""

import os
import pathlib
import resource
import unittest

from gqa_case import GqaCase

ALL = ("convert", "expand", "export", "eval", "generate", "inspect", "verify")


class BadOptions(GqaCase):
    def refuse(self, code, *args, words=()):
        with self.subTest(args=args):
            self.refused(code, ["convert", self.folder, self.root / "out", *args], words)

    def setUp(self):
        super().setUp()
        self.folder = self.model()

    def test_kv_heads(self):
        for count in ("0", "-1", "-8", "16", "3", "5", "x", "2.5", "", "99999999999999999999"):
            self.refuse(2, "--kv-heads", count, words=("kv.heads",))
        self.refuse(2, words=("kv.heads",))
        self.refuse(2, "--kv-heads", "3", words=("3", "8"))

    def test_names(self):
        for option in ("--grouping", "--merge", "--dtype"):
            self.refuse(2, "--kv-heads", "2", option, "nonsense", words=(option[2:], "nonsense"))
        self.refuse(2, "--kv-heads", "2", "--nonsense", words=("nonsense",))

    def test_shard_sizes(self):
        for size in ("0", "-1", "x", "5XB", "", "99999999999999999999", "99999999999TB"):
            self.refuse(2, "--kv-heads", "2", "--max-shard-size", size, words=("max-shard-size",))

    def test_manual_groups(self):
        for text in (
            "",
            "{}",
            "[[0,1],[2,3]]",
            "[[0,1,2,3],[4,5,6,6]]",
            "[[0,1,2],[3,4,5,6,7]]",
            "[[0,1,2,3],[4,5,6,8]]",
            "[[0,1,2,3],[4,5,6,-1]]",
            '[["0"]]',
        ):
            file = self.file("groups.json", text)
            self.refuse(
                65, "--kv-heads", "2", "--grouping", f"manual:{file}", words=("groups.json",)
            )
        self.refuse(66, "--kv-heads", "2", "--grouping", "manual:none.json", words=("none.json",))

    def test_recipes(self):
        self.refuse(66, "--recipe", "none.json", words=("none.json",))
        for text in ("", "{}", "[]", '{"version": 99}'):
            self.refuse(65, "--recipe", self.file("recipe.json", text), words=("recipe.json",))

    def test_models(self):
        for verb in ALL:
            for path in (self.root / "none", self.text):
                with self.subTest(verb=verb, path=path):
                    self.refused(66, self.commands(path)[verb], (path.name,))


class BadPlaces(GqaCase):
    def setUp(self):
        super().setUp()
        self.folder = self.model()

    def both(self, code, out, *words, options=()):
        for args in (
            ["convert", self.folder, out, "--kv-heads", "2"],
            ["expand", self.folder, out],
        ):
            with self.subTest(verb=args[0], out=out):
                self.refused(code, [*args, *options], words)

    def test_places_that_can_not_be(self):
        self.both(73, self.text / "out", "text.txt")
        self.both(73, self.root / "none" / "out", "none")
        self.both(73, pathlib.Path("/proc/gqa-test"), "/proc")
        self.both(73, pathlib.Path("/dev/full"), "/dev/full")
        self.both(73, pathlib.Path("/"))
        self.both(73, self.root / ("x" * 300))

    def test_read_only_parent(self):
        if os.geteuid() == 0:
            self.skipTest("root may write everywhere")
        parent = self.place()
        parent.mkdir(0o555)
        self.both(73, parent / "out", parent.name)

    def test_existing(self):
        existing = self.model()
        self.both(73, existing, existing.name, "force")
        self.both(73, f"{existing}/", existing.name)
        self.both(73, self.text, "text.txt")
        self.both(73, self.text, "text.txt", options=["--force"])
        precious = self.place()
        precious.mkdir()
        (precious / "thesis.txt").write_text("no model folder")
        self.both(73, precious, precious.name, options=["--force"])

    def test_same_as_the_model(self):
        link = self.place()
        link.symlink_to(self.folder)
        for out in (self.folder, f"{self.folder}/", f"{self.folder}/../{self.folder.name}", link):
            self.both(73, out, options=["--force"])
        self.both(73, self.folder / "out")
        self.both(73, self.root, options=["--force"])

    def test_dry_run_refuses_too(self):
        self.both(73, self.model(), options=["--dry-run"])

    def test_full_disk(self):
        def limit():
            resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))

        for args in (["convert", "--kv-heads", "2"], ["expand"]):
            verb, *options = args
            command = [verb, self.folder, self.root / "out", *options]
            self.refused(74, command, ("model.safetensors",), preexec_fn=limit)
        command = ["export", self.folder, self.root / "out.gguf"]
        self.refused(74, command, ("out.gguf",), preexec_fn=limit)

    def test_full_stdout(self):
        for verb, args in self.commands(self.folder).items():
            if verb in ("convert", "expand", "export"):
                args = [*args, "--dry-run"]
            for options in ([], ["--json"]):
                with self.subTest(verb=verb, options=options), open("/dev/full", "wb") as full:
                    self.refused(74, [*args, *options], ("output|stdout",), stdout=full)


if __name__ == "__main__":
    unittest.main()
