#!/usr/bin/env python3
"""Wrong configs, tokenizers, texts and prompts: each with its exit code and its message."""

import json
import os
import unittest

from gqa_case import GqaCase
from model_folder import SOURCE

ALL = ("convert", "expand", "export", "eval", "generate", "inspect", "verify")
TOKENIZING = ("convert", "expand", "export", "eval", "generate", "verify")


class Sound(GqaCase):
    def test_every_verb_takes_what_is_not_broken(self):
        """What other tests see refused is refused for what they broke, and for nothing else."""
        for verb, args in self.commands(self.model()).items():
            with self.subTest(verb=verb):
                done = self.gqa(*args, *(["--force"] if verb == "expand" else []))
                self.assertEqual(done.returncode, 0, done.stderr.decode())


class BadConfig(GqaCase):
    def broken(self, words, verbs=ALL, **fields):
        def change(model):
            for key, value in fields.items():
                if value is None:
                    del model.config[key]
                else:
                    model.config[key] = value

        with self.subTest(**fields):
            self.all_refuse(65, self.model(change), ("config.json", *words), verbs)

    def test_heads(self):
        self.broken(("num_key_value_heads", "num_attention_heads"), num_key_value_heads=3)
        self.broken(("num_key_value_heads",), num_key_value_heads=16)
        self.broken(("num_key_value_heads",), num_key_value_heads=0)
        self.broken(("num_attention_heads",), num_attention_heads=-8)
        self.broken(("head_dim",), head_dim=15)
        self.broken(
            ("hidden_size", "num_attention_heads"),
            head_dim=None,
            num_attention_heads=7,
            num_key_value_heads=7,
        )

    def test_fields(self):
        for key in ("hidden_size", "num_hidden_layers", "vocab_size", "intermediate_size"):
            for value in (0, -1, 1.5, "128", [128], 1 << 40, 1 << 70):
                self.broken((key,), **{key: value})
        self.broken(("hidden_size",), hidden_size=None)
        self.broken(("rms_norm_eps",), rms_norm_eps=-1)
        self.broken(("rope",), rope_parameters={"rope_theta": 0, "rope_type": "default"})
        self.broken(
            ("rope_type", "dynamo"), rope_parameters={"rope_theta": 1e4, "rope_type": "dynamo"}
        )
        self.broken(("hidden_act", "gelu"), hidden_act="gelu")

    def test_model_types(self):
        for name in ("gpt2", "mixtral", 7):
            self.broken(("model_type", str(name)), model_type=name)
        self.broken(("model_type",), model_type=None)

    def test_more_layers_than_weights(self):
        model = self.model(lambda m: m.config.update(num_hidden_layers=1_000_000))
        self.all_refuse(65, model, ("model.layers.1|num_hidden_layers",), ALL)

    def test_special_ids(self):
        for value in (512, 1 << 31, 1 << 40, -1, "1"):
            self.broken(("bos_token_id",), bos_token_id=value)
            self.broken(("eos_token_id",), eos_token_id=[2, value])

    def test_no_json(self):
        for text in ("", "{", "[]", "null", '{"a": 1, "a": 2}', "[" * 100_000, "\0"):
            with self.subTest(text=text[:10]):
                model = self.model()
                (model / "config.json").write_text(text)
                self.all_refuse(65, model, ("config.json",), ALL)

    def test_missing(self):
        model = self.model()
        (model / "config.json").unlink()
        self.all_refuse(66, model, ("config.json",), ALL)


