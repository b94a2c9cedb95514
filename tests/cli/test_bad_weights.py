#!/usr/bin/env python3
"""Broken weight files: refused with exit code 65 and a message that names file and tensor."""

import json
import math
import struct
import unittest

from gqa_case import GqaCase
from model_folder import ModelFolder, header_of, safetensors

ALL = ("convert", "expand", "export", "eval", "generate", "inspect", "verify")
READ = ("convert", "expand", "export", "eval", "generate", "verify")  # those that read every weight
NORM = "model.norm.weight"
Q = "model.layers.0.self_attn.q_proj.weight"


class BadFile(GqaCase):
    """The file as bytes."""

    def broken(self, data, *words):
        model = self.model()
        (model / "model.safetensors").write_bytes(data)
        self.all_refuse(65, model, ("model.safetensors", *words), ALL)

    def test_truncated(self):
        whole = safetensors(ModelFolder().tensors)
        for length in (0, 4, 8, 100, len(whole) // 2, len(whole) - 1):
            with self.subTest(length=length):
                self.broken(whole[:length])

    def test_trailing_bytes(self):
        self.broken(safetensors(ModelFolder().tensors) + b"\0" * 8)

    def test_header_longer_than_the_file(self):
        whole = safetensors(ModelFolder().tensors)
        for length in (
            len(whole) - 7,
            1 << 40,
            (1 << 63) - 1,
            1 << 63,
            (1 << 64) - 8,
            (1 << 64) - 1,
        ):
            with self.subTest(length=length):
                self.broken(struct.pack("<Q", length) + whole[8:], "header")

    def test_header_is_no_json_object(self):
        tensors = ModelFolder().tensors
        deep = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
        for header in (b"", b"{", b"[]", b"null", b"\xff\xfe{}", deep, b'{"a": nan}'):
            with self.subTest(header=header[:20]):
                self.broken(safetensors(tensors, header))

    def test_a_name_twice(self):
        tensors = ModelFolder().tensors
        text = json.dumps(header_of(tensors))
        again = json.dumps({NORM: header_of(tensors)[NORM]})[1:-1]
        self.broken(safetensors(tensors, f"{text[:-1]}, {again}}}".encode()), NORM)


class BadHeader(GqaCase):
    """The JSON header, field by field."""

    def broken(self, field, value, name=NORM):
        tensors = ModelFolder().tensors
        header = header_of(tensors)
        if value is None:
            del header[name][field]
        else:
            header[name][field] = value(header[name][field]) if callable(value) else value
        model = self.model()
        (model / "model.safetensors").write_bytes(safetensors(tensors, header))
        with self.subTest(field=field, value=header[name].get(field)):
            self.all_refuse(65, model, ("model.safetensors", name), ALL)

    def test_offsets(self):
        end = 1 << 40
        self.broken("data_offsets", [0, 512])  # over another tensor
        self.broken("data_offsets", lambda o: [o[0] + end, o[1] + end])
        self.broken("data_offsets", lambda o: [o[0], o[1] + 4])
        self.broken("data_offsets", lambda o: [o[1], o[0]])
        self.broken("data_offsets", lambda o: [-4, o[1] - o[0] - 4])
        self.broken("data_offsets", [(1 << 64) - 512, 0])
        self.broken("data_offsets", [1 << 70, (1 << 70) + 512])
        self.broken("data_offsets", lambda o: [o[0]])
        self.broken("data_offsets", lambda o: [str(o[0]), str(o[1])])
        self.broken("data_offsets", None)

    def test_shapes_that_overflow(self):
        for shape in ([1 << 62, 8], [1 << 32, 1 << 32], [(1 << 63) - 1], [1 << 64], [1 << 20] * 4):
            self.broken("shape", shape)
        # 2^64 elements wrap around to no bytes at all: the range looks right.
        tensors = dict(ModelFolder().tensors, wrapped=("F32", [1 << 32, 1 << 32], b""))
        model = self.model()
        (model / "model.safetensors").write_bytes(safetensors(tensors))
        self.all_refuse(65, model, ("model.safetensors", "wrapped"), ALL)

    def test_shapes_that_do_not_fit(self):
        for shape in ([-128], [127], [129], [1.5], ["128"], 128, None):
            self.broken("shape", shape)

    def test_dtypes(self):
        for dtype in ("F128", "f32", "", 32, None):
            self.broken("dtype", dtype)
        self.broken("dtype", "BF16")  # half the bytes


class BadTensors(GqaCase):
    """Sound files with the wrong content."""

    def broken(self, change, words, verbs=ALL):
        self.all_refuse(65, self.model(change), words, verbs)

    def test_missing(self):
        for name in (NORM, Q, "model.embed_tokens.weight"):
            self.broken(lambda m, n=name: m.tensors.pop(n), (name,))

    def test_wrong_shape(self):
        def cut(model):
            dtype, shape, data = model.tensors[Q]
            model.tensors[Q] = (dtype, [shape[0] - 1, shape[1]], data[: -4 * shape[1]])

        self.broken(cut, ("model.safetensors", Q, "128", "127"))

    def test_integers_for_floats(self):
        self.broken(lambda m: m.add(NORM, "I32", [128]), ("model.safetensors", NORM, "I32"))

    def test_not_finite(self):
        for name in (NORM, Q, "model.embed_tokens.weight"):
            for value in (math.nan, math.inf, -math.inf):
                self.broken(
                    lambda m, n=name, v=value: m.poke(n, 77, v), ("model.safetensors", name), READ
                )

    def test_too_large_for_f16(self):
        model = self.model(lambda m: m.poke(Q, 5, 1e6))
        for verb in ("convert", "expand", "export"):
            # Another merge would change the queries.
            mean = ["--merge", "mean"] if verb == "convert" else []
            self.refused(65, [*self.commands(model)[verb], *mean, "--dtype", "f16"], (Q, "f16"))

    def test_quantised(self):
        for dtype in ("F8_E4M3", "F8_E5M2"):
            self.broken(lambda m, d=dtype: m.add(Q, d, [128, 128]), ("model.safetensors", "FP8"))
        for suffix, scheme in (("qweight", "AWQ|GPTQ"), ("absmax", "bitsandbytes")):
            name = Q.removesuffix("weight") + suffix
            self.broken(lambda m, n=name: m.add(n, "I32", [16, 128]), ("model.safetensors", scheme))
        for method in ("gptq", "awq", "fp8", "bitsandbytes", "compressed-tensors"):
            self.broken(
                lambda m, q=method: m.config.update(quantization_config={"quant_method": q}),
                ("config.json", "quantization_config|quantized|quantised", method),
            )

    def test_pickled_alone(self):
        for name in ("pytorch_model.bin", "pytorch_model.bin.index.json"):
            model = self.model()
            (model / "model.safetensors").rename(model / name)
            self.all_refuse(65, model, ("safetensors", "pytorch_model.bin"), ALL)

    def test_no_weights(self):
        model = self.model()
        (model / "model.safetensors").unlink()
        self.all_refuse(66, model, ("model.safetensors",), ALL)


class BadShards(GqaCase):
    def setUp(self):
        super().setUp()
        self.folder = ModelFolder().write_sharded(self.place())
        self.index = self.folder / "model.safetensors.index.json"
        self.shard = self.folder / "model-00002-of-00002.safetensors"

    def mapped(self, change):
        index = json.loads(self.index.read_text())
        change(index["weight_map"])
        self.index.write_text(json.dumps(index))

    def test_sound(self):
        """What follows fails for what it breaks, and for nothing else."""
        self.assertEqual(self.gqa("eval", self.folder, "--text", self.text).returncode, 0)

    def test_truncated(self):
        data = self.shard.read_bytes()
        for length in (4, len(data) - 1):
            self.shard.write_bytes(data[:length])
            self.all_refuse(65, self.folder, (self.shard.name,), ALL)

    def test_missing(self):
        self.shard.unlink()
        self.all_refuse(66, self.folder, (self.shard.name,), ALL)

    def test_paths_that_lead_away(self):
        outside = self.model() / "model.safetensors"
        for path in (
            f"../{outside.parent.name}/model.safetensors",
            str(outside),
            "..",
            "./../x",
            "",
        ):
            with self.subTest(path=path):
                self.mapped(lambda names, p=path: names.update({NORM: p}))
                self.all_refuse(65, self.folder, (self.index.name,), ALL)

    def test_map_and_shards_disagree(self):
        self.mapped(lambda names: names.pop(NORM))
        self.all_refuse(65, self.folder, (NORM,), ALL)
        self.mapped(lambda names: names.update({NORM: self.shard.name, "ghost": self.shard.name}))
        self.all_refuse(65, self.folder, ("ghost",), ALL)

    def test_index_is_no_index(self):
        for text in ("", "{}", "[]", '{"weight_map": []}', '{"weight_map": {"a": 1}}'):
            with self.subTest(text=text):
                self.index.write_text(text)
                self.all_refuse(65, self.folder, (self.index.name,), ALL)


if __name__ == "__main__":
    unittest.main()
