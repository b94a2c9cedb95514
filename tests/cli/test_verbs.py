"""Every verb on the model that ships: what it prints, its JSON, its options."""
import json
import math
import shutil
import unittest

import gqa_case
from gqa_case import files
from model_folder import SOURCE, ModelFolder, write_sparse
from verb_case import HELDOUT, VerbCase

LAYERS = 6


class InspectTest(VerbCase):
    def test_json(self):
        found = self.json("inspect", SOURCE)
        expected = {
            "model_type": "llama", "n_layers": LAYERS, "q_heads": 8, "kv_heads": [8] * LAYERS,
            "head_dim": 16, "kv_bytes_per_token": LAYERS * 2 * 8 * 16 * 4, "parameters": 1252992,
            "width": 128, "mlp_width": 344, "vocab_size": 512, "max_positions": 512,
            "weight_bytes": 4 * 1252992,
        }
        self.assertEqual({key: found[key] for key in expected}, expected)
        self.assertEqual(len(found["dtypes"]), 1)
        self.assertNotIn("window", found)
        self.assertNotIn("aligned_similarity", found)
        for key in ["k_similarity", "v_similarity"]:
            self.assertEqual(len(found[key]), LAYERS)
            self.assertTrue(all(0 < x < 1 for x in found[key]))

    def test_aligned_similarity_json(self):
        found = self.json("inspect", SOURCE, "--similarity")["aligned_similarity"]
        self.assertEqual(len(found), LAYERS)
        for layer in found:
            for key in ["k", "v", "joint"]:
                matrix = layer[key]
                self.assertEqual([len(row) for row in matrix], [8] * 8)
                for a in range(8):
                    self.assertEqual(matrix[a][a], 1)
                    for b in range(a):
                        self.assertEqual(matrix[a][b], matrix[b][a])
                        self.assertTrue(0 < matrix[a][b] < 1)
            self.assertAlmostEqual(layer["joint"][5][2], (layer["k"][5][2] + layer["v"][5][2]) / 2)
            self.assertEqual([s["kv_heads"] for s in layer["suggested"]], [1, 2, 4])
            for s in layer["suggested"]:
                self.assertEqual([len(g) for g in s["groups"]], [8 // s["kv_heads"]] * s["kv_heads"])
                self.assertEqual(sorted(sum(s["groups"], [])), list(range(8)))
                pairs = [layer["joint"][a][b] for g in s["groups"] for a in g for b in g if a < b]
                self.assertAlmostEqual(s["similarity"], sum(pairs) / len(pairs))

    def test_aligned_similarity_finds_copies(self):
        out = self.place()
        self.ok("expand", self.convert(kv_heads=4), out)
        for layer in self.json("inspect", out, "--similarity")["aligned_similarity"]:
            best = layer["suggested"][-1]
            self.assertEqual(best["groups"], [[0, 1], [2, 3], [4, 5], [6, 7]])
            self.assertAlmostEqual(best["similarity"], 1)

    def test_aligned_similarity_text(self):
        text = self.ok("inspect", SOURCE, "--similarity")
        self.assertTrue(text.startswith(self.ok("inspect", SOURCE)))
        layer = self.json("inspect", SOURCE, "--similarity")["aligned_similarity"][3]
        lines = text.split("\nlayer 3\n")[1].split("\n\n")[0].splitlines()
        rows = [line.split() for line in lines[1:9]]
        for a in range(8):
            for b in range(8):
                key = "k" if b < a else "v"
                self.assertEqual(rows[a][b + 1], "-" if a == b else f"{layer[key][a][b]:.2f}")
        groups = [" ".join("{" + ",".join(map(str, g)) + "}" for g in s["groups"])
                  for s in layer["suggested"]]
        self.assertEqual([line.split(": ")[1] for line in lines[9:]], groups)
        self.assertTrue(lines[9].startswith("to 1 KV head, similarity 0."), lines)

    def test_one_head_has_no_similarity(self):
        self.assertEqual(self.json("inspect", self.convert(kv_heads=1))["k_similarity"],
                         [None] * LAYERS)

    def test_family_and_window(self):
        folder = ModelFolder()
        folder.config |= {"model_type": "mistral", "sliding_window": 1234}
        model = folder.write(self.place())
        found = self.json("inspect", model)
        self.assertEqual((found["model_type"], found["window"]), ("mistral", 1234))
        text = self.ok("inspect", model)
        for words in ["mistral", "each token sees the last 1,234"]:
            self.assertIn(words, text)
        self.assertNotIn("window", self.ok("inspect", SOURCE))

    def test_text(self):
        text = self.ok("inspect", SOURCE)
        for words in ["1,252,992", "multi-head", "6.0 KiB (6,144 bytes) per token"]:
            self.assertIn(words, text)
        self.assertEqual(len([line for line in text.splitlines() if line.strip()[:1].isdigit()
                              and line.count("0.") == 2]), LAYERS, text)


class ConvertTest(VerbCase):
    KEYS = {"model", "out", "dry_run", "q_heads", "source_kv_heads", "result_kv_heads", "groups",
            "source_kv_bytes_per_token", "result_kv_bytes_per_token", "output_bytes",
            "peak_memory_bytes", "notes"}

    def test_converts(self):
        out = self.place()
        done = self.json("convert", SOURCE, out, "--kv-heads", "2", "--grouping", "neighbour")
        self.assertEqual(set(done), self.KEYS)
        self.assertEqual((done["out"], done["dry_run"], done["q_heads"]), (str(out), False, 8))
        self.assertEqual((done["source_kv_heads"], done["result_kv_heads"]), ([8] * 6, [2] * 6))
        self.assertEqual(done["groups"], [[[0, 1, 2, 3], [4, 5, 6, 7]]] * LAYERS)
        self.assertEqual(done["source_kv_bytes_per_token"], 6144)
        self.assertEqual(done["result_kv_bytes_per_token"], 1536)
        found = self.json("inspect", out)
        self.assertEqual((found["kv_heads"], found["q_heads"]), ([2] * LAYERS, 8))
        self.assertEqual(found["kv_bytes_per_token"], 1536)
        self.assertTrue(self.json("verify", out)["ok"])

    def test_dry_run_writes_nothing_and_tells_the_same(self):
        out = self.place()
        before = gqa_case.snapshot(self.root)
        args = ["convert", SOURCE, out, "--kv-heads", "4", "--grouping", "random", "--seed", "7"]
        plan = self.json(*args, "--dry-run")
        text = self.ok(*args, "--dry-run")
        self.assertEqual(gqa_case.snapshot(self.root), before)
        self.assertRegex(text, r"KV heads +8 -> 4\n")
        self.assertEqual(plan | {"dry_run": False}, self.json(*args))

    def test_dry_run_refuses_what_the_run_would(self):
        out = self.convert()
        args = ["convert", SOURCE, out, "--kv-heads", "4", "--dry-run"]
        self.refused(73, args, ["exists"])
        self.refused(73, [*args[:2], self.text, *args[3:], "--force"], ["text.txt"])
        self.refused(73, [*args[:2], self.root / "none/out", *args[3:]], ["none"])
        self.refused(73, [*args[:2], SOURCE / "out", *args[3:]], ["is inside the source"])
        self.refused(73, [*args[:2], SOURCE, *args[3:], "--force"], ["is the source itself"])
        giant = write_sparse(self.place(), {"vocab_size": 1 << 31, "hidden_size": 1024})  # 8 TB
        self.refused(73, ["convert", giant, self.root / "no", "--kv-heads", "4", "--dry-run"],
                     ["bytes needed", "free"])
        self.ok(*args, "--force")

    def test_options_reach_the_result(self):
        out = self.convert("--merge", "first", "--dtype", "bf16", "--max-shard-size", "1MiB")
        self.assertEqual(self.json("inspect", out)["dtypes"], ["bf16"])
        shards = sorted(out.glob("model-*.safetensors"))
        self.assertGreater(len(shards), 1)
        self.assertLessEqual(max(shard.stat().st_size for shard in shards), 1 << 20)
        again = self.place()
        self.ok("convert", SOURCE, again, "--recipe", out / "gqa_recipe.json")
        self.assertEqual(files(out), files(again))

    def test_force(self):
        out = self.convert()
        self.refused(73, ["convert", SOURCE, out, "--kv-heads", "2"], ["exists"])
        self.ok("convert", SOURCE, out, "--kv-heads", "2", "--force")
        self.assertEqual(self.json("inspect", out)["kv_heads"], [2] * LAYERS)

    def test_names_beyond_ascii(self):
        model = shutil.copytree(SOURCE, self.root / "größe 模型")
        out = self.root / "更小\x1b[31m"
        done = self.json("convert", model, out, "--kv-heads", "1")
        self.assertEqual((done["model"], done["out"]), (str(model), str(out)))
        self.assertTrue((out / "config.json").is_file())

    def test_expand_is_exact(self):
        grouped, expanded = self.convert(kv_heads=2), self.place()
        done = self.json("expand", grouped, expanded)
        self.assertEqual(set(done), self.KEYS)
        self.assertEqual((done["source_kv_heads"], done["result_kv_heads"]), ([2] * 6, [8] * 6))
        text = self.file("short.txt", HELDOUT.read_text()[:2000])
        before, after = (self.json("eval", m, "--text", text)["nll"] for m in (grouped, expanded))
        self.assertAlmostEqual(before, after, delta=1e-6)


class EvalTest(VerbCase):
    def test_original(self):
        found = self.json("eval", SOURCE, "--text", HELDOUT)
        self.assertEqual(set(found), {"nll", "ppl", "bits_per_byte", "tokens", "context", "seconds"})
        self.assertAlmostEqual(found["nll"], 1.70525, delta=1e-4)
        self.assertAlmostEqual(found["ppl"], math.exp(found["nll"]), delta=1e-9)
        self.assertEqual((found["tokens"], found["context"]), (41877, 512))
        bits = found["nll"] * found["tokens"] / math.log(2) / HELDOUT.stat().st_size
        self.assertAlmostEqual(found["bits_per_byte"], bits, delta=1e-9)

    def test_against(self):
        text = self.file("short.txt", HELDOUT.read_text()[:4000])
        self_found = self.json("eval", SOURCE, "--text", text, "--against", SOURCE)
        self.assertEqual(self_found["top1_agreement"], 1)
        self.assertAlmostEqual(self_found["kl"], 0, delta=1e-6)
        found = self.json("eval", self.convert(), "--text", text, "--against", SOURCE)
        self.assertGreater(found["kl"], 0.1)
        self.assertTrue(0 < found["top1_agreement"] < 1)
        text = self.ok("eval", SOURCE, "--text", text, "--against", SOURCE)
        self.assertRegex(text, r"top-1 agreement +100\.00 %\n")

    def test_options(self):
        text = self.file("short.txt", HELDOUT.read_text()[:2000])
        found = self.json("eval", SOURCE, "--text", text, "--context", "64", "--kv-dtype", "bf16")
        self.assertEqual(found["context"], 64)
        plain = self.json("eval", SOURCE, "--text", text, "--context", "64")
        self.assertNotEqual(found["nll"], plain["nll"])
        self.assertAlmostEqual(found["nll"], plain["nll"], delta=0.02)

    def test_quantised_caches_stay_close(self):
        text = self.file("short.txt", HELDOUT.read_text()[:8000])
        plain = self.json("eval", SOURCE, "--text", text)
        # Measured on all of the text: 0.0001 nats more with int8, 0.015 with int4. Thirty times and
        # five times that is what so short a text may stray; a lost scale or sign costs whole nats.
        for dtype, delta in ("int8", 0.003), ("int4", 0.075):
            found = self.json("eval", SOURCE, "--text", text, "--kv-dtype", dtype)
            self.assertNotEqual(found["nll"], plain["nll"])
            self.assertAlmostEqual(found["nll"], plain["nll"], delta=delta)
            again = self.json("eval", SOURCE, "--text", text, "--kv-dtype", dtype, "--threads", "1")
            self.assertEqual(found["nll"], again["nll"], "threads changed the result")

    def test_quantised_weights_stay_close(self):
        text = self.file("short.txt", HELDOUT.read_text()[:8000])
        plain = self.json("eval", SOURCE, "--text", text)
        found = self.json("eval", SOURCE, "--text", text, "--weight-dtype", "int8", "--against",
                          SOURCE)
        # Measured on all of the text: 0.00015 nats of KL divergence. Ten times that is what so
        # short a text may stray; a lost scale or sign costs whole nats.
        self.assertTrue(0 < found["kl"] < 0.0015, found)
        self.assertAlmostEqual(found["nll"], plain["nll"], delta=0.003)
        self.assertGreater(found["top1_agreement"], 0.98)
        again = self.json("eval", SOURCE, "--text", text, "--weight-dtype", "int8", "--threads", "1")
        self.assertEqual(found["nll"], again["nll"], "threads changed the result")
        stored = self.json("eval", SOURCE, "--text", text, "--weight-dtype", "stored")
        self.assertEqual(stored["nll"], plain["nll"])

    def test_other_tokenizer(self):
        other = shutil.copytree(SOURCE, self.place())
        tokenizer = json.loads((other / "tokenizer.json").read_text())
        tokenizer["model"]["merges"] = tokenizer["model"]["merges"][:100]
        (other / "tokenizer.json").write_text(json.dumps(tokenizer))
        self.refused(65, ["eval", SOURCE, "--text", self.text, "--against", other],
                     ["tokenizer.json"])


class GenerateTest(VerbCase):
    PROMPT = "Once upon a time"

    def test_text_and_json_agree(self):
        args = ["generate", SOURCE, "--prompt", self.PROMPT, "--max-tokens", "40"]
        text, found = self.ok(*args), self.json(*args)
        self.assertEqual(set(found), {"prompt", "text", "tokens", "prompt_tokens", "prefill_seconds",
                                      "decode_seconds", "decode_tokens_per_s"})
        self.assertEqual(text, found["text"] + "\n")
        self.assertTrue(text.startswith(self.PROMPT))
        self.assertEqual(found["prompt"], self.PROMPT)
        self.assertEqual(len(found["tokens"]), 40)
        self.assertEqual(found["prompt_tokens"][0], 1)  # BOS
        self.assertEqual(text, self.ok(*args, "--threads", "2"), "threads changed the text")

    def test_prompt_file(self):
        file = self.file("prompt.txt", self.PROMPT + "\n")
        args = ["--max-tokens", "5"]
        self.assertEqual(self.ok("generate", SOURCE, "--prompt-file", file, *args),
                         self.ok("generate", SOURCE, "--prompt", self.PROMPT, *args))

    def test_sampling(self):
        def sample(*options):
            return self.json("generate", SOURCE, "--prompt", self.PROMPT, "--max-tokens", "30",
                             *options)["tokens"]

        greedy = sample()
        one = sample("--temperature", "1.5", "--seed", "1")
        self.assertEqual(one, sample("--temperature", "1.5", "--seed", "1"))
        self.assertNotEqual(one, sample("--temperature", "1.5", "--seed", "2"))
        self.assertEqual(greedy, sample("--temperature", "1.5", "--top-k", "1", "--seed", "1"))
        self.assertEqual(greedy, sample("--temperature", "1.5", "--top-p", "1e-6", "--seed", "1"))
        self.assertNotEqual(greedy, sample("--repetition-penalty", "5"))

    def test_prompts_that_look_like_syntax(self):
        for prompt in ["--json", "-1", "[a,b]", "{}", "%%", "größer 🦊"]:
            with self.subTest(prompt):
                found = self.json("generate", SOURCE, "--prompt", prompt, "--max-tokens", "1")
                self.assertEqual(found["prompt"], prompt)


class VerifyTest(VerbCase):
    def test_sound(self):
        found = self.json("verify", SOURCE)
        self.assertEqual((found["problems"], found["ok"]), ([], True))
        self.assertGreater(len(found["checks"]), 2)
        self.assertRegex(self.ok("verify", SOURCE), r"\A(ok  [^\n]+\n)+\Z")

    def test_changed_byte(self):
        out = self.convert()
        weights = out / "model.safetensors"
        data = bytearray(weights.read_bytes())
        data[-1] ^= 1
        weights.write_bytes(data)
        done = self.gqa("verify", out, "--json")
        found = json.loads(done.stdout)
        self.assertEqual((done.returncode, found["ok"]), (65, False))
        self.assertIn("model.safetensors", "".join(found["problems"]))
        self.assertRegex(done.stderr.decode(), r"\Agqa: error: [^\n]+\n\Z")


class DoctorTest(VerbCase):
    def test_json(self):
        found = self.json("doctor", "--threads", "2")
        self.assertTrue(found["ok"])
        self.assertEqual((found["isa"], found["threads"]), (found["isas"][0], 2))
        self.assertEqual({check["isa"] for check in found["self_check"]}, set(found["isas"]))
        for check in found["self_check"]:
            rounds = (check["isa"], check["cache"]) == ("avx512_amx", "bf16")
            self.assertTrue(check["ok"] and check["max_error"] < (2**-8 if rounds else 1e-5), check)
        for key in ["version", "cpu", "logical_cores", "physical_cores", "caches", "memory_bytes",
                    "memory_available_bytes", "huge_pages", "system"]:
            self.assertIn(key, found)

    def test_isa(self):
        for isa in self.json("doctor")["isas"]:
            self.assertEqual(self.json("doctor", "--isa", isa)["isa"], isa)


if __name__ == "__main__":
    unittest.main()