class BadTokenizer(GqaCase):
    def broken(self, content, *words, verbs=TOKENIZING):
        model = self.model()
        text = content if isinstance(content, str) else json.dumps(content)
        (model / "tokenizer.json").write_text(text)
        with self.subTest(content=text[:20], words=words):
            self.all_refuse(65, model, ("tokenizer.json", *words), verbs)

    def changed(self, change):
        content = json.loads((SOURCE / "tokenizer.json").read_text())
        change(content["model"])
        return content

    def test_not_a_tokenizer(self):
        for text in ("{}", "", "{", "[]", "null", '{"model": {}}', '{"a":' * 100_000):
            self.broken(text)

    def test_bytes_that_it_can_not_encode(self):
        self.broken(self.changed(lambda m: m["vocab"].pop("<0x41>")), "0x41")
        self.broken(self.changed(lambda m: m["vocab"].pop("<0xFF>")), "0xff")
        self.broken(self.changed(lambda m: m.update(byte_fallback=False)))

    def test_other_models(self):
        for kind in ("Unigram", "WordPiece"):
            self.broken(self.changed(lambda m, k=kind: m.update(type=k)), kind)

    def test_merges_and_ids(self):
        self.broken(self.changed(lambda m: m["merges"].append("zzz qqq")), "merge")
        self.broken(self.changed(lambda m: m["vocab"].update(new=5)))
        self.broken(self.changed(lambda m: m["vocab"].update(new=-1)))
        self.broken(self.changed(lambda m: m["vocab"].update(new="600")))

    def test_more_ids_than_the_model(self):
        self.broken(self.changed(lambda m: m["vocab"].update(new=512)), "512")

        def cut(model):
            model.config["vocab_size"] = 500
            dtype, shape, data = model.tensors["model.embed_tokens.weight"]
            rows = (dtype, [500, shape[1]], data[: 500 * shape[1] * 4])
            model.tensors["model.embed_tokens.weight"] = rows

        self.all_refuse(65, self.model(cut), ("tokenizer", "500", "51[12]"), TOKENIZING)

    def test_missing(self):
        model = self.model()
        (model / "tokenizer.json").unlink()
        self.all_refuse(66, model, ("tokenizer.json",), ("eval", "generate"))


class BadText(GqaCase):
    def test_invalid_utf8(self):
        model = self.model()
        for data, offset in (
            (b"ok \xff", 3),
            (b"\xc3", 0),
            (b"abcd\xed\xa0\x80", 4),
            (b"x\xc0\x80", 1),
        ):
            with self.subTest(data=data):
                text = self.file("broken.txt", data)
                self.refused(65, ["eval", model, "--text", text], ("broken.txt", rf"\b{offset}\b"))
                prompt = ["generate", model, "--max-tokens", "2", "--prompt", os.fsdecode(data)]
                self.refused(65, prompt, (rf"\b{offset}\b",))

    def test_empty(self):
        model = self.model()
        self.refused(
            65, ["eval", model, "--text", self.file("empty.txt", "")], ("empty.txt", "empty")
        )
        self.refused(2, ["generate", model, "--prompt", ""], ("prompt", "empty"))

    def test_missing(self):
        model = self.model()
        self.refused(66, ["eval", model, "--text", self.root / "none.txt"], ("none.txt",))
        self.refused(2, ["eval", model], ("--text",))

    def test_context(self):
        model = self.model()
        for context in ("513", "1000000000000", "1"):
            self.refused(
                2, ["eval", model, "--text", self.text, "--context", context], ("context", "512|2")
            )
        for context in ("-5", "x", "1.5"):
            self.refused(
                2, ["eval", model, "--text", self.text, "--context", context], ("context",)
            )

    def test_more_tokens_than_positions(self):
        model = self.model()
        for count in ("512", "1000000", str((1 << 63) - 1)):
            args = ["generate", model, "--prompt", "Once upon a time", "--max-tokens", count]
            self.refused(2, args, ("512",))
        self.refused(
            2, ["generate", model, "--prompt", "Once " * 600, "--max-tokens", "1"], ("512",)
        )

    def test_sampling(self):
        model = self.model()
        for option, values in {
            "--temperature": ("-1", "nan", "x"),
            "--top-p": ("-0.5", "1.5", "nan"),
            "--top-k": ("-1", "x"),
            "--max-tokens": ("-1", "x"),
            "--repetition-penalty": ("0", "-1", "nan"),
            "--kv-dtype": ("f8", ""),
            "--weight-dtype": ("f16", "int4", ""),
            "--threads": ("-1", "x", "100000"),
        }.items():
            for value in values:
                with self.subTest(option=option, value=value):
                    args = ["generate", model, "--prompt", "Once", option, value]
                    self.refused(2, args, (option.strip("-").replace("-", "[-_ ]"),))

    def test_against_another_vocabulary(self):
        def widen(model):
            model.config["vocab_size"] = 513
            dtype, shape, data = model.tensors["model.embed_tokens.weight"]
            model.tensors["model.embed_tokens.weight"] = (dtype, [513, 128], data + data[:512])

        args = ["eval", self.model(), "--text", self.text, "--against", self.model(widen)]
        self.refused(65, args, ("512", "513"))
        self.refused(66, [*args[:-1], self.root / "none"], ("none",))


if __name__ == "__main__":
    unittest.main()
