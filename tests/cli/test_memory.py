"""What a conversion says that it takes, beside what it takes."""
import json
import pathlib
import shutil
import subprocess
import sys
import unittest

import gqa_case
from model_folder import SOURCE, write_sparse

TOOLS = pathlib.Path(__file__).resolve().parents[2] / "tools"
sys.path.insert(0, str(TOOLS))
from bench_convert import run_watched  # noqa: E402


# glibc keeps freed blocks of up to this size for later, in a heap for each thread: which thread does what is chance, and
# so is what is left between (M_MMAP_THRESHOLD in mallopt(3)).
KEPT_BY_THE_HEAP = 32 << 20


class MemoryTest(gqa_case.GqaCase):
    def check(self, verb, changes, *args, tolerance):
        """The peak of a conversion of a model of one layer, held against the estimate and the bound. A peak that
        is polled may be missed, on a busy machine most of all, but is never too high: one run must come close."""
        source = write_sparse(self.place(), {"num_hidden_layers": 1, "head_dim": 128} | changes)
        layer = (source / "model.safetensors").stat().st_size
        layer -= 4 * 512 * changes["hidden_size"]
        out, close = self.place(), False
        for _ in range(20):
            _, peak, report = run_watched(
                [gqa_case.GQA, verb, source, out, "--force", "--json", "--quiet", *args], pause=0)
            estimate = json.loads(report)["peak_memory_bytes"]
            self.assertLessEqual(peak, 3 * layer + 256e6)
            self.assertLessEqual(peak, estimate + tolerance * estimate)
            close = close or peak >= estimate - tolerance * estimate
            if close:
                return estimate
        self.fail(f"estimate {estimate}, but no more than {peak} is taken")

    def test_merging(self):
        self.check("convert", {
            "hidden_size": 2048, "intermediate_size": 1024, "num_attention_heads": 16,
            "num_key_value_heads": 16}, "--kv-heads", "8", tolerance=0.05)

    def test_large_tensors_come_in_pieces(self):
        """Matrices of 67 MB each, whatever happens to them, take a few pieces."""
        model = {"hidden_size": 1024, "intermediate_size": 16384, "num_attention_heads": 8, "num_key_value_heads": 2}
        for args in ([], ["--dtype", "bf16"]):
            with self.subTest(args):
                self.assertLess(self.check("expand", model, *args, tolerance=0.25), 16e6)

    def check_calibrated(self, source, *args):
        """Rows of all the text lie in scratch files, so that the estimate holds, and is no more than a bit too high."""
        text, peaks = SOURCE / "heldout.txt", []
        for _ in range(3):
            _, peak, report = run_watched(
                [gqa_case.GQA, "convert", source, self.place(), "--json", "--quiet", "--calibrate", text,
                 "--sampled-tokens", "0", *args], pause=0)
            estimate = json.loads(report)["peak_memory_bytes"]
            self.assertLessEqual(peak, 1.1 * estimate + KEPT_BY_THE_HEAP)
            peaks.append(peak)
            if peak >= estimate / 1.2:
                return estimate
        self.fail(f"estimate {estimate}, but no more than {peaks} is taken")

    def test_calibrating(self):
        """More text takes no more memory: lumps of 4096 tokens do."""
        args = ["--kv-heads", "4", "--refine", "2", "--calibrate-tokens"]
        some = self.check_calibrated(SOURCE, *args, "5000")
        self.assertLess(abs(self.check_calibrated(SOURCE, *args, "9000") / some - 1), 0.25)

    def test_calibrating_a_wide_model(self):
        """Learned groups are refined beside what merging them looks at."""
        source = self.place()
        subprocess.run([sys.executable, TOOLS / "random_model.py", source, "--layers", "1", "--width", "1024",
                        "--mlp-width", "1024", "--heads", "8", "--kv-heads", "8", "--head-dim", "128",
                        "--vocab", "1024", "--positions", "512"], check=True)
        shutil.copy(SOURCE / "tokenizer.json", source)
        for grouping in "neighbour", "learned":
            with self.subTest(grouping):
                self.check_calibrated(source, "--kv-heads", "2", "--refine", "1", "--calibrate-tokens", "1024",
                                      "--grouping", grouping)


if __name__ == "__main__":
    unittest.main()
