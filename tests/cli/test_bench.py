"""`gqa bench`: what it reports and refuses. How fast anything is, no test says."""
import os
import unittest

from model_folder import SOURCE
from verb_case import VerbCase

SMALL = ["--q-heads", "4", "--kv-heads", "2", "--head-dim", "16", "--kv-len", "96",
         "--repeats", "2", "--threads", "1"]
FIGURES = ["ms_median", "ms_min", "ms_max", "gb_per_s", "ceiling_gb_per_s", "bandwidth_fraction",
           "gflop_per_s", "ceiling_gflop_per_s", "compute_fraction"]


class BenchTest(VerbCase):
    def check_figures(self, found):
        for key in FIGURES:
            self.assertIsInstance(found[key], float, key)
            self.assertGreater(found[key], 0, key)
        self.assertLessEqual(found["ms_min"], found["ms_median"])
        self.assertLessEqual(found["ms_median"], found["ms_max"])
        self.assertIsInstance(found["cpu_fraction"], float)
        self.assertTrue(0 <= found["cpu_fraction"] <= 1)
        self.assertEqual(found["short_of_cores"], found["cpu_fraction"] < 0.9)
        self.assertIn("machine", found)
        for share, rate in ("bandwidth_fraction", "gb_per_s"), ("compute_fraction", "gflop_per_s"):
            self.assertAlmostEqual(found[share] / (found[rate] / found[f"ceiling_{rate}"]), 1, 9)

    def check_attention(self, kind, *args, flop, kv_bytes, **config):
        found = self.json("bench", kind, *SMALL, *args)
        self.check_figures(found)
        expected = {"kind": kind, "threads": 1, "repeats": 2, "kv_bytes": kv_bytes, "q_heads": 4,
                    "kv_heads": 2, "head_dim": 16, "v_head_dim": 16, "kv_len": 96,
                    "kv_dtype": "f16", "window": 0, "softcap": 0, "sinks": False} | config
        self.assertEqual({key: found[key] for key in expected}, expected)
        seconds = found["ms_median"] / 1e3
        self.assertAlmostEqual(found["gflop_per_s"] * seconds * 1e9 / flop, 1, 9)
        self.assertAlmostEqual(found["gb_per_s"] * seconds * 1e9 / kv_bytes, 1, 9)
        self.assertGreater(found["peak_gflop_per_s"], found["gflop_per_s"])
        self.assertGreaterEqual(found["caches"], 1)
        self.assertGreaterEqual(found["rotated_bytes"], found["caches"] * kv_bytes)
        return found

    def test_decode(self):
        self.check_attention("decode", flop=4 * 4 * 16 * 96, kv_bytes=96 * 2 * 32 * 2, q_len=1)

    def test_prefill(self):
        self.check_attention("prefill", flop=4 * 4 * 16 * 96 * 97 / 2, kv_bytes=96 * 2 * 32 * 2,
                             q_len=96)

    def test_options(self):
        isa = self.json("doctor")["isas"][-1]
        found = self.check_attention(
            "prefill", "--v-head-dim", "8", "--q-len", "2", "--window", "10", "--softcap", "30",
            "--sinks", "--kv-dtype", "f32", "--isa", isa, flop=2 * 24 * 4 * 20,
            kv_bytes=11 * 2 * 24 * 4, v_head_dim=8, q_len=2, window=10, softcap=30, sinks=True,
            kv_dtype="f32")
        self.assertEqual(found["isa"], isa)

    def check_backward(self, *args, flop, **config):
        found = self.json("bench", "backward", *SMALL, *args)
        expected = {"kind": "backward", "threads": 1, "repeats": 2, "q_heads": 4, "kv_heads": 2,
                    "head_dim": 16, "v_head_dim": 16, "kv_len": 96, "q_len": 96, "dtype": "f32",
                    "window": 0, "softcap": 0, "sinks": False} | config
        self.assertEqual({key: found[key] for key in expected}, expected)
        for key in "ms", "forward_ms":
            self.assertTrue(0 < found[f"{key}_min"] <= found[f"{key}_median"] <= found[f"{key}_max"])
        self.assertAlmostEqual(found["gflop_per_s"] * found["ms_median"] * 1e6 / flop, 1, 9)
        self.assertAlmostEqual(found["compute_fraction"] * found["ceiling_gflop_per_s"]
                               / found["gflop_per_s"], 1, 9)
        self.assertGreater(found["peak_gflop_per_s"], found["gflop_per_s"])
        self.assertTrue(0 <= found["cpu_fraction"] <= 1)
        self.assertEqual(found["short_of_cores"], found["cpu_fraction"] < 0.9)

    def test_backward(self):
        self.check_backward(flop=10 * 4 * 16 * 96 * 97 / 2)
        self.check_backward("--v-head-dim", "8", "--q-len", "2", "--window", "10", "--softcap",
                            "30", "--sinks", "--dtype", "bf16", flop=2 * (3 * 16 + 2 * 8) * 4 * 20,
                            v_head_dim=8, q_len=2, window=10, softcap=30, sinks=True, dtype="bf16")
        text = self.ok("bench", "backward", *SMALL, "--sinks", "--quiet")
        for words in ["96 query tokens against 96 keys, 4/2 heads of size 16, f32, sinks",
                      "attend_backward()", "attend()", "median", "SGEMM", " %"]:
            self.assertIn(words, text)
        for isa in self.json("doctor")["isas"]:
            found = self.json("bench", "backward", *SMALL, "--dtype", "bf16", "--isa", isa)
            self.assertEqual((found["isa"], found["gemm"]), (isa, "bf16" if isa == "avx512_amx" else "f32"))

    def test_text(self):
        text = self.ok("bench", "decode", *SMALL, "--kv-dtype", "bf16", "--quiet")
        for words in ["1 query token against 96 keys, 4/2 heads of size 16, bf16", "1 thread",
                      "2 repetitions", "median", "ceiling", "GB/s", "GFLOP/s", " %"]:
            self.assertIn(words, text)

    def test_two_configurations_in_turns(self):
        both = {"q_heads": 4, "head_dim": 16, "repeats": 2, "threads": 1, "kind": "decode",
                "q_len": 1, "attention": "exact"}
        args = ["bench", "decode", *SMALL, "--softcap", "20", "--beside",
                "kv-heads=4,kv-len=200,kv-dtype=int8,softcap=0"]
        found = self.json(*args)
        other = found["beside"]
        for figures, own in ((found, {"kv_heads": 2, "kv_len": 96, "kv_dtype": "f16", "softcap": 20,
                                      "kv_bytes": 96 * 2 * 32 * 2}),
                             (other, {"kv_heads": 4, "kv_len": 200, "kv_dtype": "int8", "softcap": 0,
                                      "kv_bytes": 200 * 4 * (32 + 8)})):
            self.check_figures(figures)
            self.assertEqual({key: figures[key] for key in both | own}, both | own)
        self.assertTrue(other["ms_min"] / found["ms_max"] <= found["beside_times"]
                        <= other["ms_max"] / found["ms_min"])
        # A head's values are as long as its keys there, too.
        other = self.json("bench", "prefill", *SMALL, "--beside", "head-dim=32,sinks")["beside"]
        self.assertEqual((other["head_dim"], other["v_head_dim"], other["q_len"], other["sinks"]),
                         (32, 32, 96, True))
        text = self.ok(*args)
        for words in ["96 keys, 4/2 heads of size 16, f16, soft cap 20",
                      "200 keys, 4/4 heads of size 16, int8\n", "times as long as the first"]:
            self.assertIn(words, text)

    def test_attention_in_blocks_and_windows(self):
        pairs = {"block:32": (3 * 32 * 33 // 2, 32), "window:32": (32 * 33 // 2 + 64 * 32, 32)}
        for spec, (prefill, decode) in pairs.items():
            for kind, q_len, seen, exact, keys in (("prefill", 96, prefill, 96 * 97 // 2, 96),
                                                   ("decode", 1, decode, 96, 32)):
                with self.subTest(spec=spec, kind=kind):
                    found = self.check_attention(
                        kind, "--attention", spec, flop=4 * 4 * 16 * seen,
                        kv_bytes=keys * 2 * 32 * 2, q_len=q_len, attention=spec)
                    self.assertAlmostEqual(found["keys_read_share"], seen / exact, 9)
                    self.assertAlmostEqual(found["kv_bytes_share"], seen / exact, 9)
                    self.assertAlmostEqual(found["speedup"] * found["ms_median"]
                                           / found["exact_ms_median"], 1, 9)
                    self.assertGreater(found["output_error"], 0)
                    self.assertEqual(found["select_share"], 0)
                    self.assertNotIn("chosen", found)
        exact = self.json("bench", "decode", *SMALL, "--attention", "exact")
        self.assertEqual(exact["attention"], "exact")
        self.assertNotIn("speedup", exact)
        text = self.ok("bench", "decode", *SMALL, "--attention", "block:32", "--quiet")
        for words in ["attention block:32", "approximation", "exact", "speed-up",
                      r"33.33 %", "output error"]:
            self.assertIn(words, text)

    def test_attention_that_chooses(self):
        small = [*SMALL[:6], "--kv-len", "300", *SMALL[8:], "--kv-dtype", "f32"]
        # Specs, full budgets of the same kind, and what is chosen at least and at most.
        specs = {"topk:3": ("topk:5", 3, 3), "topp:0.5": ("topp:1", 3, 5),
                 "lowrank:4,50": ("lowrank:4", 50, 50), "clustered:8": ("clustered:128", 8, 8),
                 "clustered:8,1": ("clustered:1,5", 8, 8), "dynamic:1": ("dynamic:0", 1, 128),
                 "global-local:100,32": ("global-local:300,32", 4, 6)}
        for spec, (full, low, high) in specs.items():
            exact = self.json("bench", "decode", *small, "--attention", full)
            self.assertLess(exact["output_error"], 1e-3)
            for kind in ["decode", "prefill"] if spec in ("topk:3", "clustered:8") else ["decode"]:
                with self.subTest(spec=spec, kind=kind):
                    found = self.json("bench", kind, *small, "--attention", spec)
                    self.check_figures(found)
                    self.assertTrue(2e-3 < found["output_error"] < 1)
                    self.assertTrue(0 < found["keys_read_share"] < 1)
                    self.assertTrue(0 < found["select_share"] < 1)
                    chosen = found["chosen"]
                    self.assertTrue(chosen["min"] <= chosen["mean"] <= chosen["max"] <= high)
                    if kind == "decode":
                        self.assertGreaterEqual(chosen["min"], low)

    def test_recall(self):
        small = ["--q-heads", "8", "--kv-heads", "4", "--head-dim", "64", "--kv-len", "1024",
                 "--queries", "8", "--trials", "2", "--needles", "16"]
        exact = self.json("bench", "recall", *small)
        expected = {"kind": "recall", "attention": "exact", "q_heads": 8, "kv_heads": 4,
                    "head_dim": 64, "kv_len": 1024, "kv_dtype": "f16", "needles": 16, "queries": 8,
                    "trials": 2, "seed": 0, "chance": 1 / 64, "keys_read_share": 1}
        self.assertEqual({key: exact[key] for key in expected}, expected)
        self.assertGreater(exact["recall"], 0.98)
        self.assertEqual(exact["recall"], exact["exact_recall"])
        self.assertTrue(0.5 < exact["needle_mass"] < 0.85)
        for spec, share in ("window:64", 64 / 1020.5), ("block:512", (512 - 3.5) / 1020.5):
            found = self.json("bench", "recall", *small, "--attention", spec)
            self.assertEqual(found["attention"], spec)
            self.assertEqual(found["exact_recall"], exact["recall"])
            self.assertAlmostEqual(found["keys_read_share"], share, 9)
            self.assertLess(found["recall"], share + 0.25)
        for full in "topk:16", "topp:1", "lowrank:4", "clustered:128", "dynamic:0":
            found = self.json("bench", "recall", *small, "--attention", full)
            self.assertEqual(found["recall"], exact["recall"], full)
        found = self.json("bench", "recall", *small, "--attention", "lowrank:64,64")
        self.assertEqual(found["chosen"], {"mean": 64, "min": 64, "max": 64})
        self.assertGreater(found["recall"], 0.9)
        self.assertLess(found["keys_read_share"], 0.1)
        other = self.json("bench", "recall", *small, "--seed", "1", "--kv-dtype", "int8")
        self.assertNotEqual(other["needle_mass"], exact["needle_mass"])
        text = self.ok("bench", "recall", *small)
        for words in ["16 needles in 1,024 keys", "8 query tokens in each of 2 contexts",
                      "8/4 heads of size 64", "recall", "keys read"]:
            self.assertIn(words, text)

    def test_more_threads_than_cores_are_noted(self):
        def one_core():
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

        done = self.gqa("bench", "decode", *SMALL[:-2], "--threads", "3", "--json",
                        preexec_fn=one_core)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(b'"short_of_cores":true', done.stdout)
        self.assertIn(b"3 threads ran for", done.stderr)

    def test_model(self):
        found = self.json("bench", "model", SOURCE, "--prompt-tokens", "20", "--new-tokens", "3",
                          "--batch", "2", "--kv-dtype", "bf16", "--repeats", "1", "--threads", "1")
        self.check_figures(found)
        expected = {"kind": "model", "model": str(SOURCE), "prompt_tokens": 20, "new_tokens": 3,
                    "batch": 2, "kv_dtype": "bf16", "threads": 1, "repeats": 1,
                    # 22 tokens in the mean, of each sequence
                    "kv_bytes": 2 * 22 * 6 * 2 * 8 * 16 * 2}
        self.assertEqual({key: found[key] for key in expected}, expected)
        step = found["ms_median"] / 1e3
        self.assertAlmostEqual(found["decode_tokens_per_s"] * step / 2, 1, 9)
        self.assertAlmostEqual(
            found["prefill_tokens_per_s"] * found["prefill_ms_median"] / 1e3 / 40, 1, 9)
        read = found["weight_bytes"] + found["kv_bytes"]
        self.assertAlmostEqual(found["gb_per_s"] * step * 1e9 / read, 1, 9)
        self.assertEqual(found["weight_dtype"], "stored")
        int8 = self.json("bench", "model", SOURCE, "--new-tokens", "2", "--repeats", "1",
                         "--weight-dtype", "int8")
        self.assertEqual(int8["weight_dtype"], "int8")
        # A byte a weight and four a block of 64 inputs; rows of 344 inputs have a short sixth one.
        self.assertTrue(17 / 64 <= int8["weight_bytes"] / found["weight_bytes"] < 0.27)
        text = self.ok("bench", "model", SOURCE, "--new-tokens", "2", "--repeats", "1")
        for words in ["1 sequence of 510 prompt tokens", "tokens/s", "of weights", "decoding step"]:
            self.assertIn(words, text)

    def test_usage_errors(self):
        cases = {
            r"decode, prefill, backward, model or recall \(see gqa bench --help": ["bench"],
            "unexpected argument 'sideways'": ["bench", "sideways"],
            r"(?s)--frobnicate.*gqa bench decode --help": ["bench", "decode", "--frobnicate"],
            "--q-heads: .* at least|--q-heads: .* from 1": ["bench", "decode", "--q-heads", "0"],
            "kv_heads is 5": ["bench", "decode", "--kv-heads", "5"],
            "'int2'": ["bench", "decode", "--kv-dtype", "int2"],
            "q_len is 65": ["bench", "prefill", "--kv-len", "64", "--q-len", "65"],
            "'-1'": ["bench", "decode", "--window", "-1"],
            "softcap is -1": ["bench", "decode", "--softcap", "-1"],
            "--repeats": ["bench", "decode", "--repeats", "0"],
            "kv_heads is 6": ["bench", "backward", "--kv-heads", "6"],
            "q_len is 66": ["bench", "backward", "--kv-len", "64", "--q-len", "66"],
            "'int8'": ["bench", "backward", "--dtype", "int8"],
            "--kv-dtype": ["bench", "backward", "--kv-dtype", "f16"],
            "--prompt-tokens": ["bench", "decode", "--prompt-tokens", "5"],
            "'nonsense'": ["bench", "decode", "--attention", "nonsense"],
            "soft cap or sinks": ["bench", "decode", "--attention", "block:64", "--sinks"],
            "--beside: .*--colour=3": ["bench", "decode", "--beside", "colour=3"],
            "--beside: .*--repeats=3": ["bench", "decode", "--beside", "repeats=3"],
            "--beside: --kv-heads: .*'x'": ["bench", "prefill", "--beside", "q-len=4,kv-heads=x"],
            "kv_heads is 7": ["bench", "decode", "--beside", "kv-heads=7"],
            "--beside is empty": ["bench", "decode", "--beside", ""],
            "attention is block:64": ["bench", "decode", "--attention", "block:64", "--beside",
                                      "kv-heads=4"],
            "needles is 99": ["bench", "recall", "--kv-len", "100", "--needles", "99",
                              "--queries", "8"],
            "head_dim is 8": ["bench", "recall", "--head-dim", "8"],
            "--trials": ["bench", "recall", "--trials", "0"],
            "MODEL": ["bench", "model"],
            "prompt_tokens is 500": ["bench", "model", SOURCE, "--prompt-tokens", "500"],
            "new_tokens is 512": ["bench", "model", SOURCE, "--new-tokens", "512"],
        }
        for words, args in cases.items():
            with self.subTest(args=args):
                self.refused(2, args, [words])
        self.refused(66, ["bench", "model", self.root / "none"], ["none"])
        self.refused(71, ["bench", "backward", "--kv-len", str(2**30)], ["memory"])
        self.refused(71, ["bench", "decode", "--kv-len", str(2**40)], ["memory"])


if __name__ == "__main__":
    unittest.main()
