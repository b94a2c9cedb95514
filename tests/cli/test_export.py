"""`gqa export`: the file that it writes, what it says, and what it refuses."""
import json
import struct
import unittest

import gqa_case
from model_folder import SOURCE, ModelFolder
from verb_case import VerbCase


def header(path):
    """Version, tensors and pairs of a GGUF file."""
    magic, *numbers = struct.unpack("<4sIQQ", path.read_bytes()[:24])
    return magic, *numbers


class ExportTest(VerbCase):
    KEYS = {"model", "out", "dry_run", "architecture", "dtype", "kv_heads", "tokenizer", "tensors",
            "output_bytes", "peak_memory_bytes", "notes"}

    def file_place(self):
        return self.place().with_suffix(".gguf")

    def test_exports(self):
        out = self.file_place()
        done = self.json("export", SOURCE, out)
        self.assertEqual(set(done), self.KEYS)
        self.assertEqual((done["out"], done["dry_run"], done["dtype"]), (str(out), False, None))
        self.assertEqual((done["architecture"], done["tokenizer"]), ("llama", "llama"))
        self.assertEqual((done["kv_heads"], done["notes"]), ([8] * 6, []))
        self.assertEqual(done["output_bytes"], out.stat().st_size)
        magic, version, tensors, _ = header(out)
        self.assertEqual((magic, version, tensors), (b"GGUF", 3, done["tensors"]))

    def test_types(self):
        sizes = {}
        for dtype in ["f32", "f16", "bf16", "q8_0"]:
            out = self.file_place()
            self.assertEqual(self.json("export", SOURCE, out, "--dtype", dtype)["dtype"], dtype)
            sizes[dtype] = out.stat().st_size
        self.assertEqual(sizes["f16"], sizes["bf16"])
        self.assertLess(sizes["f16"], 0.51 * sizes["f32"])
        self.assertLess(sizes["q8_0"], 0.66 * sizes["f16"])

    def test_what_convert_writes(self):
        out = self.file_place()
        done = self.json("export", self.convert(kv_heads=2), out, "--dtype", "q8_0")
        self.assertEqual(done["kv_heads"], [2] * 6)
        self.assertRegex(" ".join(done["notes"]), "6 of 56 tensors are f16")

    def test_dry_run_writes_nothing_and_tells_the_same(self):
        out = self.file_place()
        before = gqa_case.snapshot(self.root)
        plan = self.json("export", SOURCE, out, "--dry-run")
        text = self.ok("export", SOURCE, out, "--dry-run")
        self.assertEqual(gqa_case.snapshot(self.root), before)
        self.assertRegex(text, r"architecture +llama\n")
        self.assertEqual(plan | {"dry_run": False}, self.json("export", SOURCE, out))
        self.refused(73, ["export", SOURCE, out, "--dry-run"], ["exists", "--force"])

    def test_messages(self):
        model = ModelFolder()
        model.config |= {"model_type": "mistral", "sliding_window": 100}
        folder = model.write(self.place())
        said = self.gqa("export", folder, self.file_place())
        self.assertEqual((said.returncode, said.stdout), (0, b""))
        self.assertIn(b"no sliding window", said.stderr)
        self.assertEqual(self.gqa("export", folder, self.file_place(), "--quiet").stderr, b"")

    def test_force(self):
        out = self.file_place()
        self.ok("export", SOURCE, out)
        before = out.stat().st_size
        self.refused(73, ["export", SOURCE, out], ["exists", "--force"])
        self.ok("export", SOURCE, out, "--force", "--dtype", "f16")
        self.assertLess(out.stat().st_size, before)
        text = self.file("notes.txt", "mine")
        self.refused(73, ["export", SOURCE, text, "--force"], ["not a GGUF file"])

    def test_refuses(self):
        out = self.file_place()
        self.refused(2, ["export", SOURCE], ["OUT"])
        self.refused(2, ["export", SOURCE, out, "--dtype", "int8"], ["q8_0, got 'int8'"])
        self.refused(66, ["export", self.root / "none", out], ["none"])
        self.refused(73, ["export", SOURCE, self.root / "none" / "out.gguf"], ["none"])

        def nan(model):
            model.poke("model.layers.0.self_attn.q_proj.weight", 130, float("nan"))

        self.refused(65, ["export", self.model(nan), out], ["q_proj", r"\[1, 2\]", "nan"])

        def too_large(model):
            model.poke("model.layers.0.mlp.up_proj.weight", 5, 1e5)

        self.refused(65, ["export", self.model(too_large), out, "--dtype", "f16"],
                     ["up_proj", "f16", r"\[0, 5\]"])

        def unknown_words(model):
            model.tokenizer["normalizer"] = None

        self.refused(65, ["export", self.model(unknown_words), out], ["tokenizer", "normalizer"])

        def uneven(model):
            model.config["num_key_value_heads"] = 3

        self.refused(65, ["export", self.model(uneven), out], ["num_key_value_heads", "3"])

    def test_no_tokenizer(self):
        folder = ModelFolder().write(self.place())
        (folder / "tokenizer.json").unlink()
        done = self.json("export", folder, self.file_place())
        self.assertEqual(done["tokenizer"], "no_vocab")
        self.assertIn("no tokenizer.json", json.dumps(done["notes"]))


if __name__ == "__main__":
    unittest.main()
